"""Windows of heads whose body nobody recorded."""

import datasets
import pytest
import torch

from motion_grpo.data import FEATURES, HeadClip, HeadWindows, clip_to_row, collate_windows
from motion_grpo.data.batches import head_batch
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import head_trajectory, moving_clip


def test_windows_are_pieces_of_the_trajectory():
    trajectory = head_trajectory(50, floor_height=0.3)
    windows = HeadWindows([trajectory], 16, seed=0)
    assert len(windows) == 3
    batch = collate_windows(windows.__getitems__([0, 1, 2]))
    assert batch["R_world_cpf"].shape == (3, 17, 3, 3)
    assert batch["mask"].all()
    above = trajectory.p_world_cpf - torch.tensor([0.0, 0.0, 0.3])
    for p in batch["p_world_cpf"]:
        first = int((above - p[0]).norm(dim=-1).argmin())
        torch.testing.assert_close(p, above[first : first + 17])


def test_a_window_is_a_function_of_seed_epoch_and_index():
    windows, again = (HeadWindows([head_trajectory(50)], 16, seed=0) for _ in range(2))
    first = windows[1]["p_world_cpf"]
    assert torch.equal(again.__getitems__([0, 1])[1]["p_world_cpf"], first)
    windows.set_epoch(1)
    assert not torch.equal(windows[1]["p_world_cpf"], first)
    windows.set_epoch(0)
    assert torch.equal(windows[1]["p_world_cpf"], first)


def test_short_trajectories_are_padded_and_begin_with_themselves():
    trajectory = head_trajectory(10)
    batch = head_batch(collate_windows(HeadWindows([trajectory], 16).__getitems__([0])))
    assert batch.mask.sum() == 10
    assert batch.starts.tolist() == [True]
    poses = HeadPoses.from_world(trajectory.R_world_cpf, trajectory.p_world_cpf)
    for ours, theirs in zip(batch.head, poses, strict=True):
        torch.testing.assert_close(ours[0, :10], theirs, rtol=0, atol=1e-6)


def test_rows_with_a_body_or_without_are_read():
    rows = [HeadClip("a", "tiny", head_trajectory(20)).to_row(), clip_to_row(moving_clip(20))]
    read = HeadWindows(datasets.Dataset.from_list(rows, features=FEATURES), 16)
    assert len(read) == len(read.heads) == 2


def test_what_cannot_be_cut():
    with pytest.raises(ValueError, match="is at 60 fps; training needs 30"):
        HeadWindows([head_trajectory(30, fps=60.0)], 16)
    with pytest.raises(ValueError, match="There are no head trajectories"):
        HeadWindows([], 16)
    with pytest.raises(ValueError, match="length is 1"):
        HeadWindows([head_trajectory(30)], 1)
