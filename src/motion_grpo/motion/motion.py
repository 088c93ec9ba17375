"""What a user gets: the motion of one body (:class:`Motion`)."""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from motion_grpo.body import NUM_HAND_JOINTS, PosedBody, Skeleton, forward_kinematics
from motion_grpo.motion.state import FPS
from motion_grpo.timing import frame_rate


@dataclass(frozen=True, eq=False)
class Motion:
    """One motion of T frames, in the z-up world of the head trajectory it belongs to."""

    root_rotmats: Float[Tensor, "frames 3 3"]
    """R_world_pelvis."""
    root_positions: Float[Tensor, "frames 3"]
    """Pelvis joint in the world, metres. Not SMPL's ``trans``, see :attr:`trans`."""
    body_rotmats: Float[Tensor, "frames 21 3 3"]
    """Relative to the parent joint, SMPL-H joints 1-21."""
    betas: Float[Tensor, "16"]
    """Shape, one for the whole motion."""
    contacts: Float[Tensor, "frames 21"]
    """Probability, in [0, 1], that a body joint rests on the ground."""
    timestamps: Float64[Tensor, "frames"]
    """Seconds, evenly spaced."""
    hand_rotmats: Float[Tensor, "frames 30 3 3"] | None = None
    """SMPL-H joints 22-51; None where hands are not known (flat)."""
    floor_height: float = 0.0
    """z of the floor in this world, metres."""
    skeleton: Skeleton | None = None
    """The body that ``betas`` refer to; None stands for :meth:`Skeleton.default`."""

    def __repr__(self) -> str:
        hands = "flat hands" if self.hand_rotmats is None else "hands"
        return (
            f"Motion({len(self)} frames, {len(self) / self.fps:.2f} s at {self.fps:.4g} fps, body {self.body.name}, "
            f"{hands}, floor at z = {self.floor_height:.3f} m)"
        )

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def fps(self) -> float:
        """Frames per second; the library's 30 for a single frame, which has no rate."""
        if len(self) == 1:
            return FPS
        return frame_rate(self.timestamps)

    @property
    def body(self) -> Skeleton:
        """The skeleton, the default one where none is set."""
        return self.skeleton or Skeleton.default()

    @cached_property
    def local_rotmats(self) -> Float[Tensor, "frames 52 3 3"]:
        """Root first, flat hands where there are none."""
        hands = self.hand_rotmats
        if hands is None:
            hands = torch.eye(3).expand(len(self), NUM_HAND_JOINTS, 3, 3)
        return torch.cat([self.root_rotmats[:, None], self.body_rotmats, hands], dim=1)

    @cached_property
    def posed(self) -> PosedBody:
        """World rotation and position (metres) of all 52 joints."""
        return forward_kinematics(self.body.rest_joints(self.betas), self.local_rotmats, self.root_positions)

    @property
    def joints(self) -> Float[Tensor, "frames 52 3"]:
        """World positions, metres."""
        return self.posed.joints

    @property
    def trans(self) -> Float[Tensor, "frames 3"]:
        """SMPL's and AMASS's translation, metres: the pelvis stands at ``trans`` plus its place in the rest pose."""
        return self.root_positions - self.body.rest_joints(self.betas)[0]

    def above_floor(self) -> "Motion":
        """The same motion in a world whose floor is at z = 0: what heights are measured in."""
        if self.floor_height == 0:
            return self
        down = torch.tensor([0.0, 0.0, -self.floor_height])
        return replace(self, root_positions=self.root_positions + down, floor_height=0.0)

    def save(self, path: str | Path) -> Path:
        """Writes the motion in the format that the suffix names: ``.npz`` is AMASS's (:mod:`motion_grpo.io.amass`).

        Raises:
            ValueError: unknown suffix.
            OSError: the folder does not exist or cannot be written to.
        """
        path = check_output_path(path)
        module, function = _WRITERS[path.suffix].split(":")
        getattr(import_module(module), function)(self, path)
        return path

    @staticmethod
    def load(path: str | Path, skeleton: Skeleton | None = None) -> "Motion":
        """Reads an AMASS npz: :func:`motion_grpo.io.amass.read_amass`."""
        return import_module("motion_grpo.io.amass").read_amass(path, skeleton)


# Writers lie above this module (some draw), so they are named here and imported when they are needed.
_WRITERS = {".npz": "motion_grpo.io.amass:write_amass"}
MOTION_SUFFIXES = tuple(_WRITERS)
"""Formats of :meth:`Motion.save`."""


def check_output_path(path: str | Path) -> Path:
    """The path, if a motion can be written there; asked before long work starts.

    Raises:
        ValueError: the suffix names no known format.
        OSError: the folder is missing, or it or the file cannot be written to.
    """
    path = Path(path)
    if path.suffix not in MOTION_SUFFIXES:
        raise ValueError(
            f"{path}: cannot write {path.suffix or 'a file without suffix'}; use {', '.join(MOTION_SUFFIXES)}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; make it first.")
    if path.is_dir() or not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise PermissionError(f"{path} cannot be written; choose another output path.")
    return path
