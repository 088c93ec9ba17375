"""The one layout of motion data sets: a row per clip, as ``datasets.Features``; to and from :class:`Clip`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Array2D, Array3D, Dataset, Features, List, Value
from jaxtyping import Float

from motion_grpo.body import NUM_BODY_AND_ROOT, Skeleton, cpf_of, forward_kinematics
from motion_grpo.data.clips import Clip
from motion_grpo.geometry.rotations import matrix_to_wxyz, wxyz_to_matrix
from motion_grpo.motion import Motion

SCHEMA_VERSION = "1.1"
"""Of the columns; stands in the metadata of every Parquet file under ``motion_grpo_schema``, and in the card."""

_ALL_COLUMNS = {
    "id": (Value("string"), "Name of the clip, unique in its source"),
    "source": (Value("string"), "Data set that it comes from"),
    "subject": (Value("string"), "Who moves; empty where unknown"),
    "content": (Value("string"), "What is done: walk, dance, ...; empty where unknown"),
    "split": (Value("string"), "train, val, test, ..."),
    "license": (Value("string"), "Terms of the recording"),
    "gender": (Value("string"), "Gender of the body model that betas refer to"),
    "skeleton": (Value("string"), "Body that betas and trans refer to; empty where only the head is known"),
    "fps": (Value("float64"), "Frames per second, evenly spaced"),
    "num_frames": (Value("int32"), "Frames T"),
    "floor_height": (Value("float32"), "z of the floor, meters"),
    "betas": (List(Value("float32"), length=16), "Shape of the body"),
    "root_orient": (Array2D((None, 4), "float32"), "R_world_pelvis, quaternion wxyz"),
    "trans": (Array2D((None, 3), "float32"), "AMASS's translation, meters: pelvis = trans + J0(betas)[0]"),
    "body_quats": (Array3D((None, 21, 4), "float32"), "SMPL-H joints 1-21 relative to their parents, quaternions wxyz"),
    "hand_quats": (Array3D((None, 30, 4), "float32"), "SMPL-H joints 22-51, likewise; null where hands are not known"),
    "contacts": (Array2D((None, 21), "float32"), "Probability that joint 1-21 touches the ground"),
    "T_world_cpf": (Array2D((None, 7), "float32"), "Central pupil frame (x left, y up, z forward): wxyz, then meters"),
    "hand_observations": (
        Array3D((None, 2, 13), "float32"),
        "Left and right hand as seen from the head, in the CPF: confidence, wrist, palm, their normals; null elsewhere",
    ),
    "joints": (Array3D((None, 22, 3), "float32"), "Measured joints in the world, meters; null where a body is given"),
}
FEATURES = Features({name: feature for name, (feature, _) in _ALL_COLUMNS.items()})
"""Columns of a motion data set. World z up, meters, float32; T differs from row to row.

