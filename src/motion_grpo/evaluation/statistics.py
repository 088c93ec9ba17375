"""Means over clips, and how sure they are."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from motion_grpo.evaluation.clips import ClipScores
from motion_grpo.metrics import METRIC_UNITS

RESAMPLES = 2000
"""Bootstrap samples of every interval."""


@dataclass(frozen=True)
class Estimate:
    """Mean of a metric, and the bounds of its 95% interval."""

    mean: float
    lo: float
    hi: float
    unit: str


@dataclass(frozen=True)
class SampleStatistics:
    """How the samples of a system differ from each other, beside how they differ from the truth."""

    samples: int
    """A clip."""
    best_mpjpe: Estimate
    """MPJPE of the best sample of each clip, as the truth tells."""
    spread: dict[str, Estimate]
    """Mean distance of the samples from their mean, by :data:`~motion_grpo.metrics.JOINT_GROUPS`."""
    error: dict[str, Estimate]
    """Mean distance of the samples from the truth, likewise."""
    ratio: dict[str, Estimate]
    """Mean spread over mean error. Samples of an honest model, drawn as the truth was, come to about 0.7: their
    distance to the truth is that between two draws, root 2 of that to the mean."""


def bootstrap_interval(
    values: Float64[np.ndarray, "rows columns"],
    clusters: Sequence[Hashable],
    statistic: Callable[[np.ndarray], np.ndarray] = lambda means: means,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """95% percentile bootstrap of the mean over rows, or of a function of such means: its two bounds.

    Args:
        values: one row a clip, or a window.
        clusters: of each row, the clip that it belongs to: rows of one clip are much alike and are drawn together.
        statistic: of the means (draws, columns); the means themselves by default.
        resamples: bootstrap samples.
        seed: of the bootstrap.
    """
    number = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    cluster = np.array([number[name] for name in clusters])
    sums = np.zeros((len(number), values.shape[1]))
    np.add.at(sums, cluster, values)
    counts = np.bincount(cluster)
    draws = np.random.default_rng(seed).integers(0, len(counts), (resamples, len(counts)))
    # Draw by draw: all of them at once are too much to hold for a large split.
    drawn = np.stack([sums[draw].sum(0) / counts[draw].sum() for draw in draws])
    lo, hi = np.percentile(statistic(drawn), [2.5, 97.5], axis=0)
    return lo, hi


def summarize(
    scores: Sequence[ClipScores],
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Mean of every metric with a 95% interval.

    A clip's value is the mean over its samples, the result the mean over clips: every clip counts the same, however
    long it is, as in the field's tables of per-sequence values. Windows of clips count likewise, each the same. The
    interval is a percentile bootstrap over clips, each drawn with all its samples and windows. Every clip has noise of
    its own (:func:`clip_generators`), so the luck of the seeds is part of the spread between clips already. Clips are
    taken to be independent; those of one actor or take are not quite, which makes the interval rather too narrow. With
    a single clip it has no width.

    Args:
        scores: one entry a clip or window.
        clusters: the clip that each entry belongs to; each is one of its own when None.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("There are no scores to summarize.")
    names = list(scores[0].metrics)
    values = np.array([[np.mean(row.metrics[name]) for name in names] for row in scores])
    lo, hi = bootstrap_interval(values, clusters or range(len(scores)), resamples=resamples, seed=seed)
    return {
        name: Estimate(float(values[:, i].mean()), float(lo[i]), float(hi[i]), METRIC_UNITS[name])
        for i, name in enumerate(names)
    }


def summarize_samples(
    scores: Sequence[ClipScores], clusters: Sequence[Hashable] | None = None
) -> SampleStatistics | None:
    """How the samples of a clip differ, mean over clips; None for a system that draws one. See :func:`summarize`."""
    if not scores or not scores[0].spread:
        return None
    groups, many = list(scores[0].spread), len(scores[0].spread)
    table = np.array(
        [
            [min(row.metrics["mpjpe"]), *(of[group] for of in (row.spread, row.error) for group in groups)]
            for row in scores
        ]
    )

    def with_ratios(means: np.ndarray) -> np.ndarray:
        return np.concatenate([means, means[..., 1 : 1 + many] / means[..., 1 + many :]], axis=-1)

    lo, hi = bootstrap_interval(table, clusters or range(len(scores)), with_ratios)
    units = ["mm"] * table.shape[1] + ["share of the error"] * many
    values = zip(with_ratios(table.mean(0)).tolist(), lo.tolist(), hi.tolist(), units, strict=True)
    of_best, *others = (Estimate(*value) for value in values)
    by_group = (dict(zip(groups, others[start : start + many], strict=True)) for start in (0, many, 2 * many))
    return SampleStatistics(len(scores[0].metrics["mpjpe"]), of_best, *by_group)
