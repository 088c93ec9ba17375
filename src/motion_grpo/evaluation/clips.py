"""What is evaluated, and how one clip is scored."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import NUM_BODY_AND_ROOT, PosedBody, Skeleton, cpf_of, forward_kinematics
from motion_grpo.data import Clip, is_mocap_pack, load_clips, load_motions, resample
from motion_grpo.data.loading import evenly
from motion_grpo.guidance import GuidanceConfig
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.metrics import JOINT_GROUPS, motion_metrics, mpjpe, spread
from motion_grpo.motion import FPS, Motion
from motion_grpo.seeding import generator_of
from motion_grpo.trajectory import HeadTrajectory

MIN_FRAMES = 4
"""Of a clip: jitter is a third derivative."""

System = Callable[[Clip], list[Motion]]
"""What is evaluated: a clip in, of which only the head may be used; its samples out, in the clip's world."""


@dataclass(frozen=True)
class ClipScores:
    """The metrics of one system on one clip."""

    clip: str
    source: str
    frames: int
    metrics: dict[str, list[float]]
    """One value a sample; units in :data:`~motion_grpo.metrics.METRIC_UNITS`, meters are sums over the clip."""
    content: str = ""
    """What is done in it; empty where unknown."""
    spread: dict[str, float] = field(default_factory=dict)
    """Mean distance of the samples from their mean, mm, by :data:`~motion_grpo.metrics.JOINT_GROUPS`; empty for one."""
    error: dict[str, float] = field(default_factory=dict)
    """Mean distance of the samples from the truth, mm, likewise."""


@dataclass(frozen=True)
class ClipWindow(Clip):
    """Some successive frames of a clip, evaluated by themselves; ``id`` is ``CLIP/FIRST_FRAME``."""

    clip_id: str = ""
    """Of the clip that it was cut from."""
    start: int = 0
    """Its first frame there."""


def read_clips(
    dataset: str | Path, split: str, skeleton: Skeleton | None = None, limit: int | None = None
) -> list[Clip]:
    """The clips of a split that have a body to score against, at 30 fps.

    Args:
        dataset: as for :func:`~motion_grpo.data.load_clips`.
        split: its name.
        skeleton: body that predictions refer to, and rows that name it.
        limit: that many, evenly spread; all when None.

    Raises:
        FileNotFoundError, OSError, ValueError: as :func:`~motion_grpo.data.load_clips`; a split of heads alone, or one
            that holds a clip twice.
    """
    if skeleton is not None and (
        is_mocap_pack(dataset) or skeleton.name not in load_motions(dataset, split)["skeleton"]
    ):
        skeleton = None  # it is the predictions' body, not the recordings'
    clips = load_clips(dataset, split, skeleton=skeleton)
    if not clips:
        raise ValueError(f"The split {split} of {dataset} holds heads and no bodies to score against.")
    name, count = Counter(map(clip_name, clips)).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"The split {split} of {dataset} holds {count} clips of the name {name}; ids must be unique in their "
            "source: rename or remove one."
        )
    clips = [clips[i] for i in evenly(len(clips), limit)]

    # A clip that is too short goes through, to be named by the check that refuses it.
    def other_rate(clip):
        return len(clip.motion) >= MIN_FRAMES and abs(clip.motion.fps - FPS) > 1e-3

    return [replace(c, motion=resample(c.motion, FPS)) if other_rate(c) else c for c in clips]


def windows_of(clip: Clip, frames: int) -> list[ClipWindow]:
    """The clip in windows that do not overlap, as EgoAllo and the paper evaluate; none of one that is shorter.

    Every window is a whole one: the end of a clip that fills none is left out, as EgoAllo's evaluation does.

    Args:
        clip: a recording.
        frames: of a window.

    Raises:
        ValueError: a window of fewer than :data:`MIN_FRAMES`.
    """
    if frames < MIN_FRAMES:
        raise ValueError(f"A window of {frames} frames has no jitter; give {MIN_FRAMES} or more.")
    values = {f.name: getattr(clip, f.name) for f in fields(Clip)}
    windows = []
    for start in range(0, len(clip.motion) - frames + 1, frames):
        place = {"id": f"{clip.id}/{start}", "motion": frames_of(clip.motion, start, start + frames)}
        windows.append(ClipWindow(**values | place, clip_id=clip.id, start=start))
    return windows


def frames_of(motion: Motion, start: int, stop: int) -> Motion:
    """Frames [start, stop) of a motion, with times from 0."""
    per_frame = ("root_rotmats", "root_positions", "body_rotmats", "contacts", "timestamps")
    part = {name: getattr(motion, name)[start:stop] for name in per_frame}
    part["timestamps"] = part["timestamps"] - part["timestamps"][0]
    hands = motion.hand_rotmats
    return replace(motion, **part, hand_rotmats=None if hands is None else hands[start:stop])


def clip_name(clip: Clip) -> str:
    """What tells a clip from all others of a data set, as a relative path: ``SOURCE/ID``.

    Ids that begin with their source, as those of open_mocap_smplh do, are such paths already.
    """
    return clip.id if clip.id.startswith(f"{clip.source}/") else f"{clip.source}/{clip.id}"


def whole_clip(clip: Clip) -> tuple[str, str]:
    """Source and id; of a window those of the clip that it was cut from, whose other windows are much like it."""
    return clip.source, clip.clip_id if isinstance(clip, ClipWindow) else clip.id


def head_trajectory(clip: Clip) -> HeadTrajectory:
    """The true head of a clip: its central pupil frame by its own betas, above its own floor."""
    motion = clip.motion
    body = _posed([motion])
    R, p = cpf_of(PosedBody(body.rotmats[0], body.joints[0]), motion.body.cpf_offset(motion.betas))
    return HeadTrajectory(R, p, motion.timestamps, float(motion.floor_height), "given", clip.id)


