"""How well a perceptual model tells made-up motion from recorded motion (MotionGRPO, Table 4), and by how much.

Four questions, each answered on windows of recorded clips:

- :func:`accuracy`: does it prefer the recording to a motion that a policy drew for the same head (Eq. 21)? All models
  are asked about the same pairs, :func:`make_pairs`.
- :func:`severity_curves`: does its score fall as an artefact made by hand
  (:data:`~motion_grpo.motion.artefacts.ARTEFACTS`) grows worse?
- :func:`noticed`: does it prefer the recording to the same recording off the floor (:data:`MUST_NOTICE`)?
- :func:`scoring_cost`: what does a score cost beside the rollout that it judges?
"""

import hashlib
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import ConstantInputWarning, spearmanr
from torch import Tensor

from motion_grpo.body import Skeleton
from motion_grpo.data import Clip, MotionWindows, collate_windows
from motion_grpo.data.batches import TrainingBatch, training_batch
from motion_grpo.data.loading import evenly
from motion_grpo.evaluation import bootstrap_interval
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.inference.rollout import rollout
from motion_grpo.inference.sampling import hang_body
from motion_grpo.models import MotionPerceptualModel, perceptual_inputs
from motion_grpo.motion import FPS, MotionState
from motion_grpo.motion.artefacts import ARTEFACTS, SeverityCurve
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.seeding import generator_of
from motion_grpo.trajectory.head_poses import HeadPoses

MUST_NOTICE: dict[str, tuple[str, float]] = {"lifted_5cm": ("hovering", 0.05), "shorter_10cm": ("shrinking", 0.1)}
"""Artefact and severity, by name: body and head lifted by 5 cm; a body that is 10 cm shorter under the same head."""


@dataclass(frozen=True)
class Windows:
    """Recorded clips, cut up."""

    ids: list[str]
    """``CLIP/FIRST_FRAME``."""
    clips: list[str]
    """Clip of each window."""
    sources: list[str]
    """Its data set; ids of clips are unique in it."""
    truth: TrainingBatch
    """All windows in one batch."""
    skeleton: Skeleton
    """Body of the recordings."""
    left_out: int
    """Ends of clips that were too short for a window."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Source and id of the clip of each window."""
        return list(zip(self.sources, self.clips, strict=True))


@dataclass(frozen=True)
class Pairs:
    """A recorded and a made-up motion for each head trajectory, as a perceptual model reads them."""

    windows: Windows
    recorded: Float[Tensor, "windows frames 21 7"]
    generated: Float[Tensor, "windows frames 21 7"]
    head: Float[Tensor, "windows frames 7"]
    digest: str
    """sha256 of the generated states, rounded to float16, padding left out."""
    settings: dict[str, int | float]
    """What the pairs depend on beside clips and weights."""


@dataclass(frozen=True)
class Accuracy:
    """How often the recorded motion of a pair has the higher score (Eq. 21; a tie is wrong).

    The other one is made up by a policy (:func:`accuracy`) or spoilt by hand (:func:`noticed`).
    """

    percent: float
    lo: float
    """Bounds of the 95% interval, percent."""
    hi: float
    wrong: int
    total: int
    mean_recorded: float
    """Mean scores."""
    mean_generated: float
    """The made-up or spoilt ones'."""


@dataclass(frozen=True)
class ScoringCost:
    """Wall time of scoring motions and of drawing them."""

    rollout_ms: float
    """Per window: features of the head, all sampling steps, the body hung from the head."""
    scoring_ms: float
    """Per window: the model's inputs from the body, and the model."""
    ratio: float
    windows: int
    """In a batch."""
    frames: int
    repeats: int
    """Medians are over these."""
    num_inference_steps: int


