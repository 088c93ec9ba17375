"""Rows of the schema give back the clips they were made of, through Parquet, in every format, and streamed."""

from dataclasses import replace

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_grpo.body import Skeleton
from motion_grpo.data import (
    FEATURES,
    SCHEMA_VERSION,
    Clip,
    MotionWindows,
    clip_to_row,
    load_clips,
    load_motions,
    row_to_clip,
)
from motion_grpo.data.schema import COLUMN_NOTES, check_clip, frame_views, rows_to_table
from motion_grpo.geometry.rotations import wxyz_to_matrix
from tests.tiny import moving_clip

ROUNDING = {"rtol": 0, "atol": 2e-6}


def with_hands(clip: Clip) -> Clip:
    """Random hand rotations, in the first frame half turns, where quaternions are most delicate."""
    quats = torch.randn(len(clip.motion), 30, 4)
    quats[0, :, 0] = 0
    return replace(clip, motion=replace(clip.motion, hand_rotmats=wxyz_to_matrix(quats)))


def clips() -> list[Clip]:
    """Of different lengths, with and without hands, one on a raised floor and with shape."""
    raised = moving_clip(25, seed=3)
    raised = replace(raised, motion=replace(raised.motion, floor_height=0.4, betas=torch.linspace(-2, 2, 16)))
    return [
        replace(moving_clip(40), content="walk"),
        with_hands(moving_clip(7, seed=1)),
        with_hands(moving_clip(130, seed=2)),
        raised,
    ]


def assert_same(clip: Clip, expected: Clip) -> None:
    for name in ("id", "source", "subject", "content", "split", "license", "gender"):
        assert getattr(clip, name) == getattr(expected, name)
    a, b = clip.motion, expected.motion
    assert a.fps == pytest.approx(b.fps, abs=1e-6)
    assert a.floor_height == pytest.approx(b.floor_height, abs=1e-7)
    for name in ("root_positions", "root_rotmats", "body_rotmats", "joints"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), **ROUNDING)
    assert torch.equal(a.betas, b.betas)
    assert torch.equal(a.contacts, b.contacts)
    torch.testing.assert_close(a.timestamps, b.timestamps - b.timestamps[0], rtol=0, atol=1e-6)
    assert (a.hand_rotmats is None) == (b.hand_rotmats is None)
    if a.hand_rotmats is not None:
        torch.testing.assert_close(a.hand_rotmats, b.hand_rotmats, **ROUNDING)


@pytest.mark.parametrize("format_type", [None, "numpy", "torch"])
def test_round_trip_through_parquet(tmp_path, format_type):
    expected = clips()
    pq.write_table(rows_to_table([clip_to_row(clip) for clip in expected]), tmp_path / "rows.parquet", row_group_size=2)
    rows = datasets.Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    assert rows.features == FEATURES
    for row, clip in zip(rows.with_format(format_type), expected, strict=True):
        assert_same(row_to_clip(row), clip)


def test_streamed_rows_are_the_same(tmp_path):
    expected = clips()
    pq.write_table(rows_to_table([clip_to_row(clip) for clip in expected]), tmp_path / "rows.parquet", row_group_size=1)
    rows = datasets.load_dataset(
        "parquet", data_files={"train": str(tmp_path / "rows.parquet")}, split="train", streaming=True
    )
    assert rows.features == FEATURES
    for row, clip in zip(rows, expected, strict=True):
        assert_same(row_to_clip(row), clip)


def test_a_second_trip_changes_nothing():
    """What was rounded once stays, so that data sets can be read and written again."""
    row = clip_to_row(with_hands(moving_clip(50)))
    again = clip_to_row(row_to_clip(row))
    for name, value in row.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(again[name], value, rtol=0, atol=1e-6, err_msg=name)
        else:
            assert again[name] == value


def test_row_says_what_the_columns_promise():
    clip = clips()[3]
    row, motion = clip_to_row(clip), clip.motion
    assert row.keys() == FEATURES.keys() == COLUMN_NOTES.keys()
    pelvis = row["trans"] + Skeleton.default().rest_joints(motion.betas)[0].numpy()
    np.testing.assert_allclose(pelvis, motion.joints[:, 0].numpy(), atol=1e-6)
    for name in ("root_orient", "body_quats"):
        np.testing.assert_allclose(np.linalg.norm(row[name], axis=-1), 1, atol=1e-6)
        assert (row[name][..., 0] >= 0).all()
    # The head joint is 15; eyes are 7 to 12 cm from it, and its orientation is theirs.
    R_world_cpf = wxyz_to_matrix(torch.tensor(row["T_world_cpf"][:, :4]))
    torch.testing.assert_close(R_world_cpf, motion.posed.rotmats[:, 15], **ROUNDING)
    distance = np.linalg.norm(row["T_world_cpf"][:, 4:] - motion.joints[:, 15].numpy(), axis=1)
    assert distance.min() > 0.05
    assert distance.max() < 0.15
    assert np.ptp(distance) < 1e-5
    assert (row["fps"], row["num_frames"], row["skeleton"]) == (30.0, 25, "mannequin-x-symmetric")


def test_version_travels_with_the_file(tmp_path):
    pq.write_table(rows_to_table([clip_to_row(moving_clip(3))]), tmp_path / "a.parquet")
    assert pq.read_schema(tmp_path / "a.parquet").metadata[b"motion_grpo_schema"] == SCHEMA_VERSION.encode()


