"""The world of animation programs: y up, floor at y = 0, SMPL's rest pose facing +z."""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from motion_grpo.motion import Motion

Z_TO_Y_UP = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)


class YUpPoses(NamedTuple):
    """The poses of a motion in a y-up world; meters, float64."""

    local_rotmats: Float64[Tensor, "frames 52 3 3"]
    """Relative to the parent joint; the root's is R_world_pelvis."""
    root_positions: Float64[Tensor, "frames 3"]


def to_y_up(motion: Motion) -> YUpPoses:
    """The poses of a motion, turned so that y is up, with the floor at y = 0."""
    motion = motion.above_floor()
    local = motion.local_rotmats.double()
    return YUpPoses(
        torch.cat([Z_TO_Y_UP @ local[:, :1], local[:, 1:]], dim=1), motion.root_positions.double() @ Z_TO_Y_UP.mT
    )
