"""Recordings of a head without a body: rows of the same schema whose body columns are null."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from motion_grpo.data.schema import FEATURES
from motion_grpo.timing import frame_rate
from motion_grpo.trajectory import HeadTrajectory

HAND_OBSERVATION = (
    "confidence",
    *(f"{what}_{axis}" for what in ("wrist", "palm", "wrist_normal", "palm_normal") for axis in "xyz"),
)
"""What the 13 numbers of a hand observation are: confidence in [0, 1], positions in meters, unit normals."""


@dataclass(frozen=True)
class HeadClip:
    """A head trajectory at an even rate, and what else was seen of its wearer."""

    id: str
    source: str
    trajectory: HeadTrajectory
    """Floor at z = 0."""
    content: str = ""
    """What its wearer does: meal, work, ...; empty where unknown."""
    split: str = ""
    license: str = ""
    hands: Float32[Tensor, "frames 2 13"] | None = None
    """Left and right hand as tracked from the head, in the CPF (:data:`HAND_OBSERVATION`); NaN where not observed."""
    joints: Float32[Tensor, "frames 22 3"] | None = None
    """Measured body joints in the world, meters, at the places of SMPL-H's; NaN where there is none."""

    def to_row(self) -> dict[str, Any]:
        """The clip as a row of the schema, whose body columns are null and whose ``skeleton`` is empty."""
        trajectory = self.trajectory
        row: dict[str, Any] = dict.fromkeys(FEATURES)
        row |= {name: getattr(self, name) for name in ("id", "source", "content", "split", "license")}
        row |= dict.fromkeys(("subject", "gender", "skeleton"), "")
        poses = trajectory.T_world_cpf.numpy()
        row |= {
            "fps": frame_rate(trajectory.timestamps),
            "num_frames": len(trajectory),
            "floor_height": trajectory.floor_height,
            "T_world_cpf": np.where((poses[:, :1] < 0) & (np.arange(7) < 4), -poses, poses),
            "hand_observations": None if self.hands is None else self.hands.numpy(),
            "joints": None if self.joints is None else self.joints.numpy(),
        }
        return row


def row_to_trajectory(row: Mapping[str, Any]) -> HeadTrajectory:
    """The head trajectory of any row of the schema, with a body or without; times start at 0."""
    return HeadTrajectory.from_wxyz_xyz(
        np.asarray(row["T_world_cpf"]),
        fps=float(row["fps"]),
        floor_height=float(row["floor_height"]),
        source=str(row["id"]),
    )
