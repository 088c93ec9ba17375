"""Rows of heads without a body."""

import pytest

from motion_grpo.data import HeadClip, row_to_trajectory
from motion_grpo.trajectory import HeadTrajectory
from tests.trajectory.helpers import walk


@pytest.mark.parametrize("start", [0.0, 149.202611, 1_700_000_000.123457])
def test_the_rate_of_a_row_is_the_one_it_was_sampled_at(start):
    poses, times = walk(200)
    trajectory = HeadTrajectory.from_matrices(poses, timestamps=start + 0.3 * times, floor_height=0.0).resample(30.0)
    row = HeadClip("visit", "made up", trajectory).to_row()
    assert row["fps"] == 30.0
    assert row_to_trajectory(row).fps == 30.0
