"""Reading a head trajectory from any file the library knows, told apart by content."""

import contextlib
import gzip
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import roma
import torch
from jaxtyping import Float64
from torch import Tensor

from motion_grpo.trajectory.aria import check_extrinsic, find_trajectory, read_aria
from motion_grpo.trajectory.checks import (
    ArrayLike,
    Origin,
    as_float64,
    as_points,
    pose_matrix,
    read_as_xyzw,
    refuse_swapped_quaternions,
    rotations_from_quaternions,
    split_poses,
)
from motion_grpo.trajectory.conventions import Convention, named_convention
from motion_grpo.trajectory.head_trajectory import HeadTrajectory
from motion_grpo.trajectory.tables import column_names, read_header, read_table, require_columns

# Seconds per unit of each name that a time column may have.
_TIME_COLUMNS = {
    "timestamp": 1.0, "time": 1.0, "t": 1.0, "timestamp_s": 1.0,
    "timestamp_ms": 1e-3, "timestamp_us": 1e-6, "timestamp_ns": 1e-9,
}  # fmt: skip
_QUATERNION = ["qw", "qx", "qy", "qz"]


def load_trajectory(
    path: str | os.PathLike[str],
    *,
    T_device_cpf: ArrayLike | None = None,
    device: str = "gen1",
    vrs: str | os.PathLike[str] | None = None,
    convention: str | Convention | None = None,
    fps: float | int | None = None,
    floor_height: float | int | None = None,
    points: ArrayLike | str | os.PathLike[str] | None = None,
    world_uid: str | None = None,
    on_gap: str = "error",
) -> HeadTrajectory | list[HeadTrajectory]:
    """Reads the head trajectory in a file or folder; what kind it is follows from the content.

    - Project Aria (MPS closed or open loop, ADT; CSV, CSV.GZ or a folder with them): ``read_aria``. ``device``,
      ``vrs`` and ``world_uid`` are for these files.
    - TUM text (``time tx ty tz qx qy qz qw``): ``read_tum``; CSV with named columns: ``read_csv``; npz: ``read_npz``.
      Their poses are the CPF's in a z-up world, unless ``convention`` or ``T_device_cpf`` says otherwise.

    Args:
        T_device_cpf: (4, 4) or (7,) wxyz + xyz, metres: the CPF in the frame whose poses the file holds.
        convention: axes of the file's world and head (``openxr``, ``unity``, ...).
        fps: rate of a file without timestamps.
        floor_height: height of the floor along the file's up axis, metres; found or estimated without it.
        points: (points, 3) in the file's world, or an MPS point-cloud file.
        on_gap: where more than 0.5 s pass without a pose: ``error``; ``split`` returns the list of the pieces; ``keep``
            returns the trajectory as it is (it cannot be resampled).

    Raises:
        FileNotFoundError: no such file, or a folder without a trajectory.
        ValueError: bad content (file, line and remedy are named), or arguments that do not suit the kind of file.
    """
    if on_gap not in ("error", "split", "keep"):
        raise ValueError(f"on_gap is '{on_gap}'; use 'error', 'split' or 'keep'.")
    path = Path(path)
    if path.is_dir():
        path = find_trajectory(path)
    kind = _kind(path)
    if kind == "aria":
        if convention is not None or fps is not None:
            raise ValueError(f"{path} is an Aria file, which says itself what is up and when: drop convention and fps.")
        options = {"T_device_cpf": T_device_cpf, "device": device, "vrs": vrs, "world_uid": world_uid}
        trajectory = read_aria(path, floor_height=floor_height, points=points, **options)
    else:
        if vrs is not None or world_uid is not None:
            raise ValueError(f"{path} is no Aria file; vrs and world_uid are for those only.")
        if isinstance(points, str | os.PathLike):
            raise ValueError(
                "points as a file is for Aria recordings; pass an array (points, 3) in the trajectory's world."
            )
        options = dict(T_device_cpf=T_device_cpf, convention=convention, floor_height=floor_height, points=points)
        if kind == "tum":
            trajectory = read_tum(path, **options)
        else:
            trajectory = {"csv": read_csv, "npz": read_npz}[kind](path, fps=fps, **options)
    if on_gap == "error":
        trajectory.refuse_gaps()
    return trajectory.split_at_gaps() if on_gap == "split" else trajectory


