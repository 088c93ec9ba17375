"""Where the wrists were seen: what a headset or controllers know of the arms, beside the head's trajectory."""

import warnings
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from motion_grpo.geometry.rotations import interpolate_rotations
from motion_grpo.timing import nearest
from motion_grpo.trajectory.checks import (
    ArrayLike,
    Origin,
    as_float64,
    check_extrinsic,
    first,
    pose_matrix,
    split_poses,
)
from motion_grpo.trajectory.conventions import CONVENTIONS, SIDES
from motion_grpo.trajectory.head_trajectory import HeadTrajectory

MATCH_WITHIN = 1 / 30
"""Seconds between a frame and the observation nearest to it, over which the wrists count as not seen."""
BRIDGED = 0.15
"""Seconds between two observations over which all frames count as seen: MPS tracks hands at 10 Hz. Interpolated over
0.1 s of recorded motion a wrist is right to 5 mm in the median and to 14 in nine of ten, over 0.2 s to 14 and 40."""
_REACH = 1.5
"""Meters from the eyes that no wrist is away."""
_SWAPPED = -0.05
"""Meters that the left wrist is on average to the left of the eyes, and the right one to the right: 0.25 in recorded
motion (1205 clips, dance and exercise among them), never below 0. Below this the sides are taken for swapped."""
_ENOUGH_FRAMES = 15
"""Wrists that have to be seen before anything is said of their sides: in a single second arms do cross."""
# Grip pose of OpenXR (specification, 6.3.1 "Standard pose identifiers") in SMPL-H's wrist frame, left then right. Its
# +X goes out of the left palm and into the right one (palms face -y in the wrist frame), -Z from the little finger to
# the thumb (+z), +Y back towards the elbow. Its origin, the middle of what a fist holds, is taken to be 8.5 cm from the
# wrist and 3.5 cm off the plane of the bones, on the palm's side.
_R_WRIST_GRIP = torch.tensor([[[0, -1, 0], [-1, 0, 0], [0, 0, -1]], [[0, 1, 0], [1, 0, 0], [0, 0, -1]]]).double()
_P_WRIST_GRIP = torch.tensor([[0.085, -0.035, -0.005], [-0.085, -0.035, -0.005]]).double()


@dataclass(frozen=True, eq=False)
class HandDetails:
    """What a detector of hands in images knows beside the wrists: of HaMeR's hands, left then right.

    Where a hand was seen is what ``visible`` of its :class:`HandObservations` says.
    """

    finger_rotmats: Float32[Tensor, "observations 2 15 3 3"]
    """Relative to the parent joint, in SMPL-H's order: index, middle, little, ring finger, thumb."""
    keypoints: Float32[Tensor, "observations 2 21 3"]
    """In the camera (x right, y down, z forward), meters, in OpenPose's order: wrist, then thumb, index, middle, ring
    and little finger, four each with the tip."""
    T_cpf_camera: Float32[Tensor, "4 4"]
    """Pose of the camera in the central pupil frame."""
    focal_length: float
    """Pixels, of the pinhole image in which the hands were found: their distance is proportional to it."""


