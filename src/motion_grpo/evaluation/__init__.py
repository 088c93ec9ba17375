"""Evaluation of recovered motion: systems to compare, their metrics clip by clip, means with their uncertainty.

A system is a callable that takes a recorded :class:`~motion_grpo.data.Clip` and returns one or several motions for its
head trajectory, in the clip's world and of its length. :class:`PipelineSystem` is ours; :func:`upright`,
:func:`mean_pose`, :class:`NearestNeighbour` and :func:`smoothed` are what a claim should be held against;
:func:`ground_truth` shows what the recordings themselves score; :class:`RecordedMotions` reads what any other system
has written to files.

    system = PipelineSystem(EgoMotionPipeline.from_pretrained(), seeds=range(5))
    summarize([evaluate_clip(system, clip) for clip in read_mocap_pack(folder, "test")])["mpjpe"]

Every system gets the true head: the central pupil frame of the whole recording (or of one window of it, see
:func:`windows_of`) at 30 fps, with the floor's height. Metrics are those of
:func:`~motion_grpo.metrics.motion_metrics`: 22 joints (root and body, no fingers) in the world, above the clip's floor,
nothing aligned but for the PA metrics, the prediction with its own betas.
"""

from motion_grpo.evaluation.baselines import NearestNeighbour, ground_truth, mean_pose, smoothed, upright
from motion_grpo.evaluation.clips import (
    MIN_FRAMES,
    ClipScores,
    ClipWindow,
    PipelineSystem,
    System,
    clip_generators,
    clip_name,
    evaluate_clip,
    head_trajectory,
    read_clips,
    score,
    windows_of,
)
from motion_grpo.evaluation.recorded import RecordedMotions
from motion_grpo.evaluation.statistics import (
    Estimate,
    SampleStatistics,
    bootstrap_interval,
    summarize,
    summarize_samples,
)

__all__ = [
    "MIN_FRAMES", "ClipScores", "ClipWindow", "Estimate", "NearestNeighbour", "PipelineSystem", "RecordedMotions",
    "SampleStatistics", "System", "bootstrap_interval", "clip_generators", "clip_name", "evaluate_clip", "ground_truth",
    "head_trajectory", "mean_pose", "read_clips", "score", "smoothed", "summarize", "summarize_samples", "upright",
    "windows_of",
]  # fmt: skip
