"""Reads what was seen of the wrists: Project Aria's hand tracking, and CSV with named columns."""

import os
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from motion_grpo.trajectory.checks import ArrayLike, Origin
from motion_grpo.trajectory.conventions import CONVENTIONS, SIDES
from motion_grpo.trajectory.hand_observations import HandObservations, device_extrinsic, without_flag
from motion_grpo.trajectory.head_trajectory import HeadTrajectory
from motion_grpo.trajectory.readers.aria_hands import HandTracking, find_hand_tracking, read_hand_tracking
from motion_grpo.trajectory.readers.columns import find_times, find_wrist
from motion_grpo.trajectory.readers.hamer import read_hamer
from motion_grpo.trajectory.readers.load import file_kind, names_of, seconds_of
from motion_grpo.trajectory.readers.tables import TextTable, read_text_table

# Where palms face in the CPF (x left, y up, z forward) while hands are in front of the body: inward and down, the mean
# over recorded motion. Turned about the hand's own direction until it is nearest to this, a palm is right to 18 degrees
# in the median frame and to 52 in nine of ten.
_USUAL_PALM_NORMAL = torch.tensor([[-0.58, -0.52, 0.15], [0.58, -0.52, 0.15]])
_Z_UP_WORLD = f"world '{CONVENTIONS['cpf'].world}'"
_TRUTH = {"1": True, "true": True, "0": False, "false": False}


def load_hands(path: str | os.PathLike[str], trajectory: HeadTrajectory) -> HandObservations:
    """Reads what was seen of the wrists in a file, or in the MPS folder of a recording; the content says what it is.

    - Project Aria (``hand_tracking_results.csv``, ``wrist_and_palm_poses.csv``): ``read_aria_hands``.
    - CSV with named columns, which may be the trajectory's own file: ``read_hands_csv``.
    - HaMeR's detections as an npz: ``read_hamer``.

    Raises:
        FileNotFoundError: no such file, or a folder without hand tracking.
        ValueError: bad content (file and remedy are named).
    """
    path = Path(path)
    if path.is_dir():
        found = find_hand_tracking(path)
        if found is None:
            raise FileNotFoundError(f"{path} holds no hand_tracking_results.csv or wrist_and_palm_poses.csv.")
        path = found
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix in (".npz", ".pkl", ".pickle"):
        return read_hamer(path, trajectory)
    if file_kind(path) == "aria":
        return read_aria_hands(path, trajectory)
    hands = read_hands_csv(path)
    if os.path.realpath(path) != os.path.realpath(trajectory.source):
        return hands
    if trajectory.source_frame.startswith("world ") and _Z_UP_WORLD not in trajectory.source_frame:
        raise ValueError(
            f"The head of {path} was converted from {trajectory.source_frame}, and its wrists cannot be: columns of "
            "wrists are read in a z-up world. Convert the file to such a world first."
        )
    # A row of the trajectory's own file has the time that its pose got, whatever its clock.
    return replace(hands, timestamps=None) if len(hands) == len(trajectory) else hands


