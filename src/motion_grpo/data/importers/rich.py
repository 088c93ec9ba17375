"""RICH (Huang et al., CVPR 2022; rich.is.tue.mpg.de): per-frame SMPL-X fits in pickle files, in its official splits.

Layout, as its archives unpack and as its toolkit (github.com/paulchhuang/rich_toolkit) wants it::

    train_body/ParkingLot1_005_pushup2/00150/005.pkl     or bodies/train/ParkingLot1_005_pushup2/00150/005.pkl
    multicam2world/ParkingLot1_multicam2world.json
    scan_calibration/ParkingLot1/scan_camcoord.ply        (for the ground; can be missing)
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import HEAD, NUM_BETAS, NUM_BODY_AND_ROOT, NUM_BODY_JOINTS, Skeleton, forward_kinematics
from motion_grpo.body.betas import fit_betas
from motion_grpo.body.joints import LEFT_FOOT, RIGHT_FOOT
from motion_grpo.body.smplx import SmplxBody, load_smplx
from motion_grpo.data.clips import Clip, ClipError
from motion_grpo.data.importers.base import Job
from motion_grpo.data.importers.rich_scene import RichScene, find_scene, read_scan
from motion_grpo.data.preprocessing import floor_from_toes
from motion_grpo.files import is_hidden
from motion_grpo.io.restricted_pickle import load_pickled_arrays
from motion_grpo.motion import Motion
from motion_grpo.motion.contacts import TOE_HEIGHT, label_contacts, speeds
from motion_grpo.trajectory import floor_from_points

LICENSE = "RICH: non-commercial scientific research, no redistribution (rich.is.tue.mpg.de/license.html)"
FPS = 30.0
SPLITS = ("train", "val", "test")
"""The official ones, by the folders that RICH is published in."""

# Meters from the sole up to the toe joints in the default body's rest pose.
_SOLE_UNDER_TOE = 0.0165
# rich_toolkit, resource/gender.json: the body model that a subject was fitted with; the others are male.
_FEMALE = {9, 10, 12, 13, 16, 17, 18, 19, 21}
_SEQUENCE = re.compile(r"[A-Za-z]+\d*_(\d{3}(?:_\d{3})*)_(.+)")
# Numbers a frame. A file has the face and a pose embedding, too, which no SMPL-H body needs.
_ARRAYS = {
    "transl": 3, "global_orient": 3, "body_pose": 3 * NUM_BODY_JOINTS, "betas": 10, "left_hand_pose": 12,
    "right_hand_pose": 12,
}  # fmt: skip


@dataclass(frozen=True)
class RichImporter:
    """Clips of RICH on the default body (SMPL-X's shape space), floor at z = 0, 30 fps, one a person and sequence.

    Frames without a fit cut a clip in two. Joint rotations are SMPL-X's own, which mean the same in SMPL-H.

    RICH's bodies are male and female SMPL-X, whose betas mean something else on the neutral default body. With the
    licensed SMPL-X files each person gets the neutral shape whose bones are nearest to the fitted ones, fingers are
    decoded, and the floor is the ground of RICH's scan, if it is there. Without them all have the mean shape and
    flat hands; rotations and the way through the world stay exact, and the floor is found under the feet that stand
    still, so that legs of another length stand on it, too.
    """

    root: Path
    """Holds ``multicam2world`` and any of ``train_body``, ``val_body``, ``test_body`` (or ``bodies/train``, ...)."""
    body_models: Path | None = None
    """Folder with SMPLX_MALE.npz and SMPLX_FEMALE.npz (smpl-x.is.tue.mpg.de); None does without."""
    hands: bool = True
    """Keep finger rotations; needs ``body_models``, which hold the basis that they are written in."""
    min_seconds: float = 1.0
    """Shorter pieces between missing frames are left out."""
    name: str = "rich"

    def jobs(self) -> list[Job]:
        """One job a person and sequence, by split and name.

        Raises:
            FileNotFoundError: no bodies, ``multicam2world`` or SMPL-X files where they belong.
            ValueError: a body file of another model.
        """
        if self.body_models is not None:
            for gender in ("male", "female"):
                load_smplx(self.body_models, gender)
        jobs = []
        for split in SPLITS:
            places = (self.root / f"{split}_body", self.root / "bodies" / split, self.root / "data" / "bodies" / split)
            folder = next((place for place in places if place.is_dir()), None)
            for sequence in sorted(folder.iterdir()) if folder else []:
                if sequence.is_dir() and not is_hidden(sequence.name):
                    jobs += _jobs_of(sequence, split)
        if not any(job.extra["subject"] for job in jobs):
            raise FileNotFoundError(
                f"{self.root} holds no bodies of RICH; looked for train_body, val_body and test_body (or bodies/train, "
                "...) with folders like ParkingLot1_005_pushup2 in them."
            )
        find_scene(self.root, next(job.path.name for job in jobs if job.extra["subject"]))
        return jobs

    def convert(self, job: Job) -> list[Clip]:
        """The clips of one person in one sequence; those after a gap are named by their first frame.

        Raises:
            ClipError: no fits, none for long enough, or nothing to find the floor by.
            FileNotFoundError: no ``multicam2world`` of that scene.
            ValueError: a fit that cannot be read, or is none; its file is named.
        """
        subject = job.extra["subject"]
        if not subject:
            raise ClipError("the folder is not named like a sequence of RICH (SCENE_SUBJECT_ACTION)")
        files = {int(p.parent.name): p for p in job.path.glob(f"*/{subject}.pkl") if p.parent.name.isdigit()}
        runs = [run for run in _runs(sorted(files)) if len(run) >= max(2.0, self.min_seconds * FPS)]
        if not runs:
            raise ClipError(f"fewer than {self.min_seconds:g} s of consecutive fits")
        body = None
        if self.body_models is not None:
            body = load_smplx(self.body_models, "female" if int(subject) in _FEMALE else "male")
        scene = find_scene(self.root, job.path.name)
        fits = [_read_fits([files[frame] for frame in run]) for run in runs]
        # A person has one shape; the mean takes out what noise there may be.
        betas = torch.cat([fit["betas"] for fit in fits]).mean(dim=0)
        motions = _above_floor([self._motion(fit, betas, body, scene) for fit in fits], scene if body else None)
        ids = [job.id] + [f"{job.id}/{run[0]:05d}" for run in runs[1:]]
        return [
            Clip(
                id=id,
                source="rich",
                motion=motion,
                subject=subject,
                content=_SEQUENCE.fullmatch(job.path.name)[2],
                split=job.split,
                license=LICENSE,
            )
            for id, motion in zip(ids, motions, strict=True)
        ]

    def _motion(
        self, fit: dict[str, Tensor], betas: Float[Tensor, "10"], body: SmplxBody | None, scene: RichScene
    ) -> Motion:
        default, frames = Skeleton.default(), len(fit["transl"])
        if body is None:
            # The mean body's pelvis stands in for the fitted one's: centimeters, the same for the whole clip.
            shape, pelvis, hands = torch.zeros(NUM_BETAS), default.J0[0], None
        else:
            rest = body.rest_joints(betas)
            shape, pelvis = fit_betas(rest, default), rest[0]
            hands = body.hand_rotmats(fit["left_hand_pose"], fit["right_hand_pose"]) if self.hands else None
        return Motion(
            root_rotmats=scene.R_world_camera @ roma.rotvec_to_rotmat(fit["global_orient"]),
            # SMPL-X turns about its pelvis, which transl moves away from where it is in the rest pose.
            root_positions=scene.to_world(fit["transl"] + pelvis),
            body_rotmats=roma.rotvec_to_rotmat(fit["body_pose"].unflatten(1, (NUM_BODY_JOINTS, 3))),
            betas=shape,
            contacts=torch.zeros(frames, NUM_BODY_JOINTS),
            timestamps=torch.arange(frames, dtype=torch.float64) / FPS,
            hand_rotmats=hands,
        )


def _jobs_of(sequence: Path, split: str) -> list[Job]:
    name = _SEQUENCE.fullmatch(sequence.name)
    if name is None:
        return [Job(sequence.name, sequence, split, {"subject": ""})]
    subjects = name[1].split("_")
    alone = len(subjects) == 1
    return [Job(sequence.name if alone else f"{sequence.name}/{s}", sequence, split, {"subject": s}) for s in subjects]


def _runs(frames: list[int]) -> list[list[int]]:
    """Consecutive numbers, together."""
    cuts = np.flatnonzero(np.diff(frames) != 1) + 1
    return [run.tolist() for run in np.split(np.array(frames, dtype=int), cuts) if len(run)]


def _read_fits(paths: list[Path]) -> dict[str, Float[Tensor, "frames numbers"]]:
    """The arrays of one fit a file.

    Raises:
        ValueError: a file that holds something else, or numbers that are not finite.
    """
    rows: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS}
    for path in paths:
        fit = load_pickled_arrays(path)
        for name, size in _ARRAYS.items():
            value = fit.get(name) if isinstance(fit, dict) else None
            if not isinstance(value, np.ndarray) or value.size != size or value.dtype.kind not in "fiu":
                raise ValueError(f"{path} is no fit of RICH: {name} is not an array of {size} numbers.")
            if not np.isfinite(value).all():
                raise ValueError(f"{path}: {name} holds numbers that are not finite.")
            rows[name].append(value.astype(np.float32).ravel())
    return {name: torch.from_numpy(np.stack(values)) for name, values in rows.items()}


def _above_floor(motions: list[Motion], scene: RichScene | None) -> list[Motion]:
    """The pieces of one sequence with the floor at z = 0, contacts labeled.

    Args:
        scene: the ground of its scan is the floor; without a scan or a scene the feet tell.
    """
    joints = [
        forward_kinematics(
            motion.body.rest_joints(motion.betas)[:NUM_BODY_AND_ROOT],
            torch.cat([motion.root_rotmats[:, None], motion.body_rotmats], dim=1),
            motion.root_positions,
        ).joints
        for motion in motions
    ]
    floor = None
    if scene is not None and scene.scan is not None:
        points = scene.to_world(torch.from_numpy(read_scan(scene.scan))).double().numpy()
        ground = floor_from_points(points, torch.cat(joints)[:, HEAD].double().numpy())
        # Soles stand on the ground, and the floor of all data is measured from the toe joints.
        floor = None if ground is None else ground + _SOLE_UNDER_TOE - TOE_HEIGHT
    if floor is None:
        toes = [piece[:, [LEFT_FOOT, RIGHT_FOOT]] for piece in joints]
        floor = floor_from_toes(torch.cat(toes)[..., 2], torch.cat([speeds(piece, FPS) for piece in toes]))
    if floor is None:
        raise ClipError("no foot ever stands still, so that the floor cannot be found")
    drop = torch.tensor([0.0, 0.0, floor])
    return [
        replace(motion, root_positions=motion.root_positions - drop, contacts=label_contacts(piece, FPS, floor))
        for motion, piece in zip(motions, joints, strict=True)
    ]
