"""Frames of several motions that belong to one moment."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Int64

from motion_grpo.motion import Motion


def shared_time(motions: Mapping[str, Motion]) -> tuple[float, float]:
    """First and last second that all motions have, on the clock of their timestamps.

    Raises:
        ValueError: there is none.
    """
    spans = {name: (float(m.timestamps[0]), float(m.timestamps[-1])) for name, m in motions.items()}
    start, end = max(s for s, _ in spans.values()), min(e for _, e in spans.values())
    if start > end:
        listing = ", ".join(f"{name!r} {s:.2f}-{e:.2f} s" for name, (s, e) in spans.items())
        raise ValueError(f"the motions share no time: {listing}; give motions of one recording.")
    return start, end


def frames_at(motion: Motion, times: Float64[np.ndarray, "poses"]) -> Int64[np.ndarray, "poses"]:
    """The frame nearest to each time, seconds."""
    own = motion.timestamps.numpy()
    after = np.searchsorted(own, times).clip(1, len(own) - 1) if len(own) > 1 else np.zeros(len(times), np.int64)
    before = (after - 1).clip(0)
    return np.where(times - own[before] < own[after] - times, before, after)


def times_at(start: float, end: float, fps: float) -> Float64[np.ndarray, "poses"]:
    """Seconds from ``start`` to ``end``, so many a second."""
    return start + np.arange(int((end - start) * fps + 1e-6) + 1) / fps
