"""Evaluation of recovered motion: systems to compare, their metrics clip by clip, means with their uncertainty.

A system is a callable that takes a recorded :class:`~motion_grpo.data.Clip` and returns one or several motions for its
head trajectory, in the clip's world and of its length. :class:`PipelineSystem` is ours; :func:`mean_pose`,
:class:`NearestNeighbour` and :func:`smoothed` are what a claim should be held against; :func:`ground_truth` shows what
the recordings themselves score; :class:`RecordedMotions` reads what any other system has written to files.

    system = PipelineSystem(EgoMotionPipeline.from_pretrained(), seeds=range(5))
    summarize([evaluate_clip(system, clip) for clip in read_mocap_pack(folder, "test")])["mpjpe"]

Every system gets the true head: the central pupil frame of the whole recording at 30 fps, floor at z = 0. Metrics are
those of :func:`~motion_grpo.metrics.motion_metrics`: 22 joints (root and body, no fingers) in the world, nothing
aligned but for the PA metrics, the prediction with its own betas.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from motion_grpo.body import NUM_BETAS, NUM_BODY_JOINTS, PosedBody, Skeleton, cpf_of, forward_kinematics
from motion_grpo.conditioning import HeadPoses, head_features
from motion_grpo.data import Clip
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.metrics import METRIC_UNITS, motion_metrics
from motion_grpo.motion import FPS, Motion
from motion_grpo.rotations import project_to_rotation
from motion_grpo.trajectory import HeadTrajectory

MIN_FRAMES = 4
"""Of a clip: jitter is a third derivative."""

System = Callable[[Clip], list[Motion]]
"""What is evaluated: a clip in, of which only the head may be used; its samples out."""


@dataclass(frozen=True)
class ClipScores:
    """The metrics of one system on one clip."""

    clip: str
    source: str
    frames: int
    metrics: dict[str, list[float]]
    """One value a sample; units in :data:`~motion_grpo.metrics.METRIC_UNITS`, metres are sums over the clip."""


@dataclass(frozen=True)
class Estimate:
    """Mean of a metric over clips, and the bounds of its 95% interval."""

    mean: float
    lo: float
    hi: float
    unit: str


def head_trajectory(clip: Clip) -> HeadTrajectory:
    """The true head of a clip: its central pupil frame by its own betas, floor at z = 0."""
    motion = clip.motion
    body = _posed([motion])
    R, p = cpf_of(PosedBody(body.rotmats[0], body.joints[0]), motion.body.cpf_offset(motion.betas))
    return HeadTrajectory(R, p, motion.timestamps, 0.0, "given", clip.id)


@torch.no_grad()  # not inference_mode: roma keeps constants made in here, which autograd may want later
def score(motions: Sequence[Motion], clip: Clip) -> dict[str, list[float]]:
    """Every metric of :func:`~motion_grpo.metrics.motion_metrics`, one value a motion.

    Raises:
        ValueError: a motion of another length or rate than the clip, with values that are not finite, or none at all.
    """
    if not motions:
        raise ValueError(f"There is no motion to score for clip {clip.id}; a system must return at least one.")
    for number, motion in enumerate(motions):
        _check_fits(motion, clip, f"Motion {number} for clip {clip.id}")
    joints = _posed([*motions, clip.motion]).joints
    pred, true = joints[:-1], joints[-1:]
    local = torch.stack([m.body_rotmats for m in motions])
    if not pred.isfinite().all():
        raise ValueError(f"A motion for clip {clip.id} holds NaN or infinite values.")
    values = motion_metrics(local, pred, clip.motion.body_rotmats[None], true, FPS)
    return {name: value.tolist() for name, value in values.items()}


def evaluate_clip(system: System, clip: Clip) -> ClipScores:
    """Runs a system on a clip and scores what it returns (:func:`score`)."""
    return ClipScores(clip.id, clip.source, len(clip.motion), score(system(clip), clip))


def summarize(scores: Sequence[ClipScores], *, resamples: int = 2000, seed: int = 0) -> dict[str, Estimate]:
    """Mean of every metric with a 95% interval.

    A clip's value is the mean over its samples, the result the mean over clips: every clip counts the same, however
    long it is, as in the field's tables of per-sequence values. The interval is a percentile bootstrap over clips, each
    drawn with all its samples. Every clip has noise of its own (:func:`clip_generators`), so the luck of the seeds is
    part of the spread between clips already. Clips are taken to be independent; those of one actor or take are not
    quite, which makes the interval rather too narrow. With a single clip it has no width.

    Args:
        resamples: bootstrap samples.
        seed: of the bootstrap.
    """
    if not scores:
        raise ValueError("There are no scores to summarize.")
    names = list(scores[0].metrics)
    values = np.array([[np.mean(row.metrics[name]) for name in names] for row in scores])
    rng = np.random.default_rng(seed)
    draws = np.stack([values[rng.integers(0, len(values), len(values))].mean(0) for _ in range(resamples)])
    lo, hi = np.percentile(draws, [2.5, 97.5], axis=0)
    return {
        name: Estimate(float(values[:, i].mean()), float(lo[i]), float(hi[i]), METRIC_UNITS[name])
        for i, name in enumerate(names)
    }


# ---- systems


def clip_generators(clip: Clip, seeds: Sequence[int]) -> list[torch.Generator]:
    """One stream of noise a seed, that depends on the seed and the clip's id alone.

    So a result depends neither on which other clips are evaluated nor on the process, and no two clips share noise.
    """
    digests = [hashlib.sha256(f"{seed} {clip.id}".encode()).digest() for seed in seeds]
    return [torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")) for digest in digests]


@dataclass(frozen=True)
class PipelineSystem:
    """A pipeline: one sample a seed, all of a clip's drawn in one call."""

    pipeline: EgoMotionPipeline
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    num_inference_steps: int | None = None
    """The pipeline's own when None."""
    eta: float | None = None
    """The scheduler's own when None."""

    def __call__(self, clip: Clip) -> list[Motion]:
        self.pipeline.set_progress_bar_config(disable=True)
        return self.pipeline(
            head_trajectory(clip),
            num_samples=len(self.seeds),
            num_inference_steps=self.num_inference_steps,
            eta=self.eta,
            generator=clip_generators(clip, self.seeds),
        ).motions


