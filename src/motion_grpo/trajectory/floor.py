"""Height of the floor under a head trajectory: from a point cloud, or from the head alone."""

import numpy as np
from jaxtyping import Float64
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks
from scipy.spatial import KDTree

STANDING_EYE_HEIGHT = 1.57
"""Meters: mean of the standing eye heights of men (1.63) and women (1.52) in ANSUR (Gordon et al. 1989), which vary by
0.07 m (one standard deviation)."""
STANDING_QUANTILE = 0.9
# The floor lies this far under the head at its usual highest: sitting on the ground ... standing tall.
_BELOW_HEAD = (0.6, 2.3)
_NEAR = 3.0
_BIN = 0.02
_STRONG = 0.25
_MIN_POINTS = 30


def floor_from_head(heights: Float64[np.ndarray, " frames"]) -> float:
    """Estimates the floor's height from the eyes' heights alone, in meters.

    Assumes that the wearer stands upright for at least a tenth of the recording: the 0.9 quantile of the height is
    taken as a standing adult's eye height, 1.57 m. Good to about 0.1 m for standing adults (shoes and posture
    included), too low by about 0.4 m when the wearer sits throughout, and meaningless across stairs. A measured floor
    is always better.
    """
    return float(np.quantile(heights, STANDING_QUANTILE)) - STANDING_EYE_HEIGHT


def floor_from_points(points: Float64[np.ndarray, "points 3"], head: Float64[np.ndarray, "frames 3"]) -> float | None:
    """Height of the floor in a z-up point cloud, in meters, or None where the cloud shows no floor. Deterministic.

    Points within 3 m (horizontally) of the head's path and 0.6 to 2.3 m under its usual highest are counted by height
    in bins of 2 cm, smoothed by one bin. The floor is the lowest peak with at least a quarter of the highest one's
    count, so a table top with more texture than the floor does not win; it is refined to the median of the points
    within 3 cm.
    """
    cells = np.unique(np.round(head[:, :2] / 0.25), axis=0) * 0.25
    top = np.quantile(head[:, 2], STANDING_QUANTILE)
    z = points[:, 2]
    points = points[(z > top - _BELOW_HEAD[1]) & (z < top - _BELOW_HEAD[0])]
    if len(points) < _MIN_POINTS:
        return None
    distances, _ = KDTree(cells).query(points[:, :2], distance_upper_bound=_NEAR)
    z = points[np.isfinite(distances), 2]
    edges = np.arange(top - _BELOW_HEAD[1], top - _BELOW_HEAD[0] + _BIN, _BIN)
    counts = gaussian_filter1d(np.histogram(z, edges)[0].astype(np.float64), 1.0, mode="constant")
    if counts.max() == 0:
        return None
    peaks, _ = find_peaks(np.pad(counts, 1), height=_STRONG * counts.max())
    peak = edges[peaks[0] - 1] + _BIN / 2
    level = z[np.abs(z - peak) < 0.03]
    return float(np.median(level)) if len(level) >= _MIN_POINTS else None
