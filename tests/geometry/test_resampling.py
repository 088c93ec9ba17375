import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st

from motion_grpo.geometry.resampling import Between

TIMES = torch.tensor([0.0, 0.1, 0.13, 0.4, 1.0], dtype=torch.float64)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_lines_and_steady_turns_are_met_exactly(times: list[float]) -> None:
    at = torch.tensor(times, dtype=torch.float64)
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    between = Between.of(TIMES, at)
    torch.testing.assert_close(between.points(TIMES[:, None] * axis), at[:, None] * axis)
    turned = between.rotations(roma.rotvec_to_rotmat(TIMES[:, None] * axis))
    torch.testing.assert_close(turned, roma.rotvec_to_rotmat(at[:, None] * axis))


def test_samples_stay_what_they_are() -> None:
    p = torch.randn(5, 3, 2)
    assert torch.equal(Between.of(TIMES, TIMES).points(p), p)


def test_outside_it_goes_on_in_a_line() -> None:
    between = Between.of(TIMES, torch.tensor([-0.1, 1.6], dtype=torch.float64))
    assert between.points(TIMES).tolist() == pytest.approx([-0.1, 1.6])