class RecordedMotions:
    """Motions of any system, read from files: AMASS npz at 30 fps in the clip's world, named like the clip.

    A file belongs to the clip whose id its path ends with, in whatever folder below: ``seed0/walk_01.npz`` and
    ``seed1/walk_01.npz`` are two samples of the clip ``walk_01``.

    Args:
        folder: where to look.
        clips: those that will be asked for.
        skeleton: body that the files' betas (and AMASS's ``trans``) refer to; the default body when None.

    Raises:
        FileNotFoundError: no such folder, or no file for one of the clips.
        ValueError: clips with different numbers of files; on call, a file that is no motion or does not fit the clip.
    """

    def __init__(self, folder: str | Path, clips: Iterable[Clip], skeleton: Skeleton | None = None) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; give one with a motion file (.npz) for every clip.")
        found: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*.npz")):
            parts = path.relative_to(folder).as_posix().removesuffix(".npz").split("/")
            for start in range(len(parts)):
                found["/".join(parts[start:])].append(path)
        ids = [clip.id for clip in clips]
        missing = [name for name in ids if name not in found]
        if missing:
            more = f" (and for {len(missing) - 1} other clips of {len(ids)})" if len(missing) > 1 else ""
            raise FileNotFoundError(f"{folder} holds no motion file for clip {missing[0]}{more}: {missing[0]}.npz.")
        for name in ids:
            if len(found[name]) != len(found[ids[0]]):
                raise ValueError(
                    f"{folder} holds {len(found[name])} motion files for clip {name} and {len(found[ids[0]])} for clip "
                    f"{ids[0]}; every clip needs the same number of samples."
                )
        self.files = {name: found[name] for name in ids}
        self.skeleton = skeleton

    def __call__(self, clip: Clip) -> list[Motion]:
        motions = [Motion.load(path, self.skeleton) for path in self.files[clip.id]]
        for path, motion in zip(self.files[clip.id], motions, strict=True):
            _check_fits(motion, clip, str(path))
        return motions