@dataclass(frozen=True, eq=False)
class HandObservations:
    """Wrist poses in the world of a head trajectory (z up, meters), left then right, and when each was seen.

    The wrist frame is that of SMPL-H's wrist joint: in the T-pose, palms down, it has the body's axes, x to the left, y
    up, z forward, so that +x points along the left hand, -x along the right one, and -y out of either palm.

    Build it with ``from_world``, ``from_cpf``, ``from_device``, ``from_openxr`` or ``load_hands``, which check their
    input; the plain constructor trusts it.
    """

    R_world_wrist: Float32[Tensor, "observations 2 3 3"]
    """The identity where a wrist was not seen."""
    p_world_wrist: Float32[Tensor, "observations 2 3"]
    """Meters, in the recording's own world: the floor is not subtracted. Zero where a wrist was not seen."""
    visible: Bool[Tensor, "observations 2"]
    confidence: Float32[Tensor, "observations 2"]
    """In [0, 1], as the tracker says; 0 where not visible."""
    timestamps: Float64[Tensor, " observations"] | None = None
    """Seconds, strictly increasing, on the clock of the head trajectory; None is one observation a pose of it."""
    source: str = "array"
    """File, or what the array is called: for messages."""
    details: HandDetails | None = None
    """Fingers and key points, where they are known too."""

    @classmethod
    def from_world(
        cls,
        poses: ArrayLike,
        *,
        visible: ArrayLike | None = None,
        timestamps: ArrayLike | None = None,
        confidence: ArrayLike | None = None,
        source: str = "array",
    ) -> "HandObservations":
        """From wrist poses in the world of the head trajectory.

        Args:
            poses: T_world_wrist, (frames, 2, 7) wxyz + xyz or (frames, 2, 4, 4), meters, left then right.
            visible: (frames, 2) booleans: in which frames each wrist was seen. Needed. What the pose of another wrist
                holds plays no part.
            timestamps: (frames,) seconds, on the clock of the head trajectory; one observation a pose of it when None.
            confidence: (frames, 2) in [0, 1]; 1 where visible when None.

        Raises:
            ValueError: no flags; wrong shapes; a wrist that is flagged visible and NaN, or turned by what is no
                rotation; times that do not increase.
        """
        return cls._build(*_read(poses, visible, source), timestamps, confidence, source)

    @classmethod
    def from_cpf(
        cls,
        poses: ArrayLike,
        trajectory: HeadTrajectory,
        *,
        visible: ArrayLike | None = None,
        timestamps: ArrayLike | None = None,
        confidence: ArrayLike | None = None,
        source: str = "array",
    ) -> "HandObservations":
        """From wrist poses relative to the central pupil frame (x left, y up, z forward), T_cpf_wrist.

        Args:
            poses: as in ``from_world``, but relative to the head.
            visible: as in ``from_world``. Wrists seen before or after the recording count as not visible.
            timestamps: as in ``from_world``.
            confidence: as in ``from_world``.
            trajectory: the head that saw them.

        Raises:
            ValueError: as ``from_world`` and :meth:`timed_by`, and a recording with gaps.
        """
        R, p, seen = _read(poses, visible, source)
        return _in_world(cls._build(R, p, seen, timestamps, confidence, source), trajectory)

    @classmethod
    def from_device(
        cls,
        poses: ArrayLike,
        trajectory: HeadTrajectory,
        *,
        T_device_cpf: ArrayLike | None = None,
        visible: ArrayLike | None = None,
        timestamps: ArrayLike | None = None,
        confidence: ArrayLike | None = None,
        source: str = "array",
    ) -> "HandObservations":
        """From wrist poses relative to the device, T_device_wrist.

        Args:
            poses: as in ``from_cpf``, but relative to the device.
            visible: as in ``from_cpf``.
            timestamps: as in ``from_cpf``.
            confidence: as in ``from_cpf``.
            trajectory: the head that saw them.
            T_device_cpf: (4, 4) or (7,) wxyz + xyz, meters; the one by which ``trajectory`` was read when None.

        Raises:
            ValueError: as ``from_cpf``, and a trajectory that was not read from a device's poses.
        """
        T = device_extrinsic(trajectory, T_device_cpf, source)
        R, p, seen = _read(poses, visible, source)
        R, p = T[:3, :3].mT @ R, (p - T[:3, 3]) @ T[:3, :3]
        return _in_world(cls._build(R, p, seen, timestamps, confidence, source), trajectory)

    @classmethod
    def from_openxr(
        cls,
        grip_poses: ArrayLike,
        *,
        visible: ArrayLike | None = None,
        timestamps: ArrayLike | None = None,
        confidence: ArrayLike | None = None,
        source: str = "array",
    ) -> "HandObservations":
        """From the grip poses of OpenXR's (or WebXR's) hand controllers, in the space of the head poses.

        The head poses are read with ``HeadTrajectory.from_convention(poses, "openxr")``. A wrist is taken to lie at one
        place on the grip for all controllers and hands: good to about 2 cm and, about the palm's normal, 20 degrees.

        Args:
            grip_poses: (frames, 2, 7) with w first (OpenXR stores x y z w) or (frames, 2, 4, 4), meters, as OpenXR
                gives them: y up.
            visible: as in ``from_world``: where ``XrSpaceLocation`` says valid, or tracked.
            timestamps: as in ``from_world``.
            confidence: as in ``from_world``.

        Raises:
            ValueError: as ``from_world``.
        """
        R, p, seen = _read(grip_poses, visible, source)
        A_world = CONVENTIONS["openxr"].A_world
        R_world_wrist = A_world @ R @ _R_WRIST_GRIP.mT
        p_world_wrist = p @ A_world.mT - (R_world_wrist @ _P_WRIST_GRIP[..., None]).squeeze(-1)
        return cls._build(R_world_wrist, p_world_wrist, seen, timestamps, confidence, source)

    @classmethod
    def _build(
        cls,
        R: Float64[Tensor, "frames 2 3 3"],
        p: Float64[Tensor, "frames 2 3"],
        visible: Bool[Tensor, "frames 2"],
        timestamps: ArrayLike | None,
        confidence: ArrayLike | None,
        source: str,
    ) -> "HandObservations":
        """From checked poses; times and confidence are checked here."""
        trust = visible.float() if confidence is None else as_float64(confidence, "confidence").float()
        if trust.shape != visible.shape or not bool(((trust >= 0) & (trust <= 1))[visible].all()):
            raise ValueError(f"confidence of {source} must hold ({len(R)}, 2) numbers from 0 to 1.")
        times = None if timestamps is None else _checked_times(timestamps, len(R), source)
        return _blanked(cls(R.float(), p.float(), visible, trust, times, source))

    def __len__(self) -> int:
        return len(self.visible)

    def timed_by(self, trajectory: HeadTrajectory) -> "HandObservations":
        """The same, with the times of the trajectory's poses where they have none of their own.

        Raises:
            ValueError: not one observation a pose, or times that lie before or after the whole recording.
        """
        if self.timestamps is None:
            if len(self) != len(trajectory):
                raise ValueError(
                    f"The wrists of {self.source} have {len(self)} frames and the head of {trajectory.source} has "
                    f"{len(trajectory)}; give one for each pose of the head, or their timestamps."
                )
            return replace(self, timestamps=trajectory.timestamps)
        start, stop = trajectory.timestamps[0].item(), trajectory.timestamps[-1].item()
        if self.timestamps[0] > stop + MATCH_WITHIN or self.timestamps[-1] < start - MATCH_WITHIN:
            raise ValueError(
                f"The wrists of {self.source} were seen from {self.timestamps[0]:.3f} to {self.timestamps[-1]:.3f} s, "
                f"outside of the recording {trajectory.source}, {start:.3f} to {stop:.3f} s; both must be of one "
                "recording and have one clock, in seconds."
            )
        return self

    def at(self, timestamps: ArrayLike) -> "HandObservations":
        """What was seen at the given times (seconds): one observation each.

        The nearest observation decides whether a wrist is visible, and one further than 1/30 s away counts as none,
        but between two in a row that are both visible and at most 0.15 s apart. Between two that are both visible the
        pose is interpolated (slerp and linear).

        Raises:
            ValueError: observations without times (``timed_by``).
        """
        if self.timestamps is None:
            raise ValueError(f"The wrists of {self.source} have no times; use timed_by(trajectory) first.")
        wanted, times = as_float64(timestamps, "timestamps"), self.timestamps
        rows = nearest(times, wanted)
        near = (times[rows] - wanted).abs() <= MATCH_WITHIN + 1e-6
        others = torch.where(wanted >= times[rows], rows + 1, rows - 1).clamp(0, len(self) - 1)
        between = self.visible[rows] & self.visible[others] & (rows != others)[:, None]
        bridged = between & ((times[others] - times[rows]).abs() <= BRIDGED)[:, None]
        weight = torch.where(between, ((wanted - times[rows]) / (times[others] - times[rows]))[:, None], 0.0)
        R, p = self.R_world_wrist.double(), self.p_world_wrist.double()
        details = self.details
        if details is not None:
            fingers, points = details.finger_rotmats, details.keypoints
            turn = weight[..., None].expand(-1, -1, fingers.shape[2]).float()
            details = replace(
                details,
                finger_rotmats=interpolate_rotations(fingers[rows], fingers[others], turn),
                keypoints=torch.lerp(points[rows], points[others], weight[..., None, None].float()),
            )
        seen = replace(
            self,
            details=details,
            R_world_wrist=interpolate_rotations(R[rows], R[others], weight).float(),
            p_world_wrist=torch.lerp(p[rows], p[others], weight[..., None]).float(),
            visible=(self.visible[rows] & near[:, None]) | bridged,
            confidence=self.confidence[rows],
            timestamps=wanted,
        )
        return _blanked(seen)

    def along(self, trajectory: HeadTrajectory) -> "HandObservations":
        """:meth:`at` the times of the trajectory's poses, if the wrists can be those of this head.

        Raises:
            ValueError: as :meth:`timed_by`, and wrists out of reach of the eyes. Sides that look swapped give a
                warning.
        """
        seen = self.timed_by(trajectory).at(trajectory.timestamps)
        if not bool(seen.visible.any()):
            return seen
        to_wrist = seen.p_world_wrist - trajectory.p_world_cpf[:, None]
        distance = to_wrist.norm(dim=-1)[seen.visible].median().item()
        if distance > _REACH:
            raise ValueError(
                f"The wrists of {self.source} are {distance:.3g} m from the eyes of {trajectory.source}; give them in "
                "meters, in the world of the head trajectory."
            )
        leftward = (to_wrist * trajectory.R_world_cpf[:, None, :, 0]).sum(-1)
        outward = (leftward * torch.tensor([1.0, -1.0]))[seen.visible]
        if len(outward) >= _ENOUGH_FRAMES and outward.mean() < _SWAPPED:
            warnings.warn(
                f"The left and right wrist of {self.source} look swapped: on average they are {-outward.mean():.2f} m "
                "across the middle of the body, and swapped as far on their own side. Give the left one first.",
                stacklevel=2,
            )
        return seen


