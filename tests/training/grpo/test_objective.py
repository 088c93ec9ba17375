"""GRPO's arithmetic against hand-computed cases and autograd of the exact objective."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_grpo.inference.rollout import transitions
from motion_grpo.motion import StateLayout
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training.grpo.exploration import smooth_basis
from motion_grpo.training.grpo.objective import (
    advantages,
    clipped_loss,
    gaussian_kl,
    is_clipped,
    log_density,
    normalize_in_groups,
    step_weights,
)

ALL = torch.ones(6, 8, dtype=torch.bool)


def test_normalization_by_hand():
    """Two groups of 3: 1, 2, 3 has std 1; the other is ten times as spread and far away."""
    values = torch.tensor([1.0, 2, 3, 110, 100, 90])
    normalized, std = normalize_in_groups(values, 3)
    torch.testing.assert_close(normalized, torch.tensor([-1.0, 0, 1, 1, 0, -1]))
    torch.testing.assert_close(std, torch.tensor([1.0, 10]))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.01, 100.0), st.floats(-100.0, 100.0))
def test_normalization_does_not_see_scale_and_offset(seed, scale, offset):
    values = torch.rand(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one, _ = normalize_in_groups(values, 4, 1e-9)
    other, _ = normalize_in_groups(scale * values + offset, 4, 1e-9)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_group_that_hardly_differs_has_no_advantage():
    values = torch.tensor([0.5, 0.5, 0.5, 0.5 + 5e-5, 0.5, 0.6])
    normalized, std = normalize_in_groups(values, 3, std_floor=1e-4)
    assert torch.equal(normalized[:3], torch.zeros(3))
    assert std[0] == 0
    assert normalized[3:].abs().max() > 1
    normalized, _ = normalize_in_groups(values[:3] + 1e-5 * torch.arange(3), 3, std_floor=1e-4)
    assert torch.equal(normalized, torch.zeros(3))


def test_frames_are_centred_one_by_one_and_share_a_std():
    """Members differ by +-1 in frame 0, by +-1e-6 in frame 1; frame 2 is not there."""
    values = torch.tensor([[1.0, 0.5 + 1e-6, 9.0], [-1.0, 0.5 - 1e-6, -9.0]])
    mask = torch.tensor([[True, True, False]]).expand(2, 3)
    normalized, std = normalize_in_groups(values, 2, 1e-4, mask)
    # Variances (G - 1): 2 and about 0; pooled 1.
    torch.testing.assert_close(std, torch.tensor([1.0]))
    torch.testing.assert_close(normalized[:, 0], torch.tensor([1.0, -1.0]))
    assert normalized[:, 1].abs().max() < 2e-6
    constant = torch.tensor([1.0, 2, 3])[:, None].expand(3, 5)
    frames, _ = normalize_in_groups(constant, 3)
    whole, _ = normalize_in_groups(constant[:, 0], 3)
    torch.testing.assert_close(frames, whole[:, None].expand(3, 5))


REWARDS = {"a": torch.tensor([0.0, 1, 2, 3]), "b": torch.tensor([5.0, 5, 7, 5])}
A = torch.tensor([-1.0, 1, -1, 1]) / math.sqrt(2)
B = torch.tensor([0.0, 0, 1, -1]) / math.sqrt(2)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("mean", (2 * A + 3 * B) / 2),
        ("sum", 2 * A + 3 * B),
        # 2 a + 3 b = 15, 17 | 25, 21: both groups differ in the order given.
        ("sum_then_normalize", torch.tensor([-1.0, 1, 1, -1]) / math.sqrt(2)),
    ],
)
def test_aggregations(aggregation, expected):
    combined, stds = advantages(REWARDS, 2, weights=[2.0, 3.0], aggregation=aggregation)
    torch.testing.assert_close(combined, expected)
    torch.testing.assert_close(stds["b"], torch.tensor([0.0, math.sqrt(2)]))


def test_normalize_then_sum_has_the_batch_std():
    combined, _ = advantages(REWARDS, 2, aggregation="normalize_then_sum")
    total = A + B
    torch.testing.assert_close(combined, (total - total.mean()) / total.std())


def test_the_clip_bounds_advantages():
    values = {"a": torch.cat([torch.zeros(15), torch.ones(1)])}
    free, _ = advantages(values, 16)
    assert free.max() == pytest.approx(15 / 4)
    clipped, _ = advantages(values, 16, clip=2.0)
    assert clipped.max() == 2
    assert torch.equal(clipped[:15], free[:15])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_density_is_the_gaussian_one():
    """Differences of it are differences of torch's log density, constants apart."""
    x, mean, std = normal(6, 8, 5), normal(6, 8, 5, seed=1), 0.3
    exact = torch.distributions.Normal(mean.double(), std).log_prob(x.double()).sum((1, 2))
    summed = log_density((x - mean) / std, ALL, reduction="sum")
    torch.testing.assert_close(summed - summed[0], exact - exact[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(log_density((x - mean) / std, ALL).double(), summed / 40, rtol=1e-5, atol=1e-5)
    frames = log_density((x - mean) / std, ALL, credit="frame")
    torch.testing.assert_close(frames.mean(1), log_density((x - mean) / std, ALL))


def test_padding_does_not_count():
    residual, mask = normal(6, 8, 5), ALL.clone()
    mask[:, 5:] = False
    wild = residual.clone()
    wild[:, 5:] = 100
    basis = smooth_basis(mask, 3)
    for credit in ("sequence", "frame"):
        for extra in ({}, {"basis": basis}, {"reduction": "sum"}):
            one, other = (log_density(r, mask, credit=credit, **extra) for r in (residual, wild))
            assert torch.equal(one, other)
    torch.testing.assert_close(log_density(wild, mask), log_density(residual[:, :5], mask[:, :5]))


def test_only_the_projection_counts():
    """The mean is over the coordinates: noise along the basis counts as if it were all there is."""
    basis = smooth_basis(ALL, 3)
    coordinates = normal(6, 3, 5)
    smooth = basis @ coordinates
    rough = normal(6, 8, 5, seed=2)
    rough = rough - basis @ (basis.mT @ rough)
    expected = -0.5 * coordinates.square().mean((1, 2))
    torch.testing.assert_close(log_density(smooth + rough, ALL, basis=basis), expected)
    frames = log_density(smooth + rough, ALL, basis=basis, credit="frame")
    torch.testing.assert_close(frames.mean(1), expected)
    summed = log_density(smooth + rough, ALL, basis=basis, reduction="sum")
    torch.testing.assert_close(summed.float(), 15 * expected)


def test_sums_resolve_small_differences():
    """1e4 nats in float32 have steps of 1e-3; a shift of the mean by 1e-7 is worth less."""
    residual = normal(1, 128, 163)
    moved = residual + 1e-7
    exact = 0.5 * (residual.double().square() - moved.double().square()).sum()
    mask = torch.ones(1, 128, dtype=torch.bool)
    ours = log_density(moved, mask, reduction="sum") - log_density(residual, mask, reduction="sum")
    assert abs(float(ours - exact)) < 1e-4


def test_kl_is_the_gaussian_one():
    mean, reference, std = normal(6, 8, 5), normal(6, 8, 5, seed=1), 0.3
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std), torch.distributions.Normal(reference, std)
    )
    torch.testing.assert_close(gaussian_kl(mean, reference, std, ALL), exact.mean((1, 2)))
    torch.testing.assert_close(gaussian_kl(mean, reference, std, ALL, "sum"), exact.sum((1, 2)))
    mask = ALL.clone()
    mask[:, 3:] = False
    torch.testing.assert_close(gaussian_kl(mean, reference, std, mask), exact[:, :3].mean((1, 2)))