def ground_truth(clip: Clip) -> list[Motion]:
    """The recording itself: no errors, and the jitter, skating and penetration that real motion scores."""
    return [clip.motion]


def mean_pose(train: Iterable[Clip]) -> System:
    """One still body under every head: mean local rotations (chordal, per joint) and mean betas of all training frames.

    Raises:
        ValueError: no clips.
    """
    rotations = torch.zeros(NUM_BODY_JOINTS, 3, 3, dtype=torch.float64)
    shape, frames = torch.zeros(NUM_BETAS, dtype=torch.float64), 0
    for clip in train:
        rotations += clip.motion.body_rotmats.double().sum(0)
        shape += len(clip.motion) * clip.motion.betas.double()
        frames += len(clip.motion)
    if frames == 0:
        raise ValueError("There are no training clips to take the mean pose from.")
    pose, betas = project_to_rotation(rotations / frames).float(), (shape / frames).float()

    def mean_pose_system(clip: Clip) -> list[Motion]:
        frames = len(clip.motion)
        contacts = torch.zeros(frames, NUM_BODY_JOINTS)
        return [_hang(clip, pose.expand(frames, -1, -1, -1), betas, contacts, clip.motion.body)]

    return mean_pose_system


class NearestNeighbour:
    """The training motion under the most similar head, chunk by chunk, hung from the true head.

    Features are those of :func:`~motion_grpo.conditioning.head_features` ("ours", no Fourier encoding), standardised
    over the training frames; the nearest window has the least squared distance, summed over its frames. Joints jump
    between chunks. Betas are the mean over the frames that were found. Memory: about 1.7 kB a training frame.

    Args:
        train: clips to look in.
        chunk: frames that are looked up together; the last chunk of a clip overlaps the one before.
        stride: frames between the training windows (and one at every clip's end).

    Raises:
        ValueError: no clips.
    """

    def __init__(self, train: Iterable[Clip], chunk: int = 32, stride: int = 4) -> None:
        features, rotmats, contacts, betas, rows, offset = [], [], [], [], [], 0
        for clip in train:
            motion, last = clip.motion, len(clip.motion) - chunk
            features.append(_features(clip))
            rotmats.append(motion.body_rotmats)
            contacts.append(motion.contacts)
            betas.append(motion.betas.expand(len(motion), -1))
            starts = torch.tensor([*range(0, last, stride), max(last, 0)])
            rows.append(offset + _places(starts, chunk, len(motion)))
            offset += len(motion)
        if not features:
            raise ValueError("There are no training clips to look for neighbours in.")
        self.chunk = chunk
        self.rotmats, self.contacts, self.betas, self.rows = map(torch.cat, (rotmats, contacts, betas, rows))
        frames = torch.cat(features)
        # Cosines of millimetre steps hardly move: the floor keeps rounding errors from being blown up.
        self.mean, self.std = frames.mean(0), frames.std(0).clamp(min=1e-3)
        self.windows = ((frames - self.mean) / self.std)[self.rows].flatten(1)
        self.squares = self.windows.square().sum(1)

    def __call__(self, clip: Clip) -> list[Motion]:
        frames, chunk = len(clip.motion), self.chunk
        first = torch.arange(0, frames, chunk)
        starts = first.clamp(max=max(frames - chunk, 0))
        query = ((_features(clip) - self.mean) / self.std)[_places(starts, chunk, frames)].flatten(1)
        nearest = (self.squares[:, None] - self.windows @ (2 * query.T)).argmin(0)
        known = (first - starts).tolist()
        rows = torch.cat([self.rows[i, skip:] for i, skip in zip(nearest, known, strict=True)])[:frames]
        return [_hang(clip, self.rotmats[rows], self.betas[rows].mean(0), self.contacts[rows], clip.motion.body)]


