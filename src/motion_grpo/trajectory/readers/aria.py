"""Project Aria: trajectories of its Machine Perception Services (MPS), of Aria Digital Twin (ADT), and the CPF."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float64
from torch import Tensor

from motion_grpo.geometry.rotations import project_to_rotation, rotation_to_z
from motion_grpo.trajectory.checks import (
    ArrayLike,
    Origin,
    as_points,
    check_extrinsic,
    check_finite,
    pose_matrix,
    rotations_from_quaternions,
)
from motion_grpo.trajectory.conventions import CONVENTIONS
from motion_grpo.trajectory.head_trajectory import HeadTrajectory
from motion_grpo.trajectory.readers.points import read_points
from motion_grpo.trajectory.readers.tables import column_names, read_header, read_table
from motion_grpo.trajectory.upright import check_upright

# Pose of the left (front) SLAM camera, which is the device frame, in the CPF of the CAD model: position in meters, y
# axis and z axis. From the CAD tables of projectaria_tools (core/calibration/ConfigData.cpp, Apache-2.0, Meta
# Platforms).
_CAD_CPF_DEVICE = {
    "gen1": ((0.069051, 0.002372, 0.009254), (0.793353, 0.0, -0.608761), (0.607927, -0.052336, 0.792266)),
    "gen1-large": ((0.071351, 0.002372, 0.008454), (0.793353, 0.0, -0.608761), (0.607927, -0.052336, 0.792266)),
    "gen2": (
        (0.067294194, 0.006033819, 0.011768852), (-0.138127, -0.912873, -0.384166), (0.308866, -0.408244, 0.859034),
    ),
    "gen2-large": (
        (0.071078827, 0.005719893, 0.01155452), (-0.138127, -0.912873, -0.384166), (0.308866, -0.408244, 0.859034),
    ),
}  # fmt: skip
_POINT_CLOUDS = ("semidense_points.csv.gz", "semidense_points.csv", "global_points.csv.gz", "global_points.csv")
_TRAJECTORIES = tuple(
    stem + suffix
    for stem in ("closed_loop_trajectory", "aria_trajectory", "aria_gt_trajectory", "open_loop_trajectory")
    for suffix in (".csv", ".csv.gz")
)


def default_T_device_cpf(device: str = "gen1") -> Float64[Tensor, "4 4"]:
    """T_device_cpf of the glasses' CAD model, meters: the CPF, between the eyes, in the device frame.

    ``gen1`` and ``gen2`` are the small frames (builds DVT-S, DVT_S*), ``gen1-large`` and ``gen2-large`` the large ones
    (DVT-L, DVT_L*), 2 and 4 mm apart. The device frame is the left (front) SLAM camera, 7 cm from the CPF.

    Source: CAD tables of projectaria_tools. For Gen 1 they are also what ``get_transform_device_cpf()`` gives (2.3.0).
    Accuracy: real glasses differ from the CAD. Fitting the calibrated cameras of three Gen 1 recordings and one of Gen
    2 to it moves the CPF by 0.5 to 1 mm and turns it by 0.4 to 5.3 degrees, and how the glasses sit on the nose adds
    to that: good for body motion, but a recording's own calibration or a measured matrix is better.

    Raises:
        ValueError: another device.
    """
    if device not in _CAD_CPF_DEVICE:
        raise ValueError(
            f"No default extrinsic is known for the device '{device}' (known: {', '.join(_CAD_CPF_DEVICE)}). Give its "
            "T_device_cpf (a 4x4 matrix), or the recording's VRS file (vrs=...)."
        )
    position, y, z = torch.tensor(_CAD_CPF_DEVICE[device], dtype=torch.float64)
    y, z = torch.nn.functional.normalize(y, dim=0), torch.nn.functional.normalize(z, dim=0)
    T_device_cpf = torch.eye(4, dtype=torch.float64)
    T_device_cpf[:3, :3] = project_to_rotation(torch.stack([torch.linalg.cross(y, z), y, z], dim=1)).mT
    T_device_cpf[:3, 3] = -T_device_cpf[:3, :3] @ position
    return T_device_cpf


def vrs_T_device_cpf(vrs: str | os.PathLike[str]) -> Float64[Tensor, "4 4"]:
    """T_device_cpf from the calibration in a VRS recording, meters. Needs the ``aria`` extra (projectaria-tools).

    Raises:
        ImportError: projectaria-tools is not installed.
        FileNotFoundError: no such file.
        ValueError: no VRS recording, or one without calibration.
    """
    if not Path(vrs).is_file():
        raise FileNotFoundError(f"There is no file {vrs}.")
    try:
        from projectaria_tools.core import data_provider  # pyright: ignore[reportMissingImports]  (an extra)
    except ImportError as error:
        raise ImportError(
            "Reading the calibration of a VRS file needs projectaria-tools: pip install 'motion-grpo[aria]' (or give "
            "T_device_cpf as a matrix)."
        ) from error
    provider = data_provider.create_vrs_data_provider(str(vrs))
    calibration = provider.get_device_calibration() if provider is not None else None
    if calibration is None:
        raise ValueError(f"{vrs} holds no device calibration; give T_device_cpf as a 4x4 matrix instead.")
    return torch.tensor(calibration.get_transform_device_cpf().to_matrix(), dtype=torch.float64)


def _device_extrinsic(
    T_device_cpf: ArrayLike | None, vrs: str | os.PathLike[str] | None, device: str | None
) -> tuple[ArrayLike, str]:
    if T_device_cpf is not None and vrs is not None:
        raise ValueError("Both T_device_cpf and vrs=... say where the CPF is on the device; pass one of them.")
    if T_device_cpf is not None:
        return T_device_cpf, "given extrinsic"
    if vrs is not None:
        return vrs_T_device_cpf(vrs), "VRS calibration"
    device = device or "gen1"
    return default_T_device_cpf(device), f"{device} default extrinsic"


def find_trajectory(folder: Path) -> Path:
    """The trajectory in an MPS or ADT folder: closed loop before ground truth before open loop.

    Raises:
        FileNotFoundError: none of the known names in the folder or its slam, trajectory and mps/slam subfolders.
    """
    for inner in (folder, folder / "slam", folder / "trajectory", folder / "mps" / "slam"):
        for name in _TRAJECTORIES:
            if (inner / name).is_file():
                return inner / name
    raise FileNotFoundError(
        f"{folder} holds no trajectory; looked for {', '.join(_TRAJECTORIES[::2])} (or .csv.gz), also in slam/."
    )


def read_aria(
    path: str | os.PathLike[str],
    *,
    T_device_cpf: ArrayLike | None = None,
    device: str | None = None,
    vrs: str | os.PathLike[str] | None = None,
    floor_height: float | int | None = None,
    points: ArrayLike | str | os.PathLike[str] | None = None,
    world_uid: str | None = None,
) -> HeadTrajectory:
    """Reads MPS ``closed_loop_trajectory.csv`` or ``open_loop_trajectory.csv``, or ADT ``aria_trajectory.csv``.

    The file's poses are the device's: T_world_cpf = T_world_device @ T_device_cpf. The file's gravity decides what is
    up; another up axis is turned to z by the smallest rotation (ADT: (x, y, z) becomes (x, -z, y)).

    The floor is ``floor_height`` (along the file's up axis, meters), or found in ``points``, or in the point cloud
    beside a closed-loop file; for a y-up file (ADT) it is at 0, as in that data set, whose optical tracking puts the
    origin on the floor (the lowest of its body markers are at 0.04 m); else it is estimated from the head. An
    open-loop file has a world of its own, so a point cloud beside it is not used.

    Args:
        path: the CSV, plain or gzipped, or an MPS or ADT folder. Only the pose columns are read.
        T_device_cpf: (4, 4) or (7,) wxyz + xyz, meters; else ``vrs``'s calibration; else
            ``default_T_device_cpf(device)``, where ``gen1`` is meant if nobody says.
        points: (points, 3) in the file's world, meters, or an MPS point-cloud file.
        world_uid: which world to read, for a file with several (its graph_uid, or session_uid if open loop).

    Raises:
        FileNotFoundError: no such file, or no trajectory in the folder.
        ValueError: missing columns, damaged rows, bad poses or times (the line is named), several worlds.
    """
    path = Path(path)
    if path.is_dir():
        path = find_trajectory(path)
    names = column_names(read_header(path))
    world, uid = ("odometry", "session_uid") if "tx_odometry_device" in names else ("world", "graph_uid")
    translation = [f"t{axis}_{world}_device" for axis in "xyz"]
    quaternion = [f"q{axis}_{world}_device" for axis in "wxyz"]
    # The first release of ADT names gravity without its world.
    suffix = "" if {"gravity_x", "gravity_y", "gravity_z"} <= set(names) else f"_{world}"
    down = [f"gravity_{axis}{suffix}" for axis in "xyz"]
    columns = dict.fromkeys(["tracking_timestamp_us", *translation, *quaternion, *down], pa.float64())
    if uid in names:
        columns[uid] = pa.dictionary(pa.int32(), pa.string())
    T_device_cpf, extrinsic = _device_extrinsic(T_device_cpf, vrs, device)
    R_device_cpf, p_device_cpf = check_extrinsic(T_device_cpf)

    table = read_table(path, columns, f"an Aria {'open' if world == 'odometry' else 'closed'}-loop trajectory")
    origin = Origin.file(path, range(2, table.num_rows + 2))
    if uid in names:
        kept = _one_world(table[uid], uid, world_uid, path)
        if world_uid is not None:
            lines = (np.flatnonzero(kept) + 2).tolist()
            table, origin = (
                table.filter(pa.array(kept)),
                replace(origin, source=f"{path} ({uid} {world_uid})", lines=lines),
            )

    def stack(columns):
        return torch.from_numpy(np.stack([table[name].to_numpy() for name in columns], axis=1))

    R_world_device = rotations_from_quaternions(stack(quaternion), origin)
    p_world_device = stack(translation)
    gravity = stack(down)
    check_finite(gravity, "gravity", origin)
    gravity = gravity.mean(0)
    if not 9.0 < gravity.norm() < 10.5:
        raise ValueError(
            f"{path} has a mean gravity of {gravity.tolist()} m/s^2; a vector of about 9.81 is needed to know what is "
            "up."
        )
    R_up = rotation_to_z(-gravity / gravity.norm())

    floor_source = "given"
    y_up = bool(-gravity[1] > 0.99 * gravity.norm())
    if floor_height is None and points is None and world == "world":
        if y_up:
            floor_height, floor_source = 0.0, "ADT convention"
        else:
            points = next((path.parent / name for name in _POINT_CLOUDS if (path.parent / name).is_file()), None)
    points_up = None
    if floor_height is None and points is not None:
        cloud = read_points(points, world_uid) if isinstance(points, str | os.PathLike) else points
        points_up = as_points(cloud) @ R_up.mT
    R_world_cpf = R_up @ R_world_device @ R_device_cpf
    other = f"Glasses of another generation have other axes: {origin.giving('device=...')}."
    check_upright(R_world_cpf, p_world_device, CONVENTIONS["cpf"], origin, axes_given=True, remedy=other)
    return HeadTrajectory.from_rotations(
        R_world_cpf,
        (p_world_device + R_world_device @ p_device_cpf) @ R_up.mT,
        timestamps=table["tracking_timestamp_us"].to_numpy() / 1e6,
        floor_height=floor_height,
        floor_source=floor_source,
        points=points_up,
        origin=origin,
        source_frame=f"aria device ({extrinsic})",
        axes_checked=True,
        T_device_cpf=pose_matrix(R_device_cpf, p_device_cpf),
    )


def world_uids(path: str | os.PathLike[str]) -> list[str]:
    """The worlds of an Aria trajectory file with at least two poses, by their first; they have no common place."""
    path = Path(path)
    names = column_names(read_header(path))
    uid = next((name for name in ("graph_uid", "session_uid") if name in names), None)
    if uid is None:
        return []
    counts = _counts(read_table(path, {uid: pa.dictionary(pa.int32(), pa.string())}, "an Aria trajectory")[uid])
    return [name for name, count in counts.items() if count > 1]


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How many poses each world has, in the order of their first."""
    return {row["values"]: row["counts"] for row in column.cast(pa.string()).value_counts().to_pylist()}


def _one_world(column: pa.ChunkedArray, uid: str, wanted: str | None, path: Path) -> np.ndarray:
    """Which rows belong to the wanted world; refuses a file with several if none is wanted."""
    counts = _counts(column)
    listed = ", ".join(f"{name} ({count} poses)" for name, count in counts.items())
    if wanted is None and len(counts) > 1:
        longest = max(counts, key=counts.__getitem__)
        raise ValueError(
            f"{path} holds {len(counts)} worlds that are not registered to each other: {listed}. Read one with "
            f"load_trajectory(path, world_uid='{longest}'), or each by itself with load_segments(path)."
        )
    if wanted is not None and wanted not in counts:
        raise ValueError(f"{path} has no {uid} '{wanted}'; it has {listed}.")
    return (column.to_pandas() == wanted).to_numpy()