def test_kl_along_a_basis_is_that_of_its_coordinates():
    mean, reference, std, basis = normal(6, 8, 5), normal(6, 8, 5, seed=1), 0.3, smooth_basis(ALL, 3)
    along = basis.mT @ (mean - reference)
    exact = 0.5 * (along / std).square()
    torch.testing.assert_close(gaussian_kl(mean, reference, std, ALL, basis=basis), exact.mean((1, 2)))
    torch.testing.assert_close(gaussian_kl(mean, reference, std, ALL, "sum", basis), exact.sum((1, 2)))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.5, 2.0, -2.6, True),  # gone up by more than eps_high 0.3
        (1.5, -2.0, 3.0, False),  # in the wrong direction: not clipped
        (0.5, -2.0, 1.8, True),  # gone down by more than eps_low 0.1
        (0.5, 2.0, -1.0, False),
    ],
)
def test_clipping_by_hand(ratio, advantage, loss, clipped):
    ratio, advantage = torch.tensor([ratio], requires_grad=True), torch.tensor([advantage])
    value = clipped_loss(ratio, advantage, ALL[:1], 0.1, 0.3)
    assert float(value) == pytest.approx(loss)
    assert bool(is_clipped(ratio, advantage, 0.1, 0.3)) is clipped
    (gradient,) = torch.autograd.grad(value.sum(), ratio)
    assert (float(gradient) == 0) is clipped


