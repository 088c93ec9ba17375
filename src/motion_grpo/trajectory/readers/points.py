"""Point clouds of Project Aria's Machine Perception Services (MPS)."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from motion_grpo.trajectory.readers.tables import read_table

# "Nominal threshold values" of the MPS documentation (semi-dense point cloud): 1/m and m.
_MAX_INV_DIST_STD, _MAX_DIST_STD = 0.005, 0.01


def read_points(path: str | os.PathLike[str], graph_uid: str | None = None) -> Float64[np.ndarray, "points 3"]:
    """Reads the well-located points of an MPS ``semidense_points.csv.gz`` (older: ``global_points.csv.gz``), meters.

    Keeps points with inv_dist_std < 0.005 1/m and dist_std < 0.01 m (the documented nominal thresholds), of one world
    ``graph_uid`` if given, in the coordinates of the closed-loop trajectory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: missing columns or unreadable rows.
    """
    path = Path(path)
    xyz = ["px_world", "py_world", "pz_world"]
    columns = dict.fromkeys([*xyz, "inv_dist_std", "dist_std"], pa.float64())
    if graph_uid is not None:
        columns["graph_uid"] = pa.dictionary(pa.int32(), pa.string())
    table = read_table(path, columns, "an MPS point cloud")
    keep = (table["inv_dist_std"].to_numpy() < _MAX_INV_DIST_STD) & (table["dist_std"].to_numpy() < _MAX_DIST_STD)
    if graph_uid is not None:
        keep &= table["graph_uid"].to_pandas().to_numpy() == graph_uid
    points = np.stack([table[name].to_numpy()[keep] for name in xyz], axis=1)
    return points[np.isfinite(points).all(1)]
