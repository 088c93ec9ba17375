"""The pose of the wearer's head over time, which everything else is conditioned on."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from motion_grpo.geometry.resampling import Between
from motion_grpo.geometry.rotations import matrix_to_wxyz
from motion_grpo.timing import median_rate
from motion_grpo.trajectory.checks import (
    ArrayLike,
    Origin,
    as_float64,
    as_points,
    check_finite,
    check_timestamps,
    read_as_xyzw,
    rotations_from_matrices,
    split_poses,
)
from motion_grpo.trajectory.conventions import CONVENTIONS, Convention, named_convention
from motion_grpo.trajectory.floor import floor_from_head, floor_from_points
from motion_grpo.trajectory.upright import check_upright

MAX_GAP = 0.5
"""Seconds without a pose over which nothing is interpolated."""
_PLAUSIBLE_HEAD_HEIGHT = (0.2, 2.5)


@dataclass(frozen=True, eq=False)
class HeadTrajectory:
    """One recording of the central pupil frame (CPF: x left, y up, z forward) in a gravity-aligned world (z up).

    Build it with ``from_matrices``, ``from_wxyz_xyz``, ``from_convention`` or ``load_trajectory``, which check their
    input; the plain constructor trusts it.
    """

    R_world_cpf: Float32[Tensor, "frames 3 3"]
    p_world_cpf: Float32[Tensor, "frames 3"]
    """Meters, in the recording's own world: the floor is not subtracted."""
    timestamps: Float64[Tensor, " frames"]
    """Seconds, strictly increasing, on the recording's clock."""
    floor_height: float
    """z of the floor in this world, meters."""
    floor_source: str
    """``given``, ``point cloud``, ``ADT convention`` or ``estimated from the head``."""
    source: str = "array"
    """File, or what the array is called: for messages."""
    source_frame: str = "cpf"
    """The frame that the poses were recorded in, and how it was taken to the CPF."""
    T_device_cpf: Float64[Tensor, "4 4"] | None = None
    """The CPF in the device whose poses were recorded, meters; None where they were the CPF's own."""

    @classmethod
    def from_matrices(cls, poses: ArrayLike, **options: Any) -> "HeadTrajectory":
        """From T_world_cpf matrices (frames, 4, 4), meters, in a z-up world; options as in ``from_convention``."""
        return cls.from_convention(poses, "cpf", **options)

    @classmethod
    def from_wxyz_xyz(cls, poses: ArrayLike, **options: Any) -> "HeadTrajectory":
        """From T_world_cpf (frames, 7), quaternion w x y z then position in meters, in a z-up world.

        Quaternions that make sense only as x y z w are refused. Options as in ``from_convention``.
        """
        return cls.from_convention(poses, "cpf", **options)

    @classmethod
    def from_convention(
        cls,
        poses: ArrayLike,
        convention: str | Convention,
        *,
        fps: float | int | None = None,
        timestamps: ArrayLike | None = None,
        floor_height: float | int | None = None,
        points: ArrayLike | None = None,
        source: str | Origin = "array",
    ) -> "HeadTrajectory":
        """From the head poses of OpenXR, Unity, ARKit, Unreal, ROS or any other set of axes.

        Args:
            poses: (frames, 4, 4), or (frames, 7) with w first (many engines store x y z w), as the system gives them,
                in its own axes and units. The head frame's origin is taken to be between the eyes.
            convention: a name in ``CONVENTIONS`` or a ``Convention``.
            fps: as in ``from_rotations``.
            timestamps: as in ``from_rotations``.
            floor_height: height of the floor along the system's up axis, meters (0.0 for OpenXR's STAGE, LOCAL_FLOOR).
            points: (points, 3), a point cloud in the system's own axes and units, to look for the floor in.
            source: what messages call the poses; an ``Origin`` says too how they came in.

        Raises:
            ValueError: an unknown convention, quaternions that make sense only as x y z w; and as ``from_rotations``.
        """
        origin = source if isinstance(source, Origin) else Origin(source)
        convention, poses = named_convention(convention), as_float64(poses, "poses")
        R_world_head, p_world_head = split_poses(poses, origin)
        reordered = read_as_xyzw(poses[:, :4]) if poses.ndim == 2 else None
        check_upright(
            R_world_head,
            p_world_head,
            convention,
            origin,
            axes_given=True,
            R_reordered=reordered,
            order="x y z w",
        )
        R, p = convention.convert(R_world_head, p_world_head)
        if points is not None:
            points = convention.convert_points(as_points(points))
        options = {"fps": fps, "timestamps": timestamps, "floor_height": floor_height, "points": points}
        return cls.from_rotations(R, p, origin=origin, source_frame=str(convention), axes_checked=True, **options)

    @classmethod
    def from_rotations(
        cls,
        R_world_cpf: ArrayLike,
        p_world_cpf: ArrayLike,
        *,
        fps: float | int | None = None,
        timestamps: ArrayLike | None = None,
        floor_height: float | int | None = None,
        floor_source: str = "given",
        points: ArrayLike | None = None,
        origin: Origin = Origin("array"),  # noqa: B008  (frozen)
        source_frame: str = "cpf",
        axes_checked: bool = False,
        T_device_cpf: Float64[Tensor, "4 4"] | None = None,
    ) -> "HeadTrajectory":
        """From rotation matrices (frames, 3, 3) and positions (frames, 3) in meters; the constructor behind all others.

        Args:
            fps: poses per second; or
            timestamps: (frames,) seconds. One of the two is needed.
            floor_height: z of the floor, meters. Without it the floor is looked for in ``points``, and without them
                (or when they show none) estimated from the head; ``floor_source`` of the result tells which.
            points: (points, 3), a point cloud in the same world.
            axes_checked: whether a head that is not upright has been asked about where its own axes were known.
            T_device_cpf: where the CPF is in the device, if these poses were found by it (they are the CPF's already).

        Raises:
            ValueError: wrong shapes, NaN, no rotations, a left-handed frame, fewer than two poses, times that do not
                increase. Implausible input that could still be meant (a head lying on its side, a head far from the
                floor) gives a warning instead.
        """
        R, p = as_float64(R_world_cpf, "rotations"), as_float64(p_world_cpf, "positions")
        if R.ndim != 3 or R.shape[1:] != (3, 3) or p.shape != (len(R), 3):
            raise ValueError(
                f"{origin.source} has rotations of shape {tuple(R.shape)} and positions of shape {tuple(p.shape)}; "
                "(frames, 3, 3) and (frames, 3) are needed."
            )
        times = _times(len(R), fps, timestamps, origin)
        check_timestamps(times, origin)
        check_finite(p, "position", origin)
        R = rotations_from_matrices(R, origin)
        if not axes_checked:
            check_upright(R, p, CONVENTIONS["cpf"], origin, axes_given=True)
        if floor_height is not None:
            if not np.isfinite(floor_height):
                raise ValueError(f"floor_height is {floor_height}; a height in meters is needed.")
        else:
            floor_height, floor_source = _find_floor(p.numpy(), points, origin)
        if floor_source != "estimated from the head":
            _warn_if_far_from_floor(p, float(floor_height), floor_source, origin)
        return cls(
            R.float(), p.float(), times, float(floor_height), floor_source, origin.source, source_frame, T_device_cpf
        )

    def __repr__(self) -> str:
        return (
            f"HeadTrajectory({self.source}: {len(self)} poses, {self.duration:.2f} s at {self.fps:.4g} fps, floor at "
            f"z = {self.floor_height:.3f} m ({self.floor_source}), {self.source_frame})"
        )

    def __len__(self) -> int:
        return len(self.timestamps)

    def __getitem__(self, frames: slice) -> "HeadTrajectory":
        """A run of consecutive frames. Use ``resample`` to thin a trajectory: times decide, not counts."""
        if not isinstance(frames, slice) or frames.step not in (None, 1):
            raise ValueError(
                "A trajectory is sliced by consecutive frames, trajectory[10:200]; to thin it, resample it."
            )
        R, p, t = self.R_world_cpf[frames], self.p_world_cpf[frames], self.timestamps[frames]
        if len(t) < 2:
            raise ValueError(
                f"{frames} leaves {len(t)} of the {len(self)} poses of {self.source}; at least 2 are needed."
            )
        return replace(self, R_world_cpf=R, p_world_cpf=p, timestamps=t)

    @property
    def T_world_cpf(self) -> Float32[Tensor, "frames 7"]:
        """Poses as quaternion w x y z and position in meters."""
        return torch.cat([matrix_to_wxyz(self.R_world_cpf), self.p_world_cpf], dim=1)

    @property
    def fps(self) -> float:
        """Median rate, poses per second."""
        return median_rate(self.timestamps)

    @property
    def duration(self) -> float:
        """Seconds from the first pose to the last."""
        return (self.timestamps[-1] - self.timestamps[0]).item()

    def resample(self, fps: float | int = 30.0) -> "HeadTrajectory":
        """The trajectory at a constant rate from its first time on, interpolated by timestamp; see ``at``."""
        if not fps > 0:
            raise ValueError(f"fps is {fps}; a positive rate is needed.")
        # A last frame that rounding pushed a microsecond past the end still counts, and keeps its even time.
        count = int(np.floor(self.duration * fps + 1e-6 * fps)) + 1
        times = self.timestamps[0] + torch.arange(count, dtype=torch.float64) / fps
        return replace(self.at(times.clamp(max=self.timestamps[-1].item())), timestamps=times)

    def at(self, timestamps: ArrayLike) -> "HeadTrajectory":
        """The trajectory at the given times (seconds, within the recording): slerp for rotations, linear for positions.

        Raises:
            ValueError: times outside the recording, or a gap of more than 0.5 s in it.
        """
        times = as_float64(timestamps, "timestamps")
        self.refuse_gaps()
        if times.ndim != 1 or len(times) == 0 or times.min() < self.timestamps[0] or times.max() > self.timestamps[-1]:
            raise ValueError(
                f"{self.source} spans {self.timestamps[0]:.3f} to {self.timestamps[-1]:.3f} s; one or more times "
                "within it are needed."
            )
        between = Between.of(self.timestamps, times)
        R_at = between.rotations(self.R_world_cpf.double())
        p_at = between.points(self.p_world_cpf.double())
        return replace(self, R_world_cpf=R_at.float(), p_world_cpf=p_at.float(), timestamps=times)

    def above_floor(self) -> "HeadTrajectory":
        """The same motion with the floor at z = 0."""
        down = torch.tensor([0.0, 0.0, self.floor_height])
        return replace(self, p_world_cpf=self.p_world_cpf - down, floor_height=0.0)

    def refuse_gaps(self, max_gap: float | int = MAX_GAP, remedy: str = "split_at_gaps()") -> None:
        """Raises ValueError, naming the place, if more than ``max_gap`` seconds pass between two poses.

        Args:
            remedy: the call that gives the pieces instead.
        """
        steps = self.timestamps.diff()
        gaps = (steps > max_gap).nonzero().flatten().tolist()
        if not gaps:
            return
        if 1.0 / self.fps > max_gap:
            raise ValueError(
                f"The poses of {self.source} are {steps.median():.6g} s apart: too sparse to interpolate. Timestamps "
                "must be in seconds (a CSV may name its column timestamp_ms, timestamp_us or timestamp_ns)."
            )
        worst = max(gaps, key=lambda index: steps[index].item())
        raise ValueError(
            f"{self.source} has {len(gaps)} gap(s) of more than {max_gap} s without a pose; the longest lasts "
            f"{steps[worst]:.2f} s, after frame {worst} at {self.timestamps[worst]:.3f} s. Take the pieces between "
            f"them with {remedy}."
        )

    def split_at_gaps(self, max_gap: float | int = MAX_GAP) -> "list[HeadTrajectory]":
        """The pieces between gaps of more than ``max_gap`` seconds; pieces of a single pose are dropped."""
        cuts = ((self.timestamps.diff() > max_gap).nonzero().flatten() + 1).tolist()
        spans = zip([0, *cuts], [*cuts, len(self)], strict=True)
        return [self[start:end] for start, end in spans if end - start >= 2]