def test_frames_are_averaged_where_they_exist():
    ratio, advantage = torch.ones(1, 4), torch.tensor([[1.0, 3.0, 50.0, 50.0]])
    mask = torch.tensor([[True, True, False, False]])
    assert float(clipped_loss(ratio, advantage, mask, 0.1, 0.1)) == -2


def test_weights_even_the_scores():
    """The gradient of the log density by the clean state is clean_weight / std x noise."""
    steps = transitions(EgoMotionSDEScheduler(timestep_spacing="trailing"), 5, 1.0)
    trained = [0, 1, 3]
    assert step_weights(steps, trained, "raw") == [1.0] * 3
    even = step_weights(steps, trained, "even")
    sizes = [weight * steps[k].clean_weight / steps[k].std for weight, k in zip(even, trained, strict=True)]
    assert sizes == pytest.approx([sizes[0]] * 3)
    assert sum(even) == pytest.approx(3)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_joints_density_is_that_of_its_numbers(reduction):
    """The 22 parts are all of a frame's numbers, each once."""
    layout = StateLayout("6d", include_hands=True)
    residual, mask = normal(2, 5, layout.dim), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    found = log_density(residual, mask, credit="joint", reduction=reduction, layout=layout)
    assert found.shape == (2, 5, 22)
    assert not found[1, 3:].any()
    numbers = torch.tensor([layout.dim - 21 * 6, *[6] * 21]) if reduction == "mean" else torch.ones(22)
    frames = log_density(residual, mask, credit="frame", reduction="sum")
    torch.testing.assert_close((found * numbers).sum(-1), frames.to(found), rtol=1e-5, atol=1e-5)
    elbow = residual.clone()
    elbow[..., 16 + 6 * 17 : 16 + 6 * 18] += 1.0
    changed = log_density(elbow, mask, credit="joint", reduction=reduction, layout=layout) != found
    assert changed[0].any(0).nonzero().tolist() == [[18]]


def test_joints_have_advantages_of_their_own():
    values = normal(8, 5, 22)
    mask = torch.ones(8, 5, dtype=torch.bool)
    found, stds = normalize_in_groups(values, 4, mask=mask)
    grouped = found.unflatten(0, (2, 4))
    torch.testing.assert_close(grouped.mean(1), torch.zeros(2, 5, 22), rtol=0, atol=1e-6)
    variance = values.unflatten(0, (2, 4)).var(dim=1).mean(dim=(1, 2))
    torch.testing.assert_close(stds, variance.sqrt())
    ratio = 1 + 0.1 * normal(8, 5, 22)
    loss = clipped_loss(ratio, found, mask, 10.0, 10.0)
    torch.testing.assert_close(loss, -(ratio * found).mean(dim=(1, 2)))


@pytest.mark.parametrize("credit", ["sequence", "frame"])
def test_gradient_is_reinforces_and_points_at_the_exact_one(credit):
    """A one-step policy N(theta, std^2) whose expected reward is known: E[-|x|^2] = -|theta|^2 - const.

    With ratios of 1 the gradient is REINFORCE's to rounding, and over many samples it is along that of the exact
    objective, which autograd knows.
    """
    frames, dims, std, samples = 4, 3, 0.5, 60_000
    theta = normal(frames, dims).requires_grad_()
    x = theta.detach() + std * normal(samples, frames, dims, seed=3)
    mask = torch.ones(samples, frames, dtype=torch.bool)
    reward = -x.square().sum(-1)
    reward = reward if credit == "frame" else reward.mean(1)
    advantage, _ = advantages({"near zero": reward}, samples)

    def density(mean: torch.Tensor) -> torch.Tensor:
        return log_density((x - mean) / std, mask, credit=credit)

    old = density(theta.detach())
    ratio = (density(theta) - old).exp()
    assert torch.equal(ratio, torch.ones_like(ratio))
    (ours,) = torch.autograd.grad(clipped_loss(ratio, advantage, mask, 0.2, 0.2).mean(), theta)
    score = (x - theta.detach()) / std**2 / dims
    weighted = advantage[:, :, None] * score if credit == "frame" else advantage[:, None, None] * score
    reinforce = -weighted.mean(0) / frames
    torch.testing.assert_close(ours, reinforce, rtol=1e-3, atol=1e-5)
    exact = 2 * theta.detach()
    cosine = torch.nn.functional.cosine_similarity(ours.flatten(), exact.flatten(), dim=0)
    assert cosine > 0.99