A row with an empty ``skeleton`` is of a head without a body (:class:`~motion_grpo.data.HeadClip`): betas, rotations,
translation and contacts are null there, and what reads bodies leaves it out.
"""
_LATER_COLUMNS = {"content"}
"""Not in data sets of schema 1.0, which are read as if nothing was known there: an import takes hours."""
_HIGHEST_ROOT = 10.0
"""Meters over the floor; what is higher is in millimeters, or in a world of another floor."""
_HEAD_TOLERANCE = 0.1
"""Meters between the head that is given and the one that the body has: bodies of different versions differ by less."""
COLUMN_NOTES: dict[str, str] = {name: note for name, (_, note) in _ALL_COLUMNS.items()}
"""What the columns hold, for cards and people."""
ARROW_SCHEMA: pa.Schema = FEATURES.arrow_schema.with_metadata(
    {**FEATURES.arrow_schema.metadata, "motion_grpo_schema": SCHEMA_VERSION}
)


def check_clip(clip: Clip) -> None:
    """Refuses what would spoil a training run.

    Raises:
        ValueError: fewer than two frames, numbers that are not finite, or matrices that are no rotations.
    """
    motion = clip.motion
    if len(motion) < 2:
        raise ValueError(f"Clip {clip.id} has {len(motion)} frame; a motion needs two.")
    for name in ("root_positions", "betas", "contacts", "root_rotmats", "body_rotmats", "hand_rotmats"):
        values = getattr(motion, name)
        if values is None:
            continue
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            place = "frame" if values.ndim > 1 else "entry"
            raise ValueError(f"Clip {clip.id}: {name} holds numbers that are not finite, first in {place} {bad[0, 0]}.")
        if name.endswith("rotmats"):
            error = float((values.mT @ values - torch.eye(3)).abs().amax())
            if error > 1e-3:
                raise ValueError(f"Clip {clip.id}: {name} are no rotations (R^T R is off by {error:.2g}).")
            if bool((values.det() < 0).any()):
                raise ValueError(f"Clip {clip.id}: {name} are no rotations (some are reflections).")


def clip_to_row(clip: Clip) -> dict[str, Any]:
    """The clip as a row of :data:`FEATURES`: NumPy arrays, quaternions of w >= 0, head poses by forward kinematics."""
    motion = clip.motion
    R_world_cpf, p_world_cpf = cpf_of(motion.posed, motion.body.cpf_offset(motion.betas))
    hands = motion.hand_rotmats
    return {
        "id": clip.id,
        "source": clip.source,
        "subject": clip.subject,
        "content": clip.content,
        "split": clip.split,
        "license": clip.license,
        "gender": clip.gender,
        "skeleton": motion.body.name,
        "fps": round(motion.fps, 6),
        "num_frames": len(motion),
        "floor_height": float(motion.floor_height),
        "betas": motion.betas.numpy(),
        "root_orient": _wxyz(motion.root_rotmats),
        "trans": motion.trans.numpy(),
        "body_quats": _wxyz(motion.body_rotmats),
        "hand_quats": None if hands is None else _wxyz(hands),
        "contacts": motion.contacts.numpy(),
        "T_world_cpf": np.concatenate([_wxyz(R_world_cpf), p_world_cpf.numpy()], axis=-1),
        "hand_observations": None,
        "joints": None,
    }


def row_to_clip(row: Mapping[str, Any], skeleton: Skeleton | None = None) -> Clip:
    """The clip that a row holds; exact but for float32 rounding, and times start at 0.

    Args:
        row: of any format of ``datasets`` (lists, NumPy arrays or tensors).
        skeleton: the body that the row's betas refer to; the default body when None.

    Raises:
        ValueError: a column is missing, the row names another body than ``skeleton``, or holds a head and no body; the
            floor is not under the body (:func:`check_floor`), or the head not on it.
    """
    check_columns(row, f"Row {row.get('id', '')}")
    if not row["skeleton"]:
        raise ValueError(f"Row {row['id']} holds a head and no body: read it with row_to_trajectory.")
    check_body([row["skeleton"]], skeleton)
    betas, trans, contacts = (_tensor(row[name]) for name in ("betas", "trans", "contacts"))
    # A null array of numbers is None, or NaN in some formats of datasets.
    hands = None if np.ndim(row["hand_quats"]) == 0 else wxyz_to_matrix(_tensor(row["hand_quats"]))
    motion = Motion(
        root_rotmats=wxyz_to_matrix(_tensor(row["root_orient"])),
        root_positions=trans + (skeleton or Skeleton.default()).rest_joints(betas)[0],
        body_rotmats=wxyz_to_matrix(_tensor(row["body_quats"])),
        betas=betas,
        contacts=contacts,
        timestamps=torch.arange(int(row["num_frames"]), dtype=torch.float64) / float(row["fps"]),
        hand_rotmats=hands,
        floor_height=float(row["floor_height"]),
        skeleton=skeleton,
    )
    check_floor(str(row["id"]), motion.floor_height, motion.root_positions[:, 2].numpy())
    _check_head(row, motion)
    text = {name: str(row[name]) for name in ("id", "source", "subject", "split", "license", "gender")}
    return Clip(motion=motion, content=row.get("content") or "", **text)


def rows_to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as an Arrow table that ``datasets`` reads back with :data:`FEATURES`."""
    columns = {name: [row[name] for row in rows] for name in FEATURES}
    return Dataset.from_dict(columns, features=FEATURES).data.table.replace_schema_metadata(ARROW_SCHEMA.metadata)


