"""Rates from times: the number that was meant, and no other where it is not one of few digits."""

import pytest
import torch

from motion_grpo.timing import frame_rate, median_rate


@pytest.mark.parametrize("rate", [30.0, 120.0, 29.97, 12.5, 1000.0, 30000 / 1001, 1 / 3])
@pytest.mark.parametrize("start", [0.0, -7.3, 1e5, 1.7e9])
def test_even_times_have_the_rate_they_were_made_with(rate, start):
    for frames in (2, 3, 300, 20_000):
        times = start + torch.arange(frames, dtype=torch.float64) / rate
        assert frame_rate(times) == pytest.approx(rate, rel=3e-5 if start == 1.7e9 else 1e-9)
        assert median_rate(times) == pytest.approx(rate, rel=3e-4)
        if rate in (30.0, 120.0, 12.5):
            assert frame_rate(times) == rate


def test_what_is_off_by_more_than_rounding_stays_off():
    assert frame_rate(torch.arange(100, dtype=torch.float64) / 30.0001) == pytest.approx(30.0001, rel=1e-12)
    assert frame_rate(torch.arange(100, dtype=torch.float64) / 30.0001) != 30.0
