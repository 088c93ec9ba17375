"""Reading a head trajectory from any file the library knows, told apart by content."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from motion_grpo.trajectory.checks import (
    ArrayLike,
    Origin,
    as_float64,
    as_points,
    check_extrinsic,
    check_finite,
    pose_matrix,
    read_as_xyzw,
    rotations_from_quaternions,
    split_poses,
)
from motion_grpo.trajectory.conventions import CONVENTIONS, Convention, named_convention
from motion_grpo.trajectory.head_trajectory import HeadTrajectory
from motion_grpo.trajectory.plausibility import median_speed, warn_if_implausible
from motion_grpo.trajectory.readers.aria import find_trajectory, read_aria, world_uids
from motion_grpo.trajectory.readers.columns import (
    TUM_COLUMNS,
    TUM_NAMES,
    PoseColumns,
    TimeColumn,
    find_columns,
    looks_like_names,
)
from motion_grpo.trajectory.readers.tables import TextTable, read_header, read_text_table, require_columns, split_names
from motion_grpo.trajectory.upright import check_upright

_UNITS = {1.0: "seconds", 1e-3: "milliseconds", 1e-6: "microseconds", 1e-9: "nanoseconds"}
# Faster than this on average, no head has moved: what the unit of its times was taken for is wrong.
_MAX_SPEED = 15.0


def load_trajectory(
    path: str | os.PathLike[str],
    *,
    T_device_cpf: ArrayLike | None = None,
    device: str | None = None,
    vrs: str | os.PathLike[str] | None = None,
    convention: str | Convention | None = None,
    fps: float | int | None = None,
    floor_height: float | int | None = None,
    points: ArrayLike | str | os.PathLike[str] | None = None,
    world_uid: str | None = None,
) -> HeadTrajectory:
    """Reads the head trajectory in a file or folder; what kind it is follows from the content.

    - Project Aria (MPS closed or open loop, ADT; CSV, CSV.GZ or a folder with them): ``read_aria``. ``device``,
      ``vrs`` and ``world_uid`` are for these files.
    - Text with a pose a line (TUM, EuRoC, CSV of any logger): ``read_text``; npz: ``read_npz``. Their poses are the
      CPF's in a z-up world, unless ``convention`` or ``T_device_cpf`` says otherwise; a file whose head is not upright
      so is refused, with what its axes look like.

    Args:
        T_device_cpf: (4, 4) or (7,) wxyz + xyz, meters: the CPF in the frame whose poses the file holds.
        device: Aria glasses whose CAD extrinsic is used, ``gen1`` if nobody says (``default_T_device_cpf``).
        vrs: VRS recording to take the glasses' own extrinsic from.
        convention: axes of the file's world and head: a name in ``CONVENTIONS`` (``openxr``, ``unity``, ...), or words.
        fps: rate of a file without timestamps.
        floor_height: height of the floor along the file's up axis, meters; found or estimated without it.
        points: (points, 3) in the file's world, or an MPS point-cloud file.
        world_uid: which world of an Aria file to read, where tracking was lost and began anew.

    Raises:
        FileNotFoundError: no such file, or a folder without a trajectory.
        ValueError: bad content (file, line and remedy are named), more than 0.5 s without a pose, or arguments that do
            not suit the kind of file.
    """
    trajectory = _read(
        path,
        T_device_cpf=T_device_cpf,
        device=device,
        vrs=vrs,
        convention=convention,
        fps=fps,
        floor_height=floor_height,
        points=points,
        world_uid=world_uid,
    )
    trajectory.refuse_gaps(remedy="load_segments(path)")
    warn_if_implausible(trajectory)
    return trajectory


def load_segments(path: str | os.PathLike[str], **options: Any) -> list[HeadTrajectory]:
    """The pieces of a recording in which a gap of more than 0.5 s, or a change of worlds, stops a trajectory.

    Args:
        path: as of ``load_trajectory``.
        options: as of ``load_trajectory``; with ``world_uid`` the pieces in that world alone.

    Returns:
        At least one piece; those of a single pose are dropped. Each world's floor is found on its own.

    Raises:
        FileNotFoundError, ValueError: as ``load_trajectory``, but for gaps; no two poses on end.
    """
    path = _file(path)
    worlds: list[str | None] = [options.pop("world_uid", None)]
    if worlds == [None] and file_kind(path) == "aria":
        uids = world_uids(path)
        worlds = [*uids] if len(uids) > 1 else worlds
    pieces = [
        piece for uid in worlds for piece in _read(path, world_uid=uid, **options).split_at_gaps() if len(piece) > 1
    ]
    if not pieces:
        raise ValueError(f"{path} has no two poses less than 0.5 s apart.")
    for piece in pieces:
        warn_if_implausible(piece)
    return pieces


def _read(
    path: str | os.PathLike[str],
    *,
    T_device_cpf: ArrayLike | None = None,
    device: str | None = None,
    vrs: str | os.PathLike[str] | None = None,
    convention: str | Convention | None = None,
    fps: float | int | None = None,
    floor_height: float | int | None = None,
    points: ArrayLike | str | os.PathLike[str] | None = None,
    world_uid: str | None = None,
) -> HeadTrajectory:
    """As ``load_trajectory``, gaps and all."""
    path = _file(path)
    kind = file_kind(path)
    if kind == "aria":
        for name, value in (("convention", convention), ("fps", fps)):
            if value is not None:
                raise ValueError(f"{path} is an Aria file, which says itself what is up and when; leave out {name}=...")
        options = {"T_device_cpf": T_device_cpf, "device": device, "vrs": vrs, "world_uid": world_uid}
        return read_aria(path, floor_height=floor_height, points=points, **options)
    for name, value in (("device", device), ("vrs", vrs), ("world_uid", world_uid)):
        if value is not None:
            raise ValueError(f"{path} is no Aria file; {name}=... is for those only.")
    if isinstance(points, str | os.PathLike):
        raise ValueError(
            "points as a file is for Aria recordings; pass an array (points, 3) in the trajectory's world."
        )
    read = read_npz if kind == "npz" else read_text
    return read(
        path, T_device_cpf=T_device_cpf, convention=convention, fps=fps, floor_height=floor_height, points=points
    )


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    path = find_trajectory(path) if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    return path


def file_kind(path: Path) -> str:
    """``aria``, ``npz`` or ``text``, by the content."""
    if path.suffix == ".npz" or zipfile.is_zipfile(path):
        return "npz"
    if path.suffix == ".vrs":
        raise ValueError(
            f"{path} is a recording, not a trajectory: pass the MPS closed_loop_trajectory.csv, with vrs={path.name}."
        )
    with path.open("rb") as file:
        wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    return "aria" if not wide and "tracking_timestamp_us" in read_header(path) else "text"


def read_text(
    path: str | os.PathLike[str],
    *,
    T_device_cpf: ArrayLike | None = None,
    convention: str | Convention | None = None,
    fps: float | int | None = None,
    floor_height: float | int | None = None,
    points: ArrayLike | None = None,
) -> HeadTrajectory:
    """Reads text with a pose a line: TUM, EuRoC, and CSV of any logger, plain or gzipped.

    The columns' names, in a first line or in a comment above the rows, decide what is what, in any order:
    ``timestamp,x,y,z,qw,qx,qy,qz``, ``HeadPosX``, ``Position X [m]``, ``p_RS_R_x``, ``rot_w`` (``find_columns``). Rows
    without names are TUM's: ``time tx ty tz qx qy qz qw``. A column ``floor_height`` (meters, along the file's up axis)
    says where the floor is; other columns are ignored.

    The unit of the times is what the column's name says (``timestamp_ns``, ``Time (ms)``), else the one in which the
    poses come at 1 to 1000 Hz. Of several times the first that increases counts, a clock of the device before one of
    the wall. Without a time column ``fps`` is needed.

    Raises:
        ValueError: missing columns (all named), damaged rows, bad poses or times (the line is named), axes that leave
            the head not upright.
    """
    path = Path(path)
    table = read_text_table(path)
    names, columns = _columns(table, need_time=fps is None)
    if "tracking_timestamp_us" in names:
        raise ValueError(
            f"{path} has the columns of an Aria trajectory, but not in its first line, in UTF-8 and with "
            "commas between them: give the file as MPS wrote it."
        )
    if fps is not None and columns.times:
        raise ValueError(f"{path} has its times in the column {columns.times[0].name}; leave out fps=...")
    used = [*columns.position, *columns.quaternion, *(index for time in columns.times for index in time.indices)]
    used += [] if columns.floor_height is None else [columns.floor_height]
    values = dict(zip(used, torch.from_numpy(table.numbers(used, names).T.copy()), strict=True))
    origin = Origin.file(path, table.lines)
    wxyz = torch.stack([values[index] for index in columns.quaternion], dim=1)
    R = rotations_from_quaternions(wxyz, origin)
    p = torch.stack([values[index] for index in columns.position], dim=1)
    check_finite(p, "position", origin)
    if columns.metres_per_unit is not None:  # what the file says goes before what its system usually has
        p = p * (p.new_tensor(columns.metres_per_unit) / named_convention(convention or "cpf").metres_per_unit)
    when: dict[str, Any] = {"fps": fps}
    if columns.times:
        metres_per_unit = named_convention(convention or "cpf").metres_per_unit
        when = {"timestamps": seconds_of(columns.times, values, p * metres_per_unit, origin)}
    if floor_height is None and columns.floor_height is not None:
        floor_height = _constant(values[columns.floor_height], names[columns.floor_height], origin)
    in_file = [values[index] for index in sorted(columns.quaternion)]
    w = sorted(columns.quaternion).index(columns.quaternion[0])
    reordered = {0: torch.stack([in_file[i] for i in (3, 0, 1, 2)], 1), 3: torch.stack(in_file, 1)}.get(w)
    named = names is not TUM_NAMES
    read, other = ("w x y z", "x y z w") if w == 0 else ("x y z w", "w x y z")
    by = "the columns say" if named else "rows without column names have them"
    return _finish(
        R,
        p,
        origin,
        T_device_cpf,
        convention,
        points,
        R_reordered=None if reordered is None else rotations_from_quaternions(reordered, origin),
        order=f"{other}, and not {read} as {by}",
        # Whoever knows the axes of rows without names is likelier to have others' order than axes that look so.
        order_given=named or convention is None,
        note="" if named else f" Rows without column names are {' '.join(TUM_NAMES)}: name them if they are others.",
        floor_height=floor_height,
        **when,
    )


def _columns(table: TextTable, need_time: bool) -> tuple[list[str], PoseColumns]:
    """The name of each field of a row, and what the fields are."""
    names = names_of(table)
    if names is None:
        fields = table.fields(0)
        if len(fields) != 8:
            last = ", the last one empty" if not fields[-1] else ""
            raise ValueError(
                f"Line {table.lines[0]} of {table.path} has {len(fields)} fields{last}; a row without column names is "
                f"the 8 numbers {' '.join(TUM_NAMES)}. Name the columns in a first line, e.g. "
                "timestamp_ns,x,y,z,qw,qx,qy,qz."
            )
        return TUM_NAMES, TUM_COLUMNS
    return names, find_columns(table.path, names, need_time=need_time)


def names_of(table: TextTable) -> list[str] | None:
    """The name of each field of a row, from the header or from a comment above the rows; None where nothing names them.

    Raises:
        ValueError: a table without rows.
    """
    names = table.header or next((n for n in map(split_names, reversed(table.comments)) if looks_like_names(n)), None)
    if not table.rows:
        raise ValueError(f"{table.path} {'has a header but no rows' if names else 'holds no poses'}.")
    if names is None:
        return None
    # Some loggers end every row with a separator, but not the header.
    fields = table.fields(0)
    return names + [""] * (len(fields) - len(names) if not any(fields[len(names) :]) else 0)


def _increases(time: TimeColumn, values: dict[int, Float64[Tensor, " frames"]]) -> bool:
    return bool((_raw_times(time, values).diff() > 0).all())


def _raw_times(time: TimeColumn, values: dict[int, Float64[Tensor, " frames"]]) -> Float64[Tensor, " frames"]:
    whole, *beyond = (values[index] for index in time.indices)
    return whole + 1e-9 * beyond[0] if beyond else whole


def seconds_of(
    times: list[TimeColumn],
    values: dict[int, Float64[Tensor, " frames"]],
    p: Float64[Tensor, "frames 3"],
    origin: Origin,
) -> Float64[Tensor, " frames"]:
    """Times in seconds, of the first column in which they increase.

    Where its name has no unit, it is the one in which poses come at 1 to 1000 Hz.

    Args:
        times: at least one, best first.
        values: of the columns, by their index.
        p: where what is tracked was, meters: nothing moves at 15 m/s on average.
    """
    time = next((t for t in times if _increases(t, values)), times[0])
    raw = _raw_times(time, values)
    if time.seconds_per_unit is not None:
        return raw * time.seconds_per_unit
    step = float(raw.diff().median()) if len(raw) > 1 else 0.0
    unit = next((unit for unit, most in ((1.0, 1.0), (1e-3, 1e3), (1e-6, 1e6)) if not step >= most), 1e-9)
    speed = median_speed(raw * unit, p)
    if unit != 1.0 and speed > _MAX_SPEED:
        raise ValueError(
            f"The times of {origin.source} (column {time.name}) have no unit, and taken as {_UNITS[unit]} poses "
            f"move at {speed:.3g} m/s: name the unit, e.g. timestamp_s or timestamp_ms, and give positions in meters."
        )
    return raw * unit


def _constant(values: Float64[Tensor, " frames"], name: str, origin: Origin) -> float:
    if not bool(((values - values[0]).abs() < 1e-6).all()):
        raise ValueError(
            f"The column {name} of {origin.source} is not the same in all rows (or missing in some); a trajectory has "
            "one floor."
        )
    return float(values[0])


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

    Instead of ``timestamps`` the file may hold ``fps``, or it is given here; ``floor_height`` (meters) is optional,
    and the argument goes before it. Nothing is unpickled.

    Raises:
        ValueError: no npz, missing arrays (named), pickled arrays, bad poses or times.
    """
    path = Path(path)
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} cannot be read as an npz, or is cut off: write one with numpy.savez(path, T_world_cpf=..., "
            "timestamps=...), or let the name of a text file end in .csv or .txt."
        )
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
    timed = next((name for name in ("timestamps", "fps") if name in arrays), None)
    if fps is not None and timed:
        raise ValueError(f"{path} says with its array {timed} when its poses were taken; leave out fps=...")
    if timed is None and fps is None:
        require_columns(path, present, ["fps"], "a head trajectory without timestamps")
    if timed == "fps":
        fps = _number(arrays["fps"], "fps", path)
    when: dict[str, Any] = {"timestamps": arrays["timestamps"]} if "timestamps" in arrays else {"fps": fps}
    if floor_height is None and "floor_height" in arrays:
        floor_height = _number(arrays["floor_height"], "floor_height", path)
    poses, origin = as_float64(arrays["T_world_cpf"], "T_world_cpf"), Origin.file(path)
    R, p = split_poses(poses, origin)
    reordered = read_as_xyzw(poses[:, :4]) if poses.ndim == 2 else None
    return _finish(
        R,
        p,
        origin,
        T_device_cpf,
        convention,
        points,
        R_reordered=reordered,
        order="x y z w",
        order_given=False,
        floor_height=floor_height,
        **when,
    )