def read_hands_csv(path: str | os.PathLike[str]) -> HandObservations:
    """Reads named columns of a text file, which may be the trajectory's own: wrists in its z-up world.

    For each side, or for one of them: position ``left_wrist_x``, ``left_wrist_y``, ``left_wrist_z`` (meters),
    quaternion ``left_wrist_qw``, ``..._qx``, ``..._qy``, ``..._qz``, ``left_visible`` (1 or 0, true or false) and,
    if there is one, ``left_confidence``; ``right_...`` likewise. Names, separators and times are understood as
    ``read_text`` understands them; without a time a row belongs to each pose of the head.

    Raises:
        FileNotFoundError: no such file.
        ValueError: missing columns (named), wrists without ``left_visible`` or ``right_visible``, damaged rows; and as
            ``HandObservations.from_world``.
    """
    path = Path(path)
    table = read_text_table(path)
    names = names_of(table) or []
    found = {side: find_wrist(path, names, side) for side in SIDES}
    wrists = {side: columns for side, columns in found.items() if columns}
    if not wrists:
        raise ValueError(
            f"{path} has no wrists: a CSV has the columns left_wrist_x, left_wrist_y, left_wrist_z, left_wrist_qw, "
            "left_wrist_qx, left_wrist_qy, left_wrist_qz and left_visible, or right_... likewise."
        )
    flags: dict[str, int] = {}
    for side, columns in wrists.items():
        if columns.visible is None:
            raise without_flag(str(path), f"add the column {side}_visible, 1 in rows where that wrist was seen")
        flags[side] = columns.visible
    times = find_times(names)
    used = [index for columns in wrists.values() for index in columns.pose]
    used += [columns.confidence for columns in wrists.values() if columns.confidence is not None]
    used += [index for time in times for index in time.indices]
    values = dict(zip(used, torch.from_numpy(table.numbers(used, names).T.copy()), strict=True))
    frames = len(table.rows)
    poses = torch.zeros(frames, 2, 7, dtype=torch.float64)
    visible, confidence = torch.zeros(frames, 2, dtype=torch.bool), torch.zeros(frames, 2, dtype=torch.float64)
    for side, columns in wrists.items():
        index = SIDES.index(side)
        poses[:, index] = torch.stack([values[column] for column in columns.pose], dim=1)
        poses[:, index, 4:] *= poses.new_tensor(columns.metres_per_unit)
        visible[:, index] = _flags(table, flags[side], names[flags[side]])
        told = columns.confidence
        confidence[:, index] = visible[:, index].double() if told is None else values[told]
    anywhere = poses[:, SIDES.index(next(iter(wrists))), 4:]
    return HandObservations.from_world(
        poses,
        visible=visible,
        confidence=torch.where(visible, confidence, 0.0),
        timestamps=seconds_of(times, values, anywhere, Origin.file(path, table.lines)) if times else None,
        source=str(path),
    )


def read_aria_hands(
    path: str | os.PathLike[str], trajectory: HeadTrajectory, *, T_device_cpf: ArrayLike | None = None
) -> HandObservations:
    """Reads MPS ``wrist_and_palm_poses.csv`` or ``hand_tracking_results.csv``, of either version.

    ``wrist_and_palm_poses.csv`` of the first version does not say which way a palm faces: hands are then turned about
    their own direction until palms face inward and down, as they mostly do, and a warning says so.

    Args:
        trajectory: the head in the same recording.
        T_device_cpf: as in ``HandObservations.from_device``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as ``read_hand_tracking`` and ``HandObservations.from_device``.
    """
    tracking = read_hand_tracking(path).in_cpf(device_extrinsic(trajectory, T_device_cpf, str(path)))
    visible = tracking.confidence > 0
    unknown = visible & ~tracking.wrist_normals.isfinite().all(-1)
    if bool(unknown.any()):
        warnings.warn(
            f"{path} does not say which way palms face (it is of MPS's first version): they are taken to face inward "
            "and down. hand_tracking_results.csv says it.",
            stacklevel=2,
        )
        normals = torch.where(unknown[..., None], _usual_normals(tracking), tracking.wrist_normals)
        tracking = replace(tracking, wrist_normals=normals)
    return HandObservations.from_cpf(
        tracking.wrist_poses(),
        trajectory,
        visible=visible,
        timestamps=tracking.timestamps,
        confidence=tracking.confidence,
        source=str(path),
    )


def _flags(table: TextTable, column: int, name: str) -> Bool[Tensor, " frames"]:
    """Booleans; an empty field is no."""
    flags = []
    for row, line in enumerate(table.lines):
        value = table.fields(row)[column]
        word = {"": "0", "1.0": "1", "0.0": "0"}.get(value.lower(), value.lower())
        if word not in _TRUTH:
            raise ValueError(f"Line {line} of {table.path} has {value!r} in the column {name}; use 1 and 0.")
        flags.append(_TRUTH[word])
    return torch.tensor(flags)


def _usual_normals(tracking: HandTracking) -> Float32[Tensor, "observations 2 3"]:
    """Normals of palms that face inward and down, as far as the direction of each hand lets them."""
    along = torch.nn.functional.normalize(tracking.palms - tracking.wrists, dim=-1)
    across = _USUAL_PALM_NORMAL - (_USUAL_PALM_NORMAL * along).sum(-1, keepdim=True) * along
    return torch.nn.functional.normalize(across, dim=-1)