def _kind(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".npz" or zipfile.is_zipfile(path):
        return "npz"
    if path.suffix == ".vrs":
        raise ValueError(
            f"{path} is a recording, not a trajectory: pass the MPS closed_loop_trajectory.csv, with vrs={path.name}."
        )
    header = read_header(path)
    if "tracking_timestamp_us" in header:
        return "aria"
    words = header.replace(",", " ").split()
    if header.startswith("#") or (len(words) == 8 and all(_is_number(word) for word in words)):
        return "tum"
    if len(column_names(header)) > 1:
        return "csv"
    raise ValueError(
        f"{path} is none of the trajectories known here: Aria CSV, TUM (time tx ty tz qx qy qz qw), CSV with named "
        "columns, npz."
    )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def read_tum(
    path: str | os.PathLike[str],
    *,
    T_device_cpf: ArrayLike | None = None,
    convention: str | Convention | None = None,
    floor_height: float | int | None = None,
    points: ArrayLike | None = None,
) -> HeadTrajectory:
    """Reads TUM text: ``time tx ty tz qx qy qz qw`` a line (seconds, metres), blanks or commas between, # for comments.

    Raises:
        ValueError: a line without 8 numbers, bad poses or times. Poses are counted from 0, without comments.
    """
    path = Path(path)
    first_line = read_header(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "input contained no data", said better below
            rows = np.loadtxt(path, comments="#", delimiter="," if "," in first_line else None, ndmin=2)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as TUM text. {_bad_tum_line(path) or error}") from error
    if rows.size == 0:
        raise ValueError(f"{path} holds no poses.")
    if rows.shape[1] != 8:
        raise ValueError(f"{path} cannot be read as TUM text. {_bad_tum_line(path)}")
    rows = torch.from_numpy(rows)
    xyzw, origin = rows[:, 4:], Origin(str(path))
    R = rotations_from_quaternions(roma.quat_xyzw_to_wxyz(xyzw), origin)
    if T_device_cpf is None and convention is None:
        R_swapped = roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(xyzw / xyzw.norm(dim=1, keepdim=True)))
        refuse_swapped_quaternions(R, R_swapped, "w x y z, and TUM text has w last", origin)
    return _finish(
        R, rows[:, 1:4], origin, T_device_cpf, convention, points, timestamps=rows[:, 0], floor_height=floor_height
    )


def _bad_tum_line(path: Path) -> str:
    """What is wrong with the first line that is not 8 numbers."""
    opener = gzip.open if path.suffix == ".gz" else open
    with contextlib.suppress(OSError, EOFError), opener(path, "rt") as file:
        for number, line in enumerate(file, start=1):
            words = line.partition("#")[0].replace(",", " ").split()
            if words and (len(words) != 8 or not all(_is_number(word) for word in words)):
                return f"Line {number} is no row of the 8 numbers time tx ty tz qx qy qz qw: {line.strip()[:80]!r}."
    return ""


def read_csv(
    path: str | os.PathLike[str],
    *,
    T_device_cpf: ArrayLike | None = None,
    convention: str | Convention | None = None,
    fps: float | int | None = None,
    floor_height: float | int | None = None,
    points: ArrayLike | None = None,
) -> HeadTrajectory:
    """Reads a CSV (or CSV.GZ) whose header names its columns, in any order: e.g. ``timestamp,x,y,z,qw,qx,qy,qz``.

    Position ``x y z`` (or ``tx ty tz``), metres; quaternion ``qw qx qy qz``; time ``timestamp``, ``time`` or ``t`` in
    seconds, or ``timestamp_ms``, ``timestamp_us``, ``timestamp_ns``; without a time column ``fps`` is needed. Others
    are ignored.

    Raises:
        ValueError: missing columns (named), damaged rows, bad poses or times (the line is named).
    """
    path = Path(path)
    names = column_names(read_header(path))
    position = ["tx", "ty", "tz"] if "tx" in names else ["x", "y", "z"]
    time = next((name for name in _TIME_COLUMNS if name in names), None)
    if time is None and fps is None:
        require_columns(path, names, ["timestamp"], "a trajectory (or pass fps)")
    columns = [*position, *_QUATERNION] + ([time] if time else [])
    table = read_table(path, dict.fromkeys(columns, pa.float64()), "a head trajectory")
    data = {name: torch.from_numpy(table[name].to_numpy().copy()) for name in columns}
    origin = Origin(str(path), header_lines=1)
    R = rotations_from_quaternions(torch.stack([data[name] for name in _QUATERNION], dim=1), origin)
    p = torch.stack([data[name] for name in position], dim=1)
    when = {"timestamps": data[time] * _TIME_COLUMNS[time]} if time else {"fps": fps}
    return _finish(R, p, origin, T_device_cpf, convention, points, floor_height=floor_height, **when)


def read_npz(
    path: str | os.PathLike[str],
    *,
    T_device_cpf: ArrayLike | None = None,
    convention: str | Convention | None = None,
    fps: float | int | None = None,
    floor_height: float | int | None = None,
    points: ArrayLike | None = None,
) -> HeadTrajectory:
    """Reads an npz with ``T_world_cpf``, (frames, 7) wxyz + xyz or (frames, 4, 4), and ``timestamps`` (seconds).

    Instead of ``timestamps`` the file may hold ``fps``, or it is given here; ``floor_height`` (metres) is optional,
    and the argument goes before it. Nothing is unpickled.

    Raises:
        ValueError: no npz, missing arrays (named), pickled arrays, bad poses or times.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            wanted = ("T_world_cpf", "timestamps", "fps", "floor_height")
            arrays = {name: file[name] for name in wanted if name in file.files}
            present = list(file.files)
    except FileNotFoundError:
        raise
    except (ValueError, OSError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an npz of plain arrays: {error}") from error
    require_columns(path, present, ["T_world_cpf"], "a head trajectory")
    if "timestamps" not in arrays and fps is None:
        require_columns(path, present, ["fps"], "a head trajectory without timestamps")
        fps = float(arrays["fps"])
    when = {"timestamps": arrays["timestamps"]} if "timestamps" in arrays else {"fps": fps}
    if floor_height is None and "floor_height" in arrays:
        floor_height = float(arrays["floor_height"])
    poses, origin = as_float64(arrays["T_world_cpf"], "T_world_cpf"), Origin(str(path))
    R, p = split_poses(poses, origin)
    if poses.ndim == 2 and T_device_cpf is None and convention is None:
        refuse_swapped_quaternions(R, read_as_xyzw(poses[:, :4]), "x y z w", origin)
    return _finish(R, p, origin, T_device_cpf, convention, points, floor_height=floor_height, **when)


def _finish(
    R: Float64[Tensor, "frames 3 3"],
    p: Float64[Tensor, "frames 3"],
    origin: Origin,
    T_device_cpf: ArrayLike | None,
    convention: str | Convention | None,
    points: ArrayLike | None,
    **options: object,
) -> HeadTrajectory:
    """The trajectory of a file's poses, taken from the file's axes, or from its device's frame, to the CPF."""
    if convention is not None and T_device_cpf is not None:
        raise ValueError(
            "Both convention and T_device_cpf are given; pass one. T_device_cpf is for poses in a z-up world."
        )
    convention = named_convention(convention or "cpf")
    R, p = convention.convert(R, p)
    if points is not None:
        points = convention.convert_points(as_points(points))
    source_frame = str(convention)
    if T_device_cpf is not None:
        R_device_cpf, p_device_cpf = check_extrinsic(T_device_cpf)
        R, p = R @ R_device_cpf, p + R @ p_device_cpf
        source_frame = "device (given extrinsic)"
        T_device_cpf = pose_matrix(R_device_cpf, p_device_cpf)
    return HeadTrajectory.from_rotations(
        R, p, points=points, origin=origin, source_frame=source_frame, T_device_cpf=T_device_cpf, **options
    )