def _number(array: np.ndarray, name: str, path: Path) -> float:
    if array.size != 1 or not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"{path} has an array {name} of shape {array.shape} and type {array.dtype}; save one number.")
    return float(array.reshape(()))


def _finish(
    R: Float64[Tensor, "frames 3 3"],
    p: Float64[Tensor, "frames 3"],
    origin: Origin,
    T_device_cpf: ArrayLike | None,
    convention: str | Convention | None,
    points: ArrayLike | None,
    *,
    R_reordered: Float64[Tensor, "frames 3 3"] | None,
    order: str,
    order_given: bool,
    note: str = "",
    **options: Any,
) -> HeadTrajectory:
    """The trajectory of a file's poses, taken from the file's axes, or from its device's frame, to the CPF."""
    if convention is not None and T_device_cpf is not None:
        raise ValueError(
            "Both convention=... and T_device_cpf are given; pass one. T_device_cpf is for poses in a z-up world."
        )
    if T_device_cpf is not None:
        R_device_cpf, p_device_cpf = check_extrinsic(T_device_cpf)
        R, p = R @ R_device_cpf, p + R @ p_device_cpf
        source_frame = "device (given extrinsic)"
        check_upright(R, p, CONVENTIONS["cpf"], origin, axes_given=True, remedy="Check T_device_cpf.")
        T_device_cpf = pose_matrix(R_device_cpf, p_device_cpf)
    else:
        axes = named_convention(convention or "cpf")
        given = convention is not None
        quaternions: dict[str, Any] = {"R_reordered": R_reordered, "order": order, "order_given": order_given}
        check_upright(R, p, axes, origin, axes_given=given, note=note, **quaternions)
        R, p = axes.convert(R, p)
        points = None if points is None else axes.convert_points(as_points(points))
        source_frame = str(axes)
    return HeadTrajectory.from_rotations(
        R,
        p,
        points=points,
        origin=origin,
        source_frame=source_frame,
        axes_checked=True,
        T_device_cpf=T_device_cpf,
        **options,
    )
