"""Frames of several motions that belong to one moment."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float64, Int64

from motion_grpo.motion import Motion
from motion_grpo.timing import nearest


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


def frames_at(motion: Motion, times: Float64[np.ndarray, " poses"]) -> Int64[np.ndarray, " poses"]:
    """The frame nearest to each time, seconds."""
    return nearest(motion.timestamps.double(), torch.from_numpy(times)).numpy()


def times_at(start: float, end: float, fps: float) -> Float64[np.ndarray, " poses"]:
    """Seconds from ``start`` to ``end``, so many a second."""
    return start + np.arange(int((end - start) * fps + 1e-6) + 1) / fps
