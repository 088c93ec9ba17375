"""How plausible a whole motion is, and where it is least so: a perceptual model run along it, window by window."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import NUM_BODY_AND_ROOT, PosedBody, cpf_of
from motion_grpo.models import MotionPerceptualModel, perceptual_inputs
from motion_grpo.motion import FPS, Motion
from motion_grpo.trajectory import HeadTrajectory

_BATCH = 64


@dataclass(frozen=True)
class ScoredWindow:
    """The score of one stretch of a motion."""

    start: int
    """First frame."""
    stop: int
    """Frame after the last."""
    start_time: float
    """Seconds, on the motion's clock."""
    stop_time: float
    """Time of the last frame."""
    score: float


@dataclass(frozen=True)
class ScoredMotion:
    """How plausible a motion is, 0 (made up) to 1 (real)."""

    score: float
    """Mean over the windows."""
    windows: list[ScoredWindow]
    """In the order of time, each overlapping the one before by half (the last one by more)."""

    def lowest(self, count: int = 5) -> list[ScoredWindow]:
        """The least plausible windows, the worst first."""
        return sorted(self.windows, key=lambda window: window.score)[:count]

    def implausible(self, below: float = 0.5) -> list[tuple[float, float]]:
        """Start and stop, seconds, of the stretches that windows with a lower score than this cover."""
        spans: list[tuple[float, float]] = []
        for window in self.windows:
            if window.score >= below:
                continue
            if spans and window.start_time <= spans[-1][1]:
                spans[-1] = spans[-1][0], window.stop_time
            else:
                spans.append((window.start_time, window.stop_time))
        return spans


@torch.no_grad()
def score_motion(
    model: MotionPerceptualModel, motion: Motion, trajectory: HeadTrajectory | None = None, window: int = 128
) -> ScoredMotion:
    """Scores a motion, and how well it goes with a head trajectory.

    Heights are taken over the motion's floor, the trajectory's too.

    Args:
        model: in eval mode.
        motion: at 30 fps.
        trajectory: of the head, one pose a frame of the motion, in the motion's world; the head of the motion itself
            when None, which judges the motion alone.
        window: frames that the model sees at once; a shorter motion is one window.

    Raises:
        ValueError: a window of less than two frames; a motion at another rate or with values that are not finite; a
            trajectory of another length or rate.
    """
    if window < 2:
        raise ValueError(f"window is {window}; the model has to see at least 2 frames at once.")
    if abs(motion.fps - FPS) > 0.01 * FPS:
        raise ValueError(
            f"The motion has {motion.fps:.6g} frames per second; the model knows motion at {FPS:g}. Resample it first: "
            f"motion_grpo.data.resample(motion, {FPS:g})."
        )
    body = motion.posed
    joints = body.joints[:, :NUM_BODY_AND_ROOT]
    if not joints.isfinite().all():
        frame = int((~joints.isfinite()).flatten(1).any(1).nonzero()[0, 0])
        raise ValueError(f"The motion holds NaN or infinite values, first in frame {frame}; leave such frames out.")
    R_world_cpf, p_world_cpf = _head(motion, body, trajectory)
    down = torch.tensor([0.0, 0.0, motion.floor_height])
    joints, head = perceptual_inputs(motion.body_rotmats, joints - down, R_world_cpf, p_world_cpf - down)
    starts = _starts(len(motion), window)
    frames = (torch.tensor(starts)[:, None] + torch.arange(min(window, len(motion)))).split(_BATCH)
    scores = torch.cat(
        [model(joints[f].to(model.device), head[f].to(model.device)).score.cpu() for f in frames]
    ).tolist()
    windows = []
    for start, score in zip(starts, scores, strict=True):
        stop = min(start + window, len(motion))
        times = float(motion.timestamps[start]), float(motion.timestamps[stop - 1])
        windows.append(ScoredWindow(start, stop, *times, score))
    return ScoredMotion(sum(scores) / len(scores), windows)


def _head(
    motion: Motion, body: PosedBody, trajectory: HeadTrajectory | None
) -> tuple[Float[Tensor, "frames 3 3"], Float[Tensor, "frames 3"]]:
    if trajectory is None:
        return cpf_of(body, motion.body.cpf_offset(motion.betas))
    if len(trajectory) != len(motion) or abs(trajectory.fps - motion.fps) > 0.01 * FPS:
        raise ValueError(
            f"The motion has {len(motion)} frames at {motion.fps:.4g} fps, the head trajectory ({trajectory.source}) "
            f"{len(trajectory)} poses at {trajectory.fps:.4g}; each frame needs one pose. Resample and cut them to the "
            f"same times: trajectory.resample({FPS:g}), or trajectory.at(motion.timestamps)."
        )
    return trajectory.R_world_cpf, trajectory.p_world_cpf


def _starts(frames: int, window: int) -> list[int]:
    """First frames of windows that overlap by half; the last one ends with the motion."""
    last = max(frames - window, 0)
    return [*range(0, last, window // 2), last]