def cut_windows(clips: Sequence[Clip], window: int = 128, min_frames: int = 30) -> Windows:
    """Clips cut into windows that do not overlap; the last one of a clip may be shorter and is masked.

    Args:
        clips: at 30 fps, all of one body.
        window: frames.
        min_frames: ends of clips that are shorter are left out, they hold too little motion to judge.

    Raises:
        ValueError: a clip at another rate, clips of different bodies, or nothing that is long enough.
    """
    for clip in clips:
        if len(clip.motion) > 1 and abs(clip.motion.fps - FPS) > 1e-3:
            raise ValueError(
                f"Clip {clip.id} is at {clip.motion.fps:.6g} fps; perceptual models are evaluated at {FPS:g}: resample "
                "it first."
            )
        if clip.motion.body.name != clips[0].motion.body.name:
            raise ValueError(
                f"Clip {clip.id} is of the body {clip.motion.body.name!r}, clip {clips[0].id} of "
                f"{clips[0].motion.body.name!r}; evaluate them apart."
            )
    cut = MotionWindows(clips, window, random=False)
    kept = [i for i, (clip, start) in enumerate(cut.items) if cut.lengths[clip] - start >= min_frames]
    if not kept:
        raise ValueError(f"None of the {len(clips)} clips has {min_frames} frames; there is nothing to score.")
    places = [cut.items[i] for i in kept]
    skeleton = clips[0].motion.body
    return Windows(
        ids=[f"{clips[clip].id}/{start}" for clip, start in places],
        clips=[clips[clip].id for clip, _ in places],
        sources=[clips[clip].source for clip, _ in places],
        truth=training_batch(collate_windows(cut.__getitems__(kept)), skeleton, include_hands=False),
        skeleton=skeleton,
        left_out=len(cut) - len(kept),
    )


def make_pairs(
    pipeline: EgoMotionPipeline,
    clips: Sequence[Clip],
    seed: int = 0,
    window: int = 128,
    *,
    min_frames: int = 30,
    batch_size: int = 32,
) -> Pairs:
    """One motion of the policy, by its own number of steps and eta, for the head of each window (:func:`cut_windows`).

    The noise of a window depends on the seed and the window's name alone: the pairs are the same for every model, and
    but for rounding on every machine and in every batch.

    Args:
        pipeline: the policy.
        clips: recordings.
        seed: of the noise.
        window: frames.
        min_frames: of the shortest window.
        batch_size: windows drawn at once; bounds the memory.

    Raises:
        ValueError: as :func:`cut_windows`; a scheduler of diffusers; a policy of another body than the recordings'.
    """
    windows = cut_windows(clips, window, min_frames)
    _check_policy(pipeline, windows.skeleton)
    truth, mask = windows.truth, windows.truth.mask
    recorded, head = _inputs(truth)
    generated, digest = [], hashlib.sha256()
    for start in range(0, len(windows), batch_size):
        rows = slice(start, start + batch_size)
        generators = [generator_of(seed, name) for name in windows.ids[rows]]
        poses = truth.head.rows(rows)
        states, body_rotmats, joints = (x.cpu() for x in _draw_bodies(pipeline, poses, mask[rows], generators))
        generated.append(perceptual_inputs(body_rotmats, joints, poses.R_world_cpf, poses.p_world_cpf)[0])
        digest.update(states[mask[rows]].to(torch.float16).numpy().tobytes())
    settings = {
        "seed": seed,
        "window": window,
        "min_frames": min_frames,
        "num_inference_steps": pipeline.config.num_inference_steps,
        "eta": pipeline.scheduler.config.eta,
    }
    return Pairs(windows, recorded, torch.cat(generated), head, digest.hexdigest(), settings)


@torch.no_grad()
def score_windows(
    model: MotionPerceptualModel,
    joints: Float[Tensor, "windows frames 21 7"],
    head: Float[Tensor, "windows frames 7"],
    mask: Bool[Tensor, "windows frames"],
    batch_size: int = 64,
) -> Float[Tensor, " windows"]:
    """Scores of many windows, on the CPU; the model, which should be in eval mode, sees ``batch_size`` at once."""
    device = model.device
    parts = zip(joints.split(batch_size), head.split(batch_size), mask.split(batch_size), strict=True)
    return torch.cat([model(j.to(device), h.to(device), m.to(device)).score.cpu() for j, h, m in parts])


def accuracy(model: MotionPerceptualModel, pairs: Pairs) -> Accuracy:
    """Accuracy on pairs of recorded and made-up motion (Eq. 21), with a percentile bootstrap over clips."""
    mask = pairs.windows.truth.mask
    recorded = score_windows(model, pairs.recorded, pairs.head, mask)
    generated = score_windows(model, pairs.generated, pairs.head, mask)
    return _accuracy(recorded, generated, pairs.windows.keys)