def test_a_data_set_without_content_is_read_as_one_that_does_not_know_it(tmp_path):
    """Schema 1.0 had no such column."""
    table = rows_to_table([clip_to_row(replace(moving_clip(40), content="walk"))]).drop_columns("content")
    (tmp_path / "train").mkdir()
    pq.write_table(table, tmp_path / "train" / "a.parquet")
    (clip,) = load_clips(tmp_path, "train")
    assert clip.content == ""
    assert len(MotionWindows(load_motions(tmp_path, "train"), 32)) == 1


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(2, 20), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 5))
def test_frame_views_are_the_rows_of_any_slice(lengths, chunk, first):
    rows = [clip_to_row(moving_clip(n, seed=i)) for i, n in enumerate(lengths)]
    tables = [rows_to_table(rows[i : i + chunk]) for i in range(0, len(rows), chunk)]
    table = datasets.concatenate_datasets([datasets.Dataset(t) for t in tables]).data.table.slice(first)
    names = ["betas", "trans", "body_quats"]
    views = list(frame_views(table, names))
    assert len(views) == max(0, len(rows) - first)
    for view, row in zip(views, rows[first:], strict=True):
        assert np.array_equal(view["betas"][0], row["betas"])
        assert np.array_equal(view["trans"], row["trans"])
        assert np.array_equal(view["body_quats"], row["body_quats"])


class TestErrors:
    def test_missing_column(self):
        row = clip_to_row(moving_clip(4))
        del row["trans"], row["fps"]
        with pytest.raises(ValueError, match=r"Row clip0 is no motion data set.*no column fps, trans"):
            row_to_clip(row)

    def test_another_body(self):
        row = clip_to_row(moving_clip(4)) | {"skeleton": "SMPLH_MALE"}
        with pytest.raises(ValueError, match="body SMPLH_MALE, not mannequin-x-symmetric: pass skeleton="):
            row_to_clip(row)
        with pytest.raises(ValueError, match=r"body mannequin-x, .*before the default body was made symmetric; import"):
            row_to_clip(row | {"skeleton": "mannequin-x"})
        named = replace(Skeleton.default(), name="SMPLH_MALE")
        assert row_to_clip(row, named).motion.skeleton is named

    @pytest.mark.parametrize("name", ["root_positions", "betas", "body_rotmats", "contacts"])
    def test_not_finite(self, name):
        motion = moving_clip(9).motion
        values = getattr(motion, name).clone()
        values[5] = float("nan")
        where = "entry" if name == "betas" else "frame"
        with pytest.raises(ValueError, match=f"{name} holds numbers that are not finite, first in {where} 5."):
            check_clip(Clip("c", "s", replace(motion, **{name: values})))

    def test_no_rotation(self):
        motion = moving_clip(9).motion
        with pytest.raises(ValueError, match=r"body_rotmats are no rotations \(R\^T R is off by 0\.2"):
            check_clip(Clip("c", "s", replace(motion, body_rotmats=1.1 * motion.body_rotmats)))
        with pytest.raises(ValueError, match=r"root_rotmats are no rotations \(some are reflections\)"):
            check_clip(Clip("c", "s", replace(motion, root_rotmats=-motion.root_rotmats)))


@pytest.mark.parametrize("height", [float("nan"), float("inf"), 1.3, -1600.0, 12.0])
def test_a_floor_that_is_not_under_the_body_is_refused(height: float, tmp_path, monkeypatch) -> None:
    """Not known, of another world, or in millimeters."""
    row = clip_to_row(moving_clip(20)) | {"floor_height": height}
    with pytest.raises(ValueError, match=r"Clip clip0: floor_height is .* m, which puts the pelvis .* above the floor"):
        row_to_clip(row)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "train").mkdir()
    pq.write_table(rows_to_table([row]), tmp_path / "train" / "x.parquet")
    with pytest.raises(ValueError, match="Clip clip0: floor_height is"):
        MotionWindows(load_motions(tmp_path, "train"), 8)


def test_a_head_that_is_not_on_the_body_is_refused() -> None:
    row = clip_to_row(moving_clip(20))
    lowered = row["T_world_cpf"] - np.float32([0, 0, 0, 0, 0, 0, 0.4])
    with pytest.raises(ValueError, match=r"Clip clip0: T_world_cpf is 0\.40 m from the head of the body in"):
        row_to_clip(row | {"T_world_cpf": lowered, "floor_height": np.float32(-0.4)})
    pelvis = row["trans"] + Skeleton.default().rest_joints(torch.tensor(row["betas"]))[0].numpy()
    with pytest.raises(ValueError, match=r"T_world_cpf is 0\.\d\d m from the head .* trans must be AMASS's"):
        row_to_clip(row | {"trans": pelvis})
    assert row_to_clip(row).motion.floor_height == 0


def test_a_motion_above_its_floor() -> None:
    motion = replace(moving_clip(9).motion, floor_height=-0.5)
    above = motion.above_floor()
    assert above.floor_height == 0
    torch.testing.assert_close(above.joints, motion.joints + torch.tensor([0.0, 0.0, 0.5]))
    assert above.above_floor() is above
