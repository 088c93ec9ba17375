"""One sentence for what a call cannot mean, whatever its type: the shape checker of the tests would refuse it first."""

import numpy as np
import pytest
import torch

from motion_grpo.body import Skeleton
from motion_grpo.inference.arguments import check_count, check_generators, check_number
from motion_grpo.inference.wearer import known_betas


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, True, "3", None])
def test_what_is_no_count(value):
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got"):
        check_count("steps", value)


@pytest.mark.parametrize("value", [1, np.int64(7)])
def test_counts(value):
    check_count("steps", value)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "1", torch.tensor(1.0)])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"eta must be a number of at least 0, got .*; 1 is usual"):
        check_number("eta", value, "1 is usual")


def test_numbers():
    check_number("eta", 0, "")
    check_number("eta", np.float32(0.5), "")
    with pytest.raises(ValueError, match="above 0, got 0"):
        check_number("eta", 0, "", above=True)


@pytest.mark.parametrize("value", [3, "3", [3], [None], (torch.Generator(),)])
def test_what_is_no_generator(value):
    with pytest.raises(ValueError, match=r"must be a torch\.Generator .* got .*manual_seed\(seed\)"):
        check_generators(value)


@pytest.mark.parametrize("value", [None, torch.Generator(), [torch.Generator()], []])
def test_generators(value):
    check_generators(value)


@pytest.mark.parametrize("value", [True, "1.7", [1.7]])
def test_what_is_no_stature(value):
    with pytest.raises(ValueError, match="give one height in meters"):
        known_betas(Skeleton.default(), None, value)
