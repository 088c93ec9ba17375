"""The file that EgoAllo's preprocessing of AMASS ends in (``egoalgo_no_skating_dataset.hdf5``): no need to start again.

A group per clip, named like AMASS's npz (``CMU/01/01_01_poses.npz``), and ``..._reflect.npz`` for its mirror image; 30
fps, floor at z = 0, SMPL-H neutral betas. Needs ``h5py`` (the extra ``hdf5``).
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import NUM_BODY_AND_ROOT, PARENTS, Skeleton, forward_kinematics
from motion_grpo.body.betas import fit_betas, load_skeleton
from motion_grpo.body.joints import LEFT_FOOT, RIGHT_FOOT
from motion_grpo.data.clips import Clip, ClipError
from motion_grpo.data.importers.amass import HANDS_MOVE, LICENSE, SPLITS
from motion_grpo.data.importers.base import Job
from motion_grpo.extras import extra
from motion_grpo.geometry.rotations import wxyz_to_matrix
from motion_grpo.motion import Motion

FPS = 30.0
_SPLIT_OF = {subset: split for split, subsets in SPLITS.items() for subset in subsets}
# Frames first, except that betas has one row.
_SHAPES = {
    "T_world_root": (7,), "T_world_cpf": (7,), "body_quats": (21, 4), "joints_wrt_cpf": (21, 3), "contacts": (21,),
    "betas": (16,), "hand_quats": (30, 4),
}  # fmt: skip
_MARK = "/T_world_root"


@dataclass(frozen=True)
class EgoAlloHdf5Importer:
    """Clips of the reference's HDF5 file, contacts and all, in the splits of the paper.

    With the neutral SMPL-H file clips come out as they are. Without, the default body gets the shape whose bones are
    nearest to the recorded ones (they follow from the joints in the file), at the height at which toes in contact stand
    where they stood.
    """

    path: Path
    body_models: Path | None = None
    """Folder of licensed SMPL-H files, of which ``neutral/model.npz`` is used; None for the default body."""
    hands: bool = True
    """Keep finger rotations of clips in which they move."""
    mirrored: bool = False
    """Take the reference's mirrored copies too; training here mirrors on the fly."""
    name: str = "egoallo-hdf5"

    def jobs(self) -> list[Job]:
        """One job a group, sorted.

        Raises:
            FileNotFoundError: no such file; no neutral body in ``body_models``.
            ValueError: no HDF5 file, or none of EgoAllo's; a body file of another model.
            ImportError: h5py is not installed.
        """
        if self.body_models is not None:
            load_skeleton(self.body_models, "neutral")
        groups: list[str] = []
        with _open(self.path) as file:
            file.visit(lambda name: groups.append(name[: -len(_MARK)]) if name.endswith(_MARK) else None)
        if not groups:
            raise ValueError(f"{self.path} holds no group with T_world_root; it is no file of EgoAllo's preprocessing.")
        return [self._job(group) for group in sorted(groups) if self.mirrored or not group.endswith("_reflect.npz")]

    def _job(self, group: str) -> Job:
        subset, *below = group.split("/")
        subject = f"{subset}/{below[0]}" if len(below) > 1 else ""
        return Job(
            id=re.sub(r"_poses(_reflect)?\.npz$", r"\1", group),
            path=self.path,
            split=_SPLIT_OF.get(subset, "train"),
            extra={"group": group, "subset": subset, "subject": subject},
        )

    def convert(self, job: Job) -> list[Clip]:
        """The clip of one group.

        Raises:
            ClipError: in no split of the paper; a single frame.
            ValueError: an array is missing or misshapen; numbers that are not finite.
            OSError: the file cannot be read there.
        """
        if job.extra["subset"] not in _SPLIT_OF:
            raise ClipError(f"{job.extra['subset']} is in none of the paper's splits")
        with _open(job.path) as file:
            arrays = _read(file[job.extra["group"]])
        root, betas = arrays["T_world_root"], arrays["betas"][0]
        joints = torch.cat([root[:, None, 4:], _to_world(arrays["T_world_cpf"], arrays["joints_wrt_cpf"])], dim=1)
        hands = arrays.get("hand_quats")
        if not self.hands or (hands is not None and float((hands - hands[:1]).abs().max()) < HANDS_MOVE):
            hands = None
        motion = Motion(
            root_rotmats=wxyz_to_matrix(root[:, :4]),
            root_positions=root[:, 4:],
            body_rotmats=wxyz_to_matrix(arrays["body_quats"]),
            betas=betas,
            contacts=arrays["contacts"],
            timestamps=torch.arange(len(root), dtype=torch.float64) / FPS,
            hand_rotmats=None if hands is None else wxyz_to_matrix(hands),
            skeleton=None if self.body_models is None else load_skeleton(self.body_models, "neutral"),
        )
        if self.body_models is None:
            motion = _on_default_body(motion, joints)
        return [Clip(job.id, "egoallo-hdf5", motion, subject=job.extra["subject"], split=job.split, license=LICENSE)]