def smoothed(system: System, sigma_frames: float = 2.0) -> System:
    """A system whose motions are low-pass filtered in time and hung from the true head again.

    A Gaussian over the entries of the rotation matrices, projected back: the weighted chordal mean. What it gains in
    jitter and velocity costs nothing, so a better model should gain more.

    Args:
        sigma_frames: deviation of the Gaussian, frames.
    """

    def smooth(rotmats: Float[Tensor, "frames joints 3 3"]) -> Float[Tensor, "frames joints 3 3"]:
        filtered = gaussian_filter1d(rotmats.double().numpy(), sigma_frames, axis=0, mode="nearest")
        return project_to_rotation(torch.from_numpy(filtered)).float()

    def smoothed_system(clip: Clip) -> list[Motion]:
        return [_hang(clip, smooth(m.body_rotmats), m.betas, m.contacts, m.body) for m in system(clip)]

    return smoothed_system


# ---- helpers


def _hang(clip: Clip, body_rotmats: Tensor, betas: Tensor, contacts: Tensor, skeleton: Skeleton) -> Motion:
    """The body in this pose, moved as a whole until its central pupil frame is the clip's."""
    head = head_trajectory(clip)
    body = skeleton.place_by_head(betas, body_rotmats, head.R_world_cpf, head.p_world_cpf)
    return replace(
        clip.motion,
        root_rotmats=body.rotmats[:, 0],
        root_positions=body.joints[:, 0],
        body_rotmats=body_rotmats,
        betas=betas,
        contacts=contacts,
        hand_rotmats=None,
        skeleton=skeleton,
    )


def _features(clip: Clip) -> Float[Tensor, "frames d_cond"]:
    head = head_trajectory(clip)
    return head_features(HeadPoses.from_world(head.R_world_cpf, head.p_world_cpf), "ours", octaves=0)


def _places(starts: Int[Tensor, "windows"], chunk: int, frames: int) -> Int[Tensor, "windows chunk"]:
    """Frames of each window; the last one of a clip is repeated where the clip is shorter than a window."""
    return (starts[:, None] + torch.arange(chunk)).clamp(max=frames - 1)


def _posed(motions: Sequence[Motion]) -> PosedBody:
    """Root and body joints of motions of equal length, (motions, frames, 22, ...); fingers would double the work."""
    rest = torch.stack([m.body.rest_joints(m.betas)[: 1 + NUM_BODY_JOINTS] for m in motions])
    rotmats = torch.stack([torch.cat([m.root_rotmats[:, None], m.body_rotmats], dim=1) for m in motions])
    return forward_kinematics(rest[:, None], rotmats, torch.stack([m.root_positions for m in motions]))


def _check_fits(motion: Motion, clip: Clip, name: str) -> None:
    truth = clip.motion
    if len(truth) < MIN_FRAMES or abs(truth.fps - FPS) > 1e-3:
        raise ValueError(f"Clip {clip.id} has {_size(truth)}; at least {MIN_FRAMES} at {FPS:.0f} fps are needed.")
    if len(motion) != len(truth) or abs(motion.fps - FPS) > 1e-3:
        raise ValueError(
            f"{name} has {_size(motion)}; clip {clip.id} has {_size(truth)}, and each of its frames needs one."
        )


def _size(motion: Motion) -> str:
    return f"{len(motion)} frames" + (f" at {motion.fps:.6g} fps" if len(motion) > 1 else "")
