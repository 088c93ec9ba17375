"""Project Aria: MPS output and Aria Digital Twin (ADT) as head trajectories, with what the glasses saw of the hands.

Neither has a body in SMPL's parameters. ADT's people wore markers in some sequences; their joints are kept as points.
Eye gaze is not read.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from motion_grpo.body import JOINT_NAMES, NUM_BODY_AND_ROOT
from motion_grpo.data.clips import ClipError
from motion_grpo.data.head_clip import HeadClip
from motion_grpo.data.importers.base import Job
from motion_grpo.files import is_hidden, source_files
from motion_grpo.geometry.rotations import rotation_to_z
from motion_grpo.motion import FPS
from motion_grpo.trajectory import HeadTrajectory, default_T_device_cpf, read_aria, vrs_T_device_cpf
from motion_grpo.trajectory.readers.aria import world_uids
from motion_grpo.trajectory.readers.aria_hands import find_hand_tracking, read_hand_tracking, recording_folder

ADT_LICENSE = "Aria Digital Twin: non-commercial research (projectaria.com/datasets/adt/license)"
# Nymeria's recording_lwrist and recording_rwrist, and what others call them.
_ON_AN_ARM = re.compile(
    r"wrist|mini[_-]?aria|bracelet|(^|[^a-z])(l|r|left|right)[_-]?(hand|arm|forearm)$|"
    r"(^|[^a-z])(hand|arm|forearm)[_-](l|r|left|right)$"
)
# Of the 51 joints in Skeleton_*.json (names as in projectaria_tools); ADT's spine has two links to SMPL-H's three.
_ADT_JOINTS = {
    "pelvis": 0, "neck": 3, "head": 4, "L_collar": 5, "L_shoulder": 6, "L_elbow": 7, "L_wrist": 8, "R_collar": 24,
    "R_shoulder": 25, "R_elbow": 26, "R_wrist": 27, "L_hip": 43, "L_knee": 44, "L_ankle": 45, "L_foot": 46,
    "R_hip": 47, "R_knee": 48, "R_ankle": 49, "R_foot": 50,
}  # fmt: skip
_ADT_NUM_JOINTS = 51


@dataclass(frozen=True)
class AriaImporter:
    """Head trajectories of MPS folders at 30 fps, floor at z = 0, with tracked hands; cut where tracking was lost.

    The floor is found in the recording's point cloud, and without one estimated from the head.
    """

    _trajectories: ClassVar[tuple[str, ...]] = ("closed_loop_trajectory.csv", "closed_loop_trajectory.csv.gz")

    root: Path
    """A recording's folder, or any folder above many."""
    device: str = "gen1"
    """Glasses, for their CAD extrinsic (``trajectory.default_T_device_cpf``)."""
    use_vrs: bool = False
    """Take each recording's own calibration from the VRS file beside it (needs the extra ``aria``)."""
    min_seconds: float = 1.0
    split: str = "test"
    license: str = ""
    """Terms of the recordings."""
    world: str = ""
    """Only this world (graph_uid) of a recording in which tracking was lost and started anew; empty for all of them."""
    name: str = "aria"

    def jobs(self) -> list[Job]:
        """One job a recording, named by its folder.

        Raises:
            FileNotFoundError: no trajectory anywhere below ``root``.
            ValueError: an unknown ``device``.
        """
        default_T_device_cpf(self.device)
        paths: dict[Path, Path] = {}
        for name in self._trajectories:
            for path in source_files(self.root, name):
                paths.setdefault(recording_folder(path), path)
        if not paths:
            raise FileNotFoundError(f"{self.root} holds no {self._trajectories[0]}, neither itself nor below.")
        jobs = []
        for folder, path in sorted(paths.items()):
            inside = folder.is_relative_to(self.root) and folder != self.root
            id = folder.relative_to(self.root).as_posix() if inside else folder.resolve().name
            names = folder.relative_to(self.root).parts if inside else (folder.resolve().name,)
            device = next((name for name in names if _ON_AN_ARM.search(name.lower())), "")
            jobs.append(Job(id, path, self.split, {"on_an_arm": device}))
        return jobs

    def convert(self, job: Job) -> list[HeadClip]:
        """The pieces of one recording between gaps; those after the first are numbered.

        Raises:
            ClipError: nothing as long as ``min_seconds``; a device on a wrist; no such ``world``.
            FileNotFoundError, ImportError: no VRS file or no projectaria-tools, with ``use_vrs``.
            ValueError: a damaged file.
        """
        if job.extra["on_an_arm"]:
            raise ClipError("a device on a wrist, by the name of its folder; only heads are trajectories here")
        T_device_cpf = self._T_device_cpf(recording_folder(job.path))
        worlds = world_uids(job.path)
        if self.world and self.world not in worlds:
            raise ClipError(f"no world {self.world} (--world) in it")
        # Worlds have nothing in common, so each is a recording of its own, with its own floor.
        chosen = [self.world] if self.world else worlds if len(worlds) > 1 else [None]
        trajectories = [read_aria(job.path, T_device_cpf=T_device_cpf, world_uid=world) for world in chosen]
        pieces = [piece for trajectory in trajectories for piece in trajectory.split_at_gaps()]
        pieces = [piece for piece in pieces if piece.duration >= self.min_seconds]
        if not pieces:
            seconds = max((trajectory.duration for trajectory in trajectories), default=0.0)
            several = f", in {len(chosen)} worlds (--world)" if len(chosen) > 1 else ""
            raise ClipError(
                f"shorter than {self.min_seconds:g} s (--min-seconds): at most {seconds:.2f} s without a gap{several}"
            )
        path = find_hand_tracking(job.path.parent)
        hands = read_hand_tracking(path).in_cpf(T_device_cpf) if path else None
        clips = []
        for number, piece in enumerate(pieces):
            piece = piece.resample(FPS)
            clip = HeadClip(
                id=f"{job.id}/{number}" if number else job.id,
                source=self.name,
                trajectory=piece.above_floor(),
                split=job.split,
                license=self.license,
                hands=hands.at(piece.timestamps) if hands else None,
                joints=self._joints(job.path.parent, piece),
            )
            clips.append(clip)
        return clips

    def _T_device_cpf(self, folder: Path) -> Float64[Tensor, "4 4"]:
        if not self.use_vrs:
            return default_T_device_cpf(self.device)
        # ADT's recording lies in the folder, among others; MPS makes mps_walk_vrs beside walk.vrs.
        beside = folder.parent / f"{folder.name.removeprefix('mps_').removesuffix('_vrs')}.vrs"
        found = [path for path in (folder / "video.vrs", beside) if path.is_file()]
        found = found or [path for path in sorted(folder.glob("*.vrs")) if not is_hidden(path.name)]
        if not found:
            raise FileNotFoundError(f"{folder} has no VRS file in or beside it ({beside.name}), which use_vrs needs.")
        return vrs_T_device_cpf(found[0])

    def _joints(self, folder: Path, trajectory: HeadTrajectory) -> Float32[Tensor, "frames 22 3"] | None:
        return None