def evaluate_clip(system: System, clip: Clip) -> ClipScores:
    """Runs a system on a clip and scores what it returns (:func:`score`); of several samples also how they differ.

    Raises:
        ValueError: as :func:`score`.
    """
    motions = system(clip)
    samples, truth = _checked_joints(motions, clip)
    metrics = _metrics(motions, clip, samples, truth)
    apart, off = {}, {}
    if len(motions) > 1:
        apart = {name: float(spread(samples, joints=group)) for name, group in JOINT_GROUPS.items()}
        off = {name: float(mpjpe(samples, truth, joints=group).mean()) for name, group in JOINT_GROUPS.items()}
    return ClipScores(clip.id, clip.source, len(clip.motion), metrics, clip.content, apart, off)


def score(motions: Sequence[Motion], clip: Clip) -> dict[str, list[float]]:
    """Every metric of :func:`~motion_grpo.metrics.motion_metrics`, one value a motion.

    Heights are taken over the floor: over that of the clip for the clip, over its own for each motion.

    Raises:
        ValueError: a motion of another length or rate than the clip, with values that are not finite, or none at all.
    """
    return _metrics(motions, clip, *_checked_joints(motions, clip))


@torch.no_grad()  # not inference_mode: roma keeps constants made in here, which autograd may want later
def _metrics(
    motions: Sequence[Motion],
    clip: Clip,
    pred: Float[Tensor, "motions frames 22 3"],
    true: Float[Tensor, "1 frames 22 3"],
) -> dict[str, list[float]]:
    local = torch.stack([m.body_rotmats for m in motions])
    values = motion_metrics(local, pred, clip.motion.body_rotmats[None], true, FPS)
    return {name: value.tolist() for name, value in values.items()}


@torch.no_grad()  # likewise
def _checked_joints(
    motions: Sequence[Motion], clip: Clip
) -> tuple[Float[Tensor, "motions frames 22 3"], Float[Tensor, "1 frames 22 3"]]:
    """Joints of the motions and of the clip, each over its own floor; refuses what :func:`score` refuses."""
    if not motions:
        raise ValueError(f"There is no motion to score for clip {clip.id}; a system must return at least one.")
    for number, motion in enumerate(motions):
        check_fits(motion, clip, f"Motion {number} for clip {clip.id}")
    joints = _above_floor([*motions, clip.motion]).joints
    if not joints[:-1].isfinite().all():
        raise ValueError(f"A motion for clip {clip.id} holds NaN or infinite values.")
    return joints[:-1], joints[-1:]


def clip_generators(clip: Clip, seeds: Sequence[int]) -> list[torch.Generator]:
    """One stream of noise a seed, that depends on the seed and the clip's source and id alone.

    So a result depends neither on which other clips are evaluated nor on the process, and no two clips share noise.
    """
    return [generator_of(json.dumps([seed, clip.source, clip.id])) for seed in seeds]


@dataclass(frozen=True)
class PipelineSystem:
    """A pipeline: one sample a seed, all of a clip's drawn in one call."""

    pipeline: EgoMotionPipeline
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    num_inference_steps: int | None = None
    """The pipeline's own when None."""
    eta: float | None = None
    """The scheduler's own when None."""
    temperature: float = 1.0
    """Of the starting noise."""
    guidance: GuidanceConfig | str | None = None
    """Of each sample, or ``off``; the pipeline's own when None."""

    @property
    def used_guidance(self) -> GuidanceConfig | None:
        """What the samples are optimized by."""
        return GuidanceConfig.of(self.pipeline.config.get("guidance") if self.guidance is None else self.guidance)

    def __call__(self, clip: Clip) -> list[Motion]:
        """One motion a seed."""
        self.pipeline.set_progress_bar_config(disable=True)
        return self.pipeline(
            head_trajectory(clip),
            num_samples=len(self.seeds),
            num_inference_steps=self.num_inference_steps,
            eta=self.eta,
            guidance=self.guidance,
            temperature=self.temperature,
            generator=clip_generators(clip, self.seeds),
        ).motions


def check_fits(motion: Motion, clip: Clip, name: str) -> None:
    """Raises ValueError where a motion cannot be scored against a clip, frame by frame."""
    truth = clip.motion
    if len(truth) < MIN_FRAMES or abs(truth.fps - FPS) > 1e-3:
        raise ValueError(f"Clip {clip.id} has {_size(truth)}; at least {MIN_FRAMES} at {FPS:.0f} fps are needed.")
    if len(motion) != len(truth) or abs(motion.fps - FPS) > 1e-3:
        raise ValueError(
            f"{name} has {_size(motion)}; clip {clip.id} has {_size(truth)}, and each of its frames needs one."
        )


def _above_floor(motions: Sequence[Motion]) -> PosedBody:
    return _posed([motion.above_floor() for motion in motions])


def _posed(motions: Sequence[Motion]) -> PosedBody:
    """Root and body joints of motions of equal length, (motions, frames, 22, ...); fingers would double the work."""
    rest = torch.stack([m.body.rest_joints(m.betas)[:NUM_BODY_AND_ROOT] for m in motions])
    rotmats: Tensor = torch.stack([torch.cat([m.root_rotmats[:, None], m.body_rotmats], dim=1) for m in motions])
    return forward_kinematics(rest[:, None], rotmats, torch.stack([m.root_positions for m in motions]))


def _size(motion: Motion) -> str:
    return f"{len(motion)} frames" + (f" at {motion.fps:.6g} fps" if len(motion) > 1 else "")
