"""Reads what was seen of the wrists: Project Aria's hand tracking, and CSV with named columns."""

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32
from torch import Tensor

from motion_grpo.trajectory.aria_hands import SIDES, HandTracking, find_hand_tracking, read_hand_tracking
from motion_grpo.trajectory.checks import ArrayLike
from motion_grpo.trajectory.hand_observations import HandObservations, device_extrinsic, without_flag
from motion_grpo.trajectory.head_trajectory import HeadTrajectory
from motion_grpo.trajectory.tables import column_names, read_header, read_table

# Where palms face in the CPF (x left, y up, z forward) while hands are in front of the body: inward and down, the mean
# over recorded motion. Turned about the hand's own direction until it is nearest to this, a palm is right to 18 degrees
# in the median frame and to 52 in nine of ten.
_USUAL_PALM_NORMAL = torch.tensor([[-0.58, -0.52, 0.15], [0.58, -0.52, 0.15]])
_SECONDS_PER_UNIT = {
    "timestamp": 1.0, "time": 1.0, "t": 1.0, "timestamp_s": 1.0,
    "timestamp_ms": 1e-3, "timestamp_us": 1e-6, "timestamp_ns": 1e-9,
}  # fmt: skip
_TRUTH = {"1": True, "true": True, "0": False, "false": False}


def load_hands(path: str | os.PathLike[str], trajectory: HeadTrajectory) -> HandObservations:
    """Reads what was seen of the wrists in a file, or in the MPS folder of a recording; the content says what it is.

    - Project Aria (``hand_tracking_results.csv``, ``wrist_and_palm_poses.csv``): ``read_aria_hands``.
    - CSV with named columns, which may be the trajectory's own file: ``read_hands_csv``.

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
    if "tracking_timestamp_us" in column_names(read_header(path)):
        return read_aria_hands(path, trajectory)
    hands = read_hands_csv(path)
    # A row of the trajectory's own file has the time that its pose got, whatever the unit of its clock.
    own = str(path) == trajectory.source and len(hands) == len(trajectory)
    return replace(hands, timestamps=None) if own else hands


def read_hands_csv(path: str | os.PathLike[str]) -> HandObservations:
    """Reads named columns of a CSV (or CSV.GZ), which may be the trajectory's own: wrists in its z-up world.

    For each side, or for one of them: position ``left_wrist_x``, ``left_wrist_y``, ``left_wrist_z`` (metres),
    quaternion ``left_wrist_qw``, ``..._qx``, ``..._qy``, ``..._qz``, ``left_visible`` (1 or 0, true or false) and,
    if there is one, ``left_confidence``; ``right_...`` likewise. Time ``timestamp``, ``time`` or ``t`` in seconds,
    ``timestamp_ms``, ``timestamp_us`` or ``timestamp_ns``; without one a row belongs to each pose of the head.

    Raises:
        FileNotFoundError: no such file.
        ValueError: missing columns (named), wrists without ``left_visible`` or ``right_visible``; and as
            ``HandObservations.from_world``.
    """
    path = Path(path)
    names = column_names(read_header(path))
    sides = [side for side in SIDES if any(name.startswith(f"{side}_wrist_") for name in names)]
    if not sides:
        raise ValueError(
            f"{path} has no wrists: a CSV has the columns left_wrist_x, left_wrist_y, left_wrist_z, left_wrist_qw, "
            "left_wrist_qx, left_wrist_qy, left_wrist_qz and left_visible, or right_... likewise."
        )
    for side in sides:
        if f"{side}_visible" not in names:
            raise without_flag(str(path), f"add the column {side}_visible, 1 in rows where that wrist was seen")
    poses = {side: [f"{side}_wrist_{part}" for part in ("qw", "qx", "qy", "qz", "x", "y", "z")] for side in sides}
    confidences = [f"{side}_confidence" for side in sides if f"{side}_confidence" in names]
    time = next((name for name in _SECONDS_PER_UNIT if name in names), None)
    numbers = [name for side in sides for name in poses[side]] + confidences + ([time] if time else [])
    columns = dict.fromkeys(numbers, pa.float64()) | {f"{side}_visible": pa.string() for side in sides}
    table = read_table(path, columns, "a table of wrists")
    column = lambda name: table[name].to_numpy().copy()  # noqa: E731
    frames = table.num_rows
    all_poses, visible = np.zeros((frames, 2, 7)), np.zeros((frames, 2), dtype=bool)
    confidence = np.zeros((frames, 2))
    for side in sides:
        index = SIDES.index(side)
        all_poses[:, index] = np.stack([column(name) for name in poses[side]], axis=1)
        visible[:, index] = _flags(table[f"{side}_visible"].to_pylist(), f"{side}_visible", path)
        known = f"{side}_confidence" in confidences
        confidence[:, index] = column(f"{side}_confidence") if known else visible[:, index]
    return HandObservations.from_world(
        all_poses,
        visible=visible,
        confidence=np.where(visible, confidence, 0.0),
        timestamps=column(time) * _SECONDS_PER_UNIT[time] if time else None,
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


def _flags(values: list[str | None], column: str, path: Path) -> list[bool]:
    """Booleans out of a CSV; an empty field is no."""
    flags = []
    for line, value in enumerate(values, start=2):
        word = (value or "0").strip().lower()
        word = {"1.0": "1", "0.0": "0"}.get(word, word)
        if word not in _TRUTH:
            raise ValueError(f"Line {line} of {path} has {value!r} in the column {column}; use 1 and 0.")
        flags.append(_TRUTH[word])
    return flags


def _usual_normals(tracking: HandTracking) -> Float32[Tensor, "observations 2 3"]:
    """Normals of palms that face inward and down, as far as the direction of each hand lets them."""
    along = torch.nn.functional.normalize(tracking.palms - tracking.wrists, dim=-1)
    across = _USUAL_PALM_NORMAL - (_USUAL_PALM_NORMAL * along).sum(-1, keepdim=True) * along
    return torch.nn.functional.normalize(across, dim=-1)