def _in_world(relative: HandObservations, trajectory: HeadTrajectory) -> HandObservations:
    """What was observed relative to the CPF, in the world."""
    seen = relative.timed_by(trajectory)
    head, visible = trajectory, seen.visible
    times = relative.timestamps
    if times is not None:
        start, stop = trajectory.timestamps[0], trajectory.timestamps[-1]
        head = trajectory.at(times.clamp(start, stop))
        visible = visible & ((times >= start) & (times <= stop))[:, None]
    R_world_cpf = head.R_world_cpf[:, None]
    p_world_wrist = head.p_world_cpf[:, None] + (R_world_cpf @ seen.p_world_wrist[..., None]).squeeze(-1)
    R_world_wrist = R_world_cpf @ seen.R_world_wrist
    return _blanked(replace(seen, R_world_wrist=R_world_wrist, p_world_wrist=p_world_wrist, visible=visible))


def _blanked(hands: HandObservations) -> HandObservations:
    """The same, with nothing left of wrists that are not visible."""
    seen = hands.visible[..., None]
    return replace(
        hands,
        R_world_wrist=torch.where(seen[..., None], hands.R_world_wrist, torch.eye(3)),
        p_world_wrist=torch.where(seen, hands.p_world_wrist, 0.0),
        confidence=torch.where(hands.visible, hands.confidence, 0.0),
    )


