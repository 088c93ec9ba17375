"""Times in a row: their rate, and which of them is the nearest."""

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor


def frame_rate(timestamps: Float64[Tensor, " frames"]) -> float:
    """Frames per second of at least two evenly spaced times, seconds: 30.0 of what was sampled at 30.0.

    Times are rounded (those of a clock that counts from 1970 to 2e-7 s), and so is what follows from their
    differences; of all rates that such times can have, the one that takes the fewest digits is meant.
    """
    duration = float(timestamps[-1] - timestamps[0])
    return _plainest((len(timestamps) - 1) / duration, duration, timestamps)


def median_rate(timestamps: Float64[Tensor, " frames"]) -> float:
    """The same of times that need not be evenly spaced: that of the median step."""
    step = float(timestamps.diff().median())
    return _plainest(1.0 / step, step, timestamps)


def nearest(times: Float64[Tensor, " observations"], wanted: Float64[Tensor, " frames"]) -> Int64[Tensor, " frames"]:
    """The time nearest to each wanted one, by its place; the earlier one of two."""
    after = torch.searchsorted(times, wanted).clamp(max=len(times) - 1)
    before = (after - 1).clamp(min=0)
    return torch.where((wanted - times[before]).abs() <= (times[after] - wanted).abs(), before, after)


def _plainest(rate: float, span: float, timestamps: Float64[Tensor, " frames"]) -> float:
    """The number of fewest digits that differs from ``rate`` by no more than rounding does.

    Args:
        span: the difference of two times that the rate was computed from, seconds.
    """
    rounding = 2 * float(np.spacing(max(abs(float(timestamps[0])), abs(float(timestamps[-1])))))
    tolerance = rate * max(rounding / span, 1e-12)
    return next((round(rate, digits) for digits in range(13) if abs(round(rate, digits) - rate) <= tolerance), rate)
