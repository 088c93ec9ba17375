"""Whether somebody may have moved his head along a trajectory."""

import warnings

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from motion_grpo.trajectory.head_trajectory import HeadTrajectory

# Differences over this long, seconds, show how the head travels and not how it trembles.
_SPAN = 0.1
_MAX_SPEED = 10.0
# Faster than any vehicle that somebody walks about in: meters taken for another unit.
_NO_SPEED = 50.0
# Of rising and falling, in the median: 0.1 in a median walk, 0.6 in a run.
_MAX_VERTICAL_SPEED = 1.2
# From the origin, up or down: head sets and SLAM count from the floor or from where the recording begins.
_MAX_HEIGHT = 50.0
_WALKING, _WALK_SECONDS = 0.5, 2.0
# From one pose to the next: farther than tracking trembles, and faster than a head is.
_JUMP = 0.5
# Mean cosine between where the head faces and where it goes.
_BACKWARDS = -0.6


def warn_if_implausible(trajectory: HeadTrajectory) -> None:
    """Warns of a head that moves or bobs faster than heads do, that is far up, that jumps, or that walks backwards.

    Raises:
        ValueError: positions in another unit than meters, beyond doubt.
    """
    source = trajectory.source
    speed = median_speed(trajectory.timestamps, trajectory.p_world_cpf.double())
    if speed > _NO_SPEED:
        raise ValueError(
            f"The head of {source} moves at {speed:.3g} m/s: its positions are not in meters, or its times not in "
            "seconds. Name the unit in the columns (x_mm, y_mm, z_mm; timestamp_ms), or convert them."
        )
    if speed > _MAX_SPEED:
        warnings.warn(
            f"The head of {source} moves at {speed:.3g} m/s: check the units of positions (meters) and times.",
            stacklevel=3,
        )
        return
    velocity, start = _velocities(trajectory.timestamps, trajectory.p_world_cpf.double())
    vertical, height = float(velocity[:, 2].abs().median()), float(trajectory.p_world_cpf[:, 2].median())
    if vertical > _MAX_VERTICAL_SPEED or abs(height) > _MAX_HEIGHT:
        told = f"is {height:.3g} m up" if abs(height) > _MAX_HEIGHT else f"rises and falls at {vertical:.2g} m/s"
        warnings.warn(
            f"The head of {source} {told} in the median: check the unit of its positions (meters), of each axis.",
            stacklevel=3,
        )
    _warn_of_jumps(trajectory)
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