def _read(
    poses: ArrayLike, visible: ArrayLike | None, source: str
) -> tuple[Float64[Tensor, "frames 2 3 3"], Float64[Tensor, "frames 2 3"], Bool[Tensor, "frames 2"]]:
    """Rotations, positions and flags of the wrists; the identity and zero where a wrist is not visible."""
    poses = as_float64(poses, "wrist poses")
    if poses.ndim not in (3, 4) or tuple(poses.shape[1:]) not in ((2, 7), (2, 4, 4)):
        raise ValueError(
            "Wrist poses must have the shape (frames, 2, 7), quaternion w x y z then position x y z, or "
            f"(frames, 2, 4, 4), left then right; {source} has the shape {tuple(poses.shape)}."
        )
    if visible is None:
        raise without_flag(source, "give visible=, (frames, 2) booleans that say when the left and right were seen")
    flags = as_float64(visible, "visible")
    if flags.shape != poses.shape[:2]:
        raise ValueError(
            f"visible of {source} has the shape {tuple(flags.shape)}; {len(poses)} frames of two wrists need "
            f"({len(poses)}, 2) booleans."
        )
    if not bool(((flags == 0) | (flags == 1)).all()):
        raise ValueError(
            f"visible of {source} holds more than 0 and 1; say of each frame and wrist whether it was seen."
        )
    seen = flags == 1
    nobody = torch.tensor([1.0, 0, 0, 0, 0, 0, 0]) if poses.ndim == 3 else torch.eye(4)
    sides = []
    for side, name in enumerate(SIDES):
        of_side, seen_of_side = poses[:, side], seen[:, side]
        bad = first(seen_of_side & ~of_side.flatten(1).isfinite().all(1))
        if bad is not None:
            raise ValueError(
                f"Frame {bad} of {source} has a {name} wrist that is flagged visible and is NaN or infinite; set its "
                "visible flag to False where it was not seen."
            )
        rows = seen_of_side.view(-1, *[1] * (of_side.ndim - 1))
        of_side = torch.where(rows, of_side, nobody.double())
        sides.append(split_poses(of_side, Origin(f"the {name} wrist of {source}")))
    R, p = (torch.stack(parts, dim=1) for parts in zip(*sides, strict=True))
    return R, p, seen