def check_columns(columns: Iterable[str], place: str) -> None:
    """Raises ValueError that names the missing columns of the schema (``content`` may be missing, see above)."""
    missing = sorted(FEATURES.keys() - _LATER_COLUMNS - set(columns))
    if missing:
        raise ValueError(
            f"{place} is no motion data set of motion-grpo: it has no column {', '.join(missing)}; import it first "
            "(motion-grpo data --help)."
        )


def check_body(names: Iterable[str], skeleton: Skeleton | None) -> None:
    """Raises ValueError where betas refer to another body than ``skeleton`` (None: the default one)."""
    expected = (skeleton or Skeleton.default()).name
    other = sorted({str(name) for name in names} - {expected})
    if other == [Skeleton.mannequin_x().name]:
        raise ValueError(
            f"The betas refer to the body {other[0]}, not {expected}: the rows were written before the default body "
            "was made symmetric; import the data set again (motion-grpo data --help)."
        )
    if other:
        raise ValueError(
            f"The betas refer to the body {', '.join(other)}, not {expected}: pass skeleton=Skeleton.from_smplh(...)."
        )


def check_floor(name: str, floor_height: float, root_heights: Float[np.ndarray, " frames"]) -> None:
    """Refuses a row whose ``floor_height`` cannot be that of the floor its body is above.

    Args:
        name: of the clip.
        floor_height: z of the floor, meters.
        root_heights: z of the pelvis in some frames, meters.

    Raises:
        ValueError: no finite number, or a pelvis that is mostly below the floor or more than 10 m above it.
    """
    above = float(np.median(root_heights)) - floor_height
    if not 0 < above < _HIGHEST_ROOT:
        raise ValueError(
            f"Clip {name}: floor_height is {floor_height:g} m, which puts the pelvis {above:.3g} m above the floor; it "
            "must be the z of the floor in the world of trans and T_world_cpf, in meters."
        )


def _check_head(row: Mapping[str, Any], motion: Motion) -> None:
    """Refuses a row whose columns of the body and of the head are of different worlds or bodies."""
    frames = sorted({0, len(motion) // 2, len(motion) - 1})
    local = torch.cat([motion.root_rotmats[frames, None], motion.body_rotmats[frames]], 1)
    rest = motion.body.rest_joints(motion.betas)[:NUM_BODY_AND_ROOT]
    body = forward_kinematics(rest, local, motion.root_positions[frames])
    _, there = cpf_of(body, motion.body.cpf_offset(motion.betas))
    off = float((there - _tensor(row["T_world_cpf"])[frames, 4:]).norm(dim=-1).max())
    if not off < _HEAD_TOLERANCE:
        raise ValueError(
            f"Clip {row['id']}: T_world_cpf is {off:.2f} m from the head of the body in the same row; both must be in "
            "one world, trans must be AMASS's (pelvis = trans + J0(betas)[0]), and betas those of the body "
            f"{motion.body.name}."
        )


def frame_views(table: pa.Table, columns: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
    """Per clip, columns without nulls as float32 arrays (frames, ...), which are views of what Arrow holds or maps.

    ``betas`` come as (1, 16).
    """
    for batch in table.to_batches():
        views = {}
        for name in columns:
            column = batch.column(name)
            lists = column.storage if isinstance(column, pa.ExtensionArray) else column
            flat = lists
            while not pa.types.is_floating(flat.type):
                flat = flat.flatten()
            if name == "betas":
                shape, starts = (FEATURES[name].length,), range(len(lists) + 1)
            else:
                offsets = lists.offsets.to_numpy()
                shape, starts = FEATURES[name].shape[1:], (offsets - offsets[0]).tolist()
            views[name] = flat.to_numpy().astype(np.float32, copy=False).reshape(-1, *shape), starts
        for i in range(batch.num_rows):
            yield {name: values[starts[i] : starts[i + 1]] for name, (values, starts) in views.items()}


def _tensor(values: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(values, np.float32))


def _wxyz(rotmats: Float[torch.Tensor, "*batch 3 3"]) -> Float[np.ndarray, "*batch 4"]:
    wxyz = matrix_to_wxyz(rotmats)
    return torch.where(wxyz[..., :1] < 0, -wxyz, wxyz).numpy()
