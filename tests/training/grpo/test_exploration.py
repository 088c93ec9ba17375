"""Noise of a rollout: keyed, shared where it should be, of the right covariance."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_grpo.seeding import generator_of
from motion_grpo.training.grpo.exploration import (
    ExplorationNoise,
    explored_steps,
    smooth_basis,
    trained_transitions,
)

MASK = torch.arange(16) < torch.tensor([[16], [10], [3]])
SHAPE = (16, 5)


def noise(kind: str, conditions=(7, 8), rows=(0, 0, 1, 1), members=(0, 1, 0, 1), generation=0, shape=SHAPE):
    basis = smooth_basis(torch.ones(len(conditions), shape[0], dtype=torch.bool), 4)
    return ExplorationNoise(0, generation, list(conditions), list(rows), list(members), shape, basis, kind)


def test_the_basis_is_orthonormal_over_the_frames_that_exist():
    basis = smooth_basis(MASK, 4)
    expected = torch.eye(4).repeat(3, 1, 1)
    expected[2, 3, 3] = 0  # three frames have three frequencies
    torch.testing.assert_close(basis.mT @ basis, expected, rtol=0, atol=1e-6)
    assert torch.equal(basis[~MASK], torch.zeros(19, 4))


def test_the_basis_holds_the_slowest_motions():
    """Constants and ramps are nearly in it, the fastest oscillation is not."""
    basis = smooth_basis(MASK[:1], 4)[0]

    def share(x):
        return float((basis.T @ x).square().sum() / x.square().sum())

    time = torch.arange(16.0)
    assert share(torch.ones(16)) == pytest.approx(1, abs=1e-5)
    assert share(time) > 0.999
    assert share((-1.0) ** time) < 0.05


@pytest.mark.parametrize("kind", ["white", "smooth_credit", "smooth"])
def test_the_start_is_shared_and_steps_are_not(kind):
    drawn = noise(kind)
    start, step = drawn.start(), drawn.step()
    assert (len(start), len(step)) == (2, 4)
    assert not torch.equal(start[0], start[1])
    assert not torch.equal(step[0], step[1])
    basis = drawn.basis[0]
    rough = step - basis @ (basis.T @ step)
    shared = torch.allclose(rough[0], rough[1], atol=1e-5)
    assert shared is (kind == "smooth")
    assert not torch.allclose(rough[0], rough[2], atol=1e-5)
    assert not torch.equal(drawn.step(), step)


@pytest.mark.parametrize("kind", ["white", "smooth"])
def test_noise_that_a_group_shares_is_fresh_at_every_step(kind):
    drawn = noise(kind)
    first, second = drawn.shared(), drawn.shared()
    assert first.shape == (2, *SHAPE)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(6)), st.integers(1, 5), st.sampled_from(["white", "smooth"]))
def test_a_sample_does_not_depend_on_its_batch(order, cut, kind):
    """Draws of six samples of three conditions, all at once, or in two batches of any make-up."""
    conditions, members = [3, 3, 4, 4, 9, 9], [0, 1, 0, 1, 0, 1]

    def draw(samples: list[int]) -> list[torch.Tensor]:
        present = sorted({conditions[i] for i in samples})
        rows = [present.index(conditions[i]) for i in samples]
        drawn = noise(kind, present, rows, [members[i] for i in samples])
        return list(torch.stack([drawn.start()[rows], drawn.step(), drawn.step(), drawn.smooth()], dim=1))

    whole = draw(list(range(6)))
    for batch in (order[:cut], order[cut:]):
        for i, sample in zip(batch, draw(list(batch)), strict=True):
            torch.testing.assert_close(sample, whole[i], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["white", "smooth"])
def test_every_number_of_a_step_is_standard_normal(kind):
    """Over conditions, also where part of the noise is shared within the group."""
    count = 4000
    drawn = noise(kind, range(count), range(count), [0] * count, shape=(6, 2))
    step = drawn.step()
    flat = step.flatten(1)
    covariance = flat.T @ flat / count
    torch.testing.assert_close(covariance, torch.eye(12), rtol=0, atol=0.1)


def test_smooth_noise_has_unit_coordinates():
    count = 4000
    drawn = noise("white", [0], [0] * count, range(count), shape=(16, 2))
    coordinates = drawn.basis[0].T @ drawn.smooth()
    flat = coordinates.flatten(1)
    torch.testing.assert_close(flat.T @ flat / count, torch.eye(8), rtol=0, atol=0.1)


def test_steps_that_explore():
    stream = generator_of(0)
    assert explored_steps(5, None, None, stream) == [0, 1, 2, 3]
    assert explored_steps(5, 2, 1, stream) == [1, 2]
    assert explored_steps(5, 0, None, stream) == []
    starts = {tuple(explored_steps(5, 2, None, stream)) for _ in range(50)}
    assert starts == {(0, 1), (1, 2), (2, 3)}


def test_share_of_the_transitions():
    stream = generator_of(0)
    assert trained_transitions([0, 1, 4], 1.0, stream) == [0, 1, 4]
    assert len(trained_transitions([0, 1, 4], 0.01, stream)) == 1
    picks = {tuple(trained_transitions([0, 1, 4], 0.67, stream)) for _ in range(50)}
    assert picks == {(0, 1), (0, 4), (1, 4)}