def noticed(
    model: MotionPerceptualModel, clips: Sequence[Clip], window: int = 128, *, min_frames: int = 30
) -> dict[str, Accuracy]:
    """How often the recording scores above itself with each fault of :data:`MUST_NOTICE`, over all windows.

    Args:
        model: in eval mode.
        clips: recordings.
        window: frames.
        min_frames: of the shortest window.

    Raises:
        ValueError: as :func:`cut_windows`.
    """
    windows = cut_windows(clips, window, min_frames)
    truth = windows.truth
    recorded = score_windows(model, *_inputs(truth), truth.mask)
    found = {}
    for name, (artefact, severity) in MUST_NOTICE.items():
        spoilt = ARTEFACTS[artefact](*_bodies(truth), windows.skeleton, torch.full((len(windows),), severity))
        found[name] = _accuracy(recorded, score_windows(model, *perceptual_inputs(*spoilt), truth.mask), windows.keys)
    return found


def severity_curves(
    model: MotionPerceptualModel,
    clips: Sequence[Clip],
    seed: int = 0,
    window: int = 128,
    *,
    min_frames: int = 30,
    max_windows: int | None = None,
) -> dict[str, SeverityCurve]:
    """Scores of recorded motion under each artefact, by severity.

    What an artefact draws (noise, directions, the other clip) depends on the seed and is the same for every severity
    and every model.

    Args:
        model: in eval mode.
        clips: recordings; two or more.
        seed: of what is drawn.
        window: frames.
        min_frames: of the shortest window.
        max_windows: that many, evenly spread; all when None.

    Raises:
        ValueError: as :func:`cut_windows`; windows of a single clip.
    """
    windows = cut_windows(clips, window, min_frames)
    chosen = torch.tensor(evenly(len(windows), max_windows))
    count = len(chosen)
    names = [windows.keys[i] for i in chosen.tolist()]
    others = _rows_of_other_clips(names, seed)
    truth = windows.truth
    recorded = tuple(part[chosen] for part in _bodies(truth))

    def scores(artefact: str, severity: float) -> np.ndarray:
        spoilt = ARTEFACTS[artefact](
            *recorded, windows.skeleton, torch.full((count,), severity), generator_of(seed, artefact), others
        )
        return score_windows(model, *perceptual_inputs(*spoilt), truth.mask[chosen]).double().numpy()

    untouched = scores(next(iter(ARTEFACTS)), 0.0)
    curves = {}
    for name, artefact in ARTEFACTS.items():
        table = np.stack([untouched, *(scores(name, severity) for severity in artefact.severities[1:])], axis=1)
        within = np.array([_spearman(artefact.severities, row) for row in table])
        lo, hi = _interval(within, names)
        curves[name] = SeverityCurve(
            unit=artefact.unit,
            severities=list(artefact.severities),
            mean_scores=table.mean(0).tolist(),
            spearman=float(within.mean()),
            lo=lo,
            hi=hi,
            pooled_spearman=_spearman(np.tile(artefact.severities, count), table.ravel()),
            windows=count,
        )
    return curves


def scoring_cost(
    model: MotionPerceptualModel,
    pipeline: EgoMotionPipeline,
    clips: Sequence[Clip],
    window: int = 128,
    *,
    num_windows: int = 16,
    repeats: int = 5,
) -> ScoringCost:
    """Time of a batch of scores over that of the rollout which drew what is scored, measured in turns.

    Args:
        model: in eval mode, on the pipeline's device.
        pipeline: the policy, by its own number of steps and eta.
        clips: recordings, whose heads are followed; windows repeat if there are too few.
        window: frames.
        num_windows: in a batch.
        repeats: measurements, after one of each to warm up; the median counts.

    Raises:
        ValueError: as :func:`make_pairs`, or model and pipeline on different devices.
    """
    if model.device.type != pipeline.device.type:
        raise ValueError(
            f"The model is on {model.device.type}, the pipeline on {pipeline.device.type}; move them together."
        )
    windows = cut_windows(clips, window, min_frames=min(window, max(len(clip.motion) for clip in clips)))
    _check_policy(pipeline, windows.skeleton)
    rows = torch.arange(num_windows) % len(windows)
    head, mask, device = windows.truth.head.rows(rows), windows.truth.mask[rows].to(model.device), model.device
    generator = [torch.Generator(device).manual_seed(0)]
    drawn: list[tuple[Tensor, Tensor]] = []

    def draw() -> None:
        drawn[:] = [_draw_bodies(pipeline, head, mask, generator)[1:]]

    @torch.no_grad()
    def judge() -> None:
        model(*perceptual_inputs(*drawn[0], head.R_world_cpf.to(device), head.p_world_cpf.to(device)), mask)

    times = [(_seconds(draw, device), _seconds(judge, device)) for _ in range(repeats + 1)]
    rollout_s, scoring_s = np.median(times[1:], axis=0).tolist()
    return ScoringCost(
        rollout_ms=1000 * rollout_s / num_windows,
        scoring_ms=1000 * scoring_s / num_windows,
        ratio=scoring_s / rollout_s,
        windows=num_windows,
        frames=window,
        repeats=repeats,
        num_inference_steps=pipeline.config.num_inference_steps,
    )


