"""The body at one moment: what a stream gives out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import Skeleton
from motion_grpo.geometry.resampling import Between
from motion_grpo.motion import FPS, Motion


@dataclass(frozen=True, eq=False)
class BodyPose:
    """The body at one moment, in the z-up world of the head's poses; joints as in SMPL-H, 0 to 21."""

    timestamp: float
    """Seconds, on the clock of the head's poses."""
    local_rotmats: Float[Tensor, "22 3 3"]
    """R_world_pelvis, then the rotation of each joint relative to its parent."""
    world_rotmats: Float[Tensor, "22 3 3"]
    """R_world_joint."""
    joints: Float[Tensor, "22 3"]
    """In the world, meters."""
    betas: Float[Tensor, "16"]
    """Shape; changes in the first seconds of a stream and then no more."""
    contacts: Float[Tensor, "21"]
    """Probability, in [0, 1], that a joint rests on the ground."""


def motion_of(poses: Sequence[BodyPose], skeleton: Skeleton | None = None, floor_height: float = 0.0) -> Motion:
    """A stream's poses as one motion at 30 fps, of the shape that the stream ended with.

    Args:
        poses: by time; what was left out between two is interpolated.
        skeleton: body of the betas; the default one when None.
        floor_height: z of the floor, meters.

    Raises:
        ValueError: no poses.
    """
    if not poses:
        raise ValueError("There are no poses yet, so there is no motion; push head poses for at least a second.")
    times = torch.tensor([pose.timestamp for pose in poses], dtype=torch.float64)
    rotmats = torch.stack([pose.local_rotmats for pose in poses])
    positions = torch.stack([pose.joints[0] for pose in poses])
    contacts = torch.stack([pose.contacts for pose in poses])
    if len(poses) > 1:
        even = times[0] + torch.arange(round(float(times[-1] - times[0]) * FPS) + 1, dtype=torch.float64) / FPS
        between = Between.of(times, even)
        rotmats, positions, contacts = between.rotations(rotmats), between.points(positions), between.points(contacts)
        times = even
    return Motion(
        root_rotmats=rotmats[:, 0],
        root_positions=positions,
        body_rotmats=rotmats[:, 1:],
        betas=poses[-1].betas,
        contacts=contacts.clamp(0, 1),
        timestamps=times - times[0],
        floor_height=floor_height,
        skeleton=skeleton,
    )
