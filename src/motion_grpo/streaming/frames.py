"""From poses as a tracker sends them, at any moment and now and then wrong, to frames at an even rate."""

import logging
import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from motion_grpo.geometry.rotations import interpolate_rotations
from motion_grpo.motion import FPS
from motion_grpo.trajectory.checks import ArrayLike, Origin, as_float64, split_poses

LOGGER = logging.getLogger("motion_grpo.streaming")
LONGEST_GAP = 1.5
"""Seconds without a pose that are bridged in a straight line; after more the stream starts anew."""
_JUMP, _FASTEST = 0.5, 12.0
"""Meters, and meters a second beside them, over which a head did not move but was put elsewhere: sprinters run 12."""
_EARLY = 1e-3
"""Seconds before a frame at which its pose is taken to be there: clocks are rounded."""
Wrists = tuple[ArrayLike | None, ArrayLike | None]
"""T_world_wrist of the left and right wrist, as (4, 4) or as (7,) wxyz + xyz; None where not seen."""


class Frame(NamedTuple):
    """The head, and what was seen of the wrists, at one of the even times."""

    timestamp: float
    """Seconds, on the clock of the poses."""
    R_world_cpf: Float64[Tensor, "3 3"]
    p_world_cpf: Float64[Tensor, "3"]
    """Meters."""
    R_world_wrist: Float64[Tensor, "2 3 3"]
    p_world_wrist: Float64[Tensor, "2 3"]
    visible: Bool[Tensor, "2"]


class FrameClock:
    """Brings poses to 30 frames a second, whatever the rate and however uneven it is; keeps the last pose alone.

    What cannot be used is left out and told of in the log, at the first time, the tenth, the hundredth and so on: poses
    that are late, repeated, not finite, or turned by what is no rotation. After a gap of more than
    :data:`LONGEST_GAP`, a jump of meters, or a clock that is set back, counting starts anew.
    """

    def __init__(self) -> None:
        self.left_out = 0
        """Poses that were not used."""
        self.restarts = 0
        self._last: Frame | None = None
        self._start, self._next = 0.0, 0

    def forget(self) -> None:
        """The next pose is the first."""
        self._last = None

    def push(self, pose: ArrayLike, timestamp: float, hands: Wrists | None = None) -> tuple[list[Frame], bool]:
        """Takes one pose in.

        Args:
            pose: T_world_cpf, (4, 4) or (7,) wxyz + xyz, meters.
            timestamp: seconds, on any clock.
            hands: wrists at that time.

        Returns:
            Frames that are now complete, oldest first, and whether they are the first ones of a new start.

        Raises:
            ValueError: a pose of another shape.
        """
        now = self._read(pose, timestamp, hands)
        if now is None:
            return [], False
        before = self._last
        if before is not None and (reason := _break_between(before, now)):
            LOGGER.warning("The stream starts anew: %s.", reason)
            self.restarts += 1
            before = None
        elif before is not None and now.timestamp <= before.timestamp:
            self._leave_out(f"the pose of {now.timestamp:.3f} s came after that of {before.timestamp:.3f} s")
            return [], False
        self._last = now
        if before is None:
            self._start, self._next = now.timestamp, 1
            return [now], True
        frames = []
        while (due := self._start + self._next / FPS) <= now.timestamp + _EARLY:
            frames.append(_between(before, now, due))
            self._next += 1
        return frames, False

    def _read(self, pose: ArrayLike, timestamp: float, hands: Wrists | None) -> Frame | None:
        values = as_float64(pose, "pose")
        if values.shape not in ((4, 4), (7,)):
            raise ValueError(f"A pose must be (4, 4) or (7,) w x y z, x y z; got the shape {tuple(values.shape)}.")
        if not math.isfinite(timestamp):
            return self._leave_out(f"a pose came with the timestamp {timestamp}")
        try:
            R, p = split_poses(values[None], Origin("the stream"))
        except ValueError as error:
            return self._leave_out(str(error))
        wrists = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1), torch.zeros(2, 3, dtype=torch.float64)
        visible = torch.zeros(2, dtype=torch.bool)
        for side, wrist in enumerate(hands or ()):
            if wrist is None:
                continue
            try:
                R_wrist, p_wrist = split_poses(as_float64(wrist, "wrist")[None], Origin("the stream's wrists"))
            except ValueError as error:  # the head is worth having without it
                self._leave_out(str(error))
                continue
            wrists[0][side], wrists[1][side], visible[side] = R_wrist[0], p_wrist[0], True
        return Frame(float(timestamp), R[0], p[0], *wrists, visible)

    def _leave_out(self, reason: str) -> None:
        self.left_out += 1
        if math.log10(self.left_out).is_integer():
            LOGGER.warning("Left out, %d by now: %s.", self.left_out, reason.rstrip("."))


def _break_between(before: Frame, now: Frame) -> str | None:
    """Why two successive poses do not belong together."""
    gap = now.timestamp - before.timestamp
    if gap < -LONGEST_GAP:
        return f"the clock was set back by {-gap:.1f} s"
    if gap > LONGEST_GAP:
        return f"no pose came for {gap:.1f} s"
    distance = float((now.p_world_cpf - before.p_world_cpf).norm())
    if gap > 0 and distance > _JUMP + _FASTEST * gap:
        return f"the head jumped {distance:.1f} m in {gap:.3f} s"
    return None


def _between(before: Frame, now: Frame, timestamp: float) -> Frame:
    """The frame at a time between two poses; a wrist that was seen at both."""
    weight = torch.tensor((timestamp - before.timestamp) / (now.timestamp - before.timestamp), dtype=torch.float64)
    return Frame(
        timestamp,
        interpolate_rotations(before.R_world_cpf, now.R_world_cpf, weight),
        torch.lerp(before.p_world_cpf, now.p_world_cpf, weight),
        interpolate_rotations(before.R_world_wrist, now.R_world_wrist, weight.expand(2)),
        torch.lerp(before.p_world_wrist, now.p_world_wrist, weight),
        before.visible & now.visible,
    )