def _checked_times(timestamps: ArrayLike, frames: int, source: str) -> Float64[Tensor, " frames"]:
    times = as_float64(timestamps, "timestamps")
    if times.shape != (frames,):
        raise ValueError(f"{source} has {frames} frames of wrists and timestamps of shape {tuple(times.shape)}.")
    bad = first(~(times.diff() > 0))
    if bad is not None or not bool(times.isfinite().all()):
        raise ValueError(
            f"The times of the wrists of {source} must be finite and increase, in seconds; after frame {bad or 0} they "
            "do not."
        )
    return times


def without_flag(source: str, remedy: str) -> ValueError:
    """The error of wrists that do not say when they were seen."""
    return ValueError(f"The wrists of {source} come without a flag that says when they were seen; {remedy}.")


def device_extrinsic(trajectory: HeadTrajectory, T_device_cpf: ArrayLike | None, source: str) -> Float64[Tensor, "4 4"]:
    """T_device_cpf as given, or else the one by which the trajectory was read.

    Raises:
        ValueError: not a transform, or none given and the trajectory was not read from a device's poses.
    """
    if T_device_cpf is not None:
        return pose_matrix(*check_extrinsic(T_device_cpf))
    if trajectory.T_device_cpf is None:
        raise ValueError(
            f"The wrists of {source} are relative to a device, and {trajectory.source} was not read from a device's "
            "poses: read it with its T_device_cpf, or give T_device_cpf here (the CPF in the device)."
        )
    return trajectory.T_device_cpf