def _times(
    frames: int, fps: float | int | None, timestamps: ArrayLike | None, origin: Origin
) -> Float64[Tensor, " frames"]:
    if fps is not None and timestamps is None:
        if not fps > 0:
            raise ValueError(f"fps is {fps}; a positive rate is needed.")
        return torch.arange(frames, dtype=torch.float64) / fps
    if timestamps is not None and fps is None:
        times = as_float64(timestamps, "timestamps")
        if times.shape != (frames,):
            raise ValueError(f"{origin.source} has {frames} poses and timestamps of shape {tuple(times.shape)}.")
        return times
    raise ValueError(f"{origin.source} needs either fps or timestamps, to know when its {frames} poses were taken.")


def _find_floor(head: Float64[np.ndarray, "frames 3"], points: ArrayLike | None, origin: Origin) -> tuple[float, str]:
    if points is not None:
        height = floor_from_points(as_points(points).numpy(), head)
        if height is not None:
            return height, "point cloud"
    height = floor_from_head(head[:, 2])
    shown = "The point cloud shows no floor within 3 m of the head's path. " if points is not None else ""
    warnings.warn(
        f"{shown}The floor of {origin.source} is estimated from the head alone, at {height:.3f} m, good to about 0.1 m "
        f"if the wearer stands at times. Give it where you know it: {origin.giving('floor_height=...')}.",
        stacklevel=4,
    )
    return height, "estimated from the head"


def _warn_if_far_from_floor(
    p_world_cpf: Float64[Tensor, "frames 3"], floor_height: float, floor_source: str, origin: Origin
) -> None:
    height = float(np.median(p_world_cpf[:, 2].numpy())) - floor_height
    low, high = _PLAUSIBLE_HEAD_HEIGHT
    if not low <= height <= high:
        warnings.warn(
            f"The head of {origin.source} is {height:.2f} m above the floor ({floor_source}, at {floor_height:.2f} m), "
            f"outside {low} to {high} m. Check the world's up axis (z), the units (meters) and the floor.",
            stacklevel=4,
        )