@dataclass(frozen=True)
class AdtImporter(AriaImporter):
    """Head trajectories of Aria Digital Twin (its optical ground truth, not its MPS output), with measured joints."""

    _trajectories: ClassVar[tuple[str, ...]] = ("aria_trajectory.csv",)
    license: str = ADT_LICENSE
    name: str = "adt"

    def _joints(self, folder: Path, trajectory: HeadTrajectory) -> Float32[Tensor, "frames 22 3"] | None:
        path = find_adt_skeleton(folder)
        if path is None:
            return None
        return read_adt_joints(path, trajectory.timestamps) - torch.tensor([0.0, 0.0, trajectory.floor_height])


def find_adt_skeleton(folder: Path) -> Path | None:
    """``Skeleton_*.json`` of the person who wears the glasses of an ADT sequence; None where nobody wore markers.

    Raises:
        ValueError: damaged metadata.
    """
    people = folder / "skeleton_aria_association.json"
    if not people.is_file():
        return None
    try:
        wearers = json.loads(people.read_text())["SkeletonMetadata"]
        metadata = folder / "metadata.json"
        serial = json.loads(metadata.read_text()).get("serial") if metadata.is_file() else None
        mine = [w for w in wearers if len(wearers) == 1 or w["AssociatedDeviceSerial"] == serial]
        paths = [folder / f"{wearer['SkeletonName']}.json" for wearer in mine]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{people} or the metadata.json beside it is damaged: {error!r}.") from error
    return next((path for path in paths if path.is_file()), None)


def read_adt_joints(
    path: str | os.PathLike[str], timestamps: Float64[Tensor, " frames"]
) -> Float32[Tensor, "frames 22 3"]:
    """Measured joints of ``Skeleton_*.json`` at the given times, in the z-up world of ``read_aria``, meters.

    Ordered like SMPL-H's root and body joints, interpolated between measurements up to 50 ms apart; NaN elsewhere, and
    for the three joints of the spine, which ADT's skeleton has not. A marker suit's joints are not quite where SMPL's
    are.

    Raises:
        ValueError: no such file's content.
    """
    try:
        frames = json.loads(Path(path).read_bytes())["frames"]
        times = np.array([frame["timestamp_ns"] for frame in frames], np.float64) / 1e9
        joints = np.array([frame["joints"] for frame in frames], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no skeleton of ADT: {error!r}.") from error
    if joints.ndim != 3 or joints.shape[1:] != (_ADT_NUM_JOINTS, 3) or (np.diff(times) <= 0).any():
        raise ValueError(
            f"{path} is no skeleton of ADT: joints have the shape {joints.shape}, or times do not increase."
        )
    wanted = timestamps.numpy()
    after = np.searchsorted(times, wanted).clip(1, max(len(times) - 1, 1))
    measured = (wanted >= times[0] - 1e-6) & (wanted <= times[-1] + 1e-6)
    if len(times) > 1:
        measured &= times[after] - times[after - 1] <= 0.05
    R_up = rotation_to_z(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)).numpy()
    result = np.full((len(wanted), NUM_BODY_AND_ROOT, 3), np.nan, np.float32)
    for name, index in _ADT_JOINTS.items():
        xyz = np.stack([np.interp(wanted, times, joints[:, index, axis]) for axis in range(3)], axis=1)
        result[measured, JOINT_NAMES.index(name)] = (xyz @ R_up.T)[measured]
    return torch.from_numpy(result)
