"""Warnings about head trajectories that no wearer moves along."""

import warnings

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from motion_grpo.trajectory.head_trajectory import HeadTrajectory

# Differences over this long, seconds, show how the head travels and not how it trembles.
_SPAN = 0.1
_MAX_SPEED = 10.0
_WALKING, _WALK_SECONDS = 0.5, 2.0
# From one pose to the next: farther than tracking trembles, and faster than a head is.
_JUMP = 0.5
# Mean cosine between where the head faces and where it goes.
_BACKWARDS = -0.6


def warn_if_implausible(trajectory: HeadTrajectory) -> None:
    """Warns of a head that moves at more than 10 m/s on average, that jumps, or that walks backwards all the time."""
    source = trajectory.source
    speed = median_speed(trajectory.timestamps, trajectory.p_world_cpf.double())
    if speed > _MAX_SPEED:
        warnings.warn(
            f"The head of {source} moves at {speed:.3g} m/s: check the units of positions (meters) and times.",
            stacklevel=3,
        )
        return
    _warn_of_jumps(trajectory)
    velocity, start = _velocities(trajectory.timestamps, trajectory.p_world_cpf.double())
    velocity, face = velocity[:, :2], trajectory.R_world_cpf.double()[start, :2, 2]
    walking = velocity.norm(dim=1) > _WALKING
    if float(walking.sum()) / len(walking) * trajectory.duration < _WALK_SECONDS:
        return
    cosine = torch.nn.functional.cosine_similarity(velocity[walking], face[walking]).mean()
    if cosine < _BACKWARDS:
        warnings.warn(
            f"The head of {source} faces away from where it goes whenever it walks: its forward axis may be taken for "
            "its backward one (OpenXR looks along -z, Unity along +z). Check convention=...",
            stacklevel=3,
        )


def _warn_of_jumps(trajectory: HeadTrajectory) -> None:
    """Warns of more than half a meter from one pose to the next at more than 10 m/s: tracking was lost there."""
    steps, seconds = trajectory.p_world_cpf.double().diff(dim=0).norm(dim=1), trajectory.timestamps.diff()
    jumps = ((steps > _JUMP) & (steps > _MAX_SPEED * seconds)).nonzero().flatten().tolist()
    if jumps:
        worst = max(jumps, key=lambda index: steps[index].item())
        warnings.warn(
            f"The head of {trajectory.source} jumps {len(jumps)} time(s), by {steps[worst]:.3g} m after frame {worst} "
            f"at {trajectory.timestamps[worst]:.3f} s: remove the frames where tracking was lost or began anew.",
            stacklevel=4,
        )


def median_speed(timestamps: Float64[Tensor, " frames"], p: Float64[Tensor, "frames 3"]) -> float:
    """Meters per second from pose to pose; 0 for fewer than two."""
    return float((p.diff(dim=0).norm(dim=1) / timestamps.diff()).median()) if len(p) > 1 else 0.0


def _velocities(
    timestamps: Float64[Tensor, " frames"], p: Float64[Tensor, "frames 3"]
) -> tuple[Float64[Tensor, "steps 3"], Int64[Tensor, " steps"]]:
    """Meters per second over a tenth of a second, and the frames in which that begins."""
    step = float(timestamps.diff().median())
    stride = min(max(1, round(_SPAN / step)), len(p) - 1) if step > 0 else 1
    start = torch.arange(0, len(p) - stride, max(1, stride // 3))
    elapsed = timestamps[start + stride] - timestamps[start]
    return (p[start + stride] - p[start]) / elapsed[:, None], start