def _on_default_body(motion: Motion, joints: Float[Tensor, "frames 22 3"]) -> Motion:
    rotmats = torch.cat([motion.root_rotmats[:, None], motion.body_rotmats], dim=1)
    R_world = forward_kinematics(torch.zeros(NUM_BODY_AND_ROOT, 3), rotmats, motion.root_positions).rotmats
    parents = list(PARENTS[1:NUM_BODY_AND_ROOT])
    bones = (R_world[:, parents].mT @ (joints[:, 1:] - joints[:, parents])[..., None]).squeeze(-1).median(dim=0).values
    rest = [torch.zeros(3)]
    for bone, parent in zip(bones, parents, strict=True):
        rest.append(rest[parent] + bone)
    default = Skeleton.default()
    betas = fit_betas(torch.stack(rest), default)
    posed = forward_kinematics(default.rest_joints(betas)[:NUM_BODY_AND_ROOT], rotmats, motion.root_positions).joints
    toes = [LEFT_FOOT, RIGHT_FOOT]
    standing = motion.contacts[:, [toe - 1 for toe in toes]] > 0.5
    if not standing.any():
        standing = torch.ones_like(standing)
    lift = (joints[:, toes, 2] - posed[:, toes, 2])[standing].median()
    return replace(motion, betas=betas, root_positions=motion.root_positions + lift * torch.tensor([0.0, 0.0, 1.0]))


def _to_world(
    T_world_cpf: Float[Tensor, "frames 7"], points: Float[Tensor, "frames points 3"]
) -> Float[Tensor, "frames points 3"]:
    return points @ wxyz_to_matrix(T_world_cpf[:, :4]).mT + T_world_cpf[:, None, 4:]


def _read(group: Any) -> dict[str, Tensor]:
    arrays: dict[str, Tensor] = {}
    for key, shape in _SHAPES.items():
        if key not in group:
            if key == "hand_quats":  # files of the first release have none
                continue
            raise ValueError(f"The group has no {key}.")
        frames = 1 if key == "betas" else len(group["T_world_root"])
        if group[key].shape != (frames, *shape):
            raise ValueError(f"{key} has shape {group[key].shape}; {(frames, *shape)} is right.")
        arrays[key] = torch.from_numpy(group[key][()].astype(np.float32))
        if not arrays[key].isfinite().all():
            raise ValueError(f"{key} holds numbers that are not finite.")
    if len(arrays["T_world_root"]) < 2:
        raise ClipError(f"{len(arrays['T_world_root'])} frames; a motion needs two")
    return arrays


def _open(path: Path) -> Any:
    with extra("hdf5"):
        import h5py
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give EgoAllo's preprocessed .hdf5 file.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is no readable HDF5 file: {error}") from error