# ---- helpers


@torch.no_grad()
def _draw_bodies(
    pipeline: EgoMotionPipeline,
    head: HeadPoses,
    mask: Bool[Tensor, "windows frames"],
    generators: Sequence[torch.Generator],
) -> tuple[
    Float[Tensor, "windows frames d_state"],
    Float[Tensor, "windows frames 21 3 3"],
    Float[Tensor, "windows frames 22 3"],
]:
    """States, local rotations and joints that the policy draws, on its device; one generator for all, or one a row."""
    denoiser, device = pipeline.denoiser, pipeline.device
    head, mask = HeadPoses(*(part.to(device) for part in head)), mask.to(device)
    per_generator = (len(mask) // len(generators), mask.shape[1], denoiser.state_layout.dim)

    def noise(step: int) -> Tensor:
        return torch.cat([torch.randn(per_generator, generator=g, device=g.device) for g in generators]).to(device)

    states = rollout(
        denoiser,
        pipeline.scheduler,
        noise(-1),
        noise,
        denoiser.condition(head),
        mask,
        num_steps=pipeline.config.num_inference_steps,
        eta=pipeline.scheduler.config.eta,
    ).latents[-1]
    state = MotionState.unpack(states, denoiser.state_layout, project=False)
    body = hang_body(pipeline.skeleton.to(device), state, head, mask)
    return states, state.body_rotmats, body.joints


def _inputs(truth: TrainingBatch) -> tuple[Float[Tensor, "windows frames 21 7"], Float[Tensor, "windows frames 7"]]:
    return perceptual_inputs(truth.state.body_rotmats, truth.joints, truth.head.R_world_cpf, truth.head.p_world_cpf)


def _bodies(truth: TrainingBatch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What artefacts are put on: poses, betas, orientation and position of the head, mask."""
    return truth.state.body_rotmats, truth.state.betas, truth.head.R_world_cpf, truth.head.p_world_cpf, truth.mask


def _accuracy(
    recorded: Float[Tensor, " windows"], other: Float[Tensor, " windows"], clips: Sequence[tuple[str, str]]
) -> Accuracy:
    """Of pairs of scores, with a percentile bootstrap over clips."""
    right = (recorded > other).double().numpy()
    lo, hi = _interval(right, clips)
    return Accuracy(
        percent=100 * float(right.mean()),
        lo=100 * lo,
        hi=100 * hi,
        wrong=int((right == 0).sum()),
        total=len(right),
        mean_recorded=float(recorded.mean()),
        mean_generated=float(other.mean()),
    )


def _rows_of_other_clips(clips: Sequence[tuple[str, str]], seed: int) -> Tensor:
    """For each window one of another clip; clips by source and id."""
    if len(set(clips)) < 2:
        raise ValueError(f"All windows are of the clip {clips[0][1]}; artefacts that take from another clip need two.")
    number = {name: i for i, name in enumerate(dict.fromkeys(clips))}
    clip = torch.tensor([number[name] for name in clips])
    return torch.multinomial((clip[:, None] != clip).float(), 1, generator=generator_of(seed, "other clip")).squeeze(1)


def _spearman(severities: Sequence[float] | np.ndarray, scores: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return float(np.nan_to_num(spearmanr(severities, scores).statistic))


def _interval(values: np.ndarray, windows: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """95% bootstrap of the mean over windows, each given by the source and id of its clip."""
    lo, hi = bootstrap_interval(values[:, None], windows)
    return float(lo[0]), float(hi[0])


def _check_policy(pipeline: EgoMotionPipeline, skeleton: Skeleton) -> None:
    if not isinstance(pipeline.scheduler, EgoMotionSDEScheduler):
        raise ValueError(
            f"The policy has a {type(pipeline.scheduler).__name__}; its rollouts need an EgoMotionSDEScheduler: set "
            "pipeline.scheduler to one."
        )
    if pipeline.skeleton.name != skeleton.name:
        raise ValueError(
            f"The policy's betas are of the body {pipeline.skeleton.name!r}, the recordings' of {skeleton.name!r}: set "
            "pipeline.skeleton, or choose a policy that was trained on this body."
        )


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start
