"""The scheduler against diffusers, EgoAllo's formula written out by hand, and the definition of its densities."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    IPNDMScheduler,
    LMSDiscreteScheduler,
    SchedulerMixin,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_grpo.schedulers import (
    EgoMotionSDEScheduler,
    EgoMotionSDESchedulerOutput,
    noise_level,
    refuse_incompatible,
)
from tests.schedulers.setup import OURS, SHAPE, scheduler_with, states

EGOALLO_LEVELS = [1000, *(k * k for k in range(29, 0, -1)), 0]


def alpha_bars_by_definition() -> np.ndarray:
    """EgoAllo's schedule in plain Python floats: alpha_bar of levels 0..1000."""
    f = [math.cos((k / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(1001)]
    alpha_bars = [1.0]
    for k in range(1, 1001):
        alpha_bars.append(alpha_bars[-1] * (1 - min(1 - f[k] / f[k - 1], 0.999)))
    return np.array(alpha_bars)


def test_noise_is_the_cosine_schedule_by_level() -> None:
    scheduler = EgoMotionSDEScheduler()
    expected = alpha_bars_by_definition()
    np.testing.assert_allclose(scheduler.alpha_bars.numpy(), expected, rtol=1e-10)
    assert scheduler.alpha_bars[0] == 1
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), expected[1:], rtol=1e-6)
    assert (scheduler.betas.dtype, scheduler.alphas_cumprod.dtype) == (torch.float32, torch.float32)
    assert len(scheduler) == 1000
    assert scheduler.betas.max() == pytest.approx(0.999)


def test_diffusers_built_from_betas_has_the_same_noise() -> None:
    scheduler = EgoMotionSDEScheduler()
    ddim = DDIMScheduler(trained_betas=scheduler.betas.tolist(), prediction_type="sample", clip_sample=False)
    torch.testing.assert_close(ddim.alphas_cumprod, scheduler.alphas_cumprod, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EgoMotionSDEScheduler._compatibles)
def test_compatible_schedulers_read_our_configuration(name: str) -> None:
    """from_config is diffusers' way of exchanging schedulers; its own defaults are linear betas and clipping."""
    scheduler = EgoMotionSDEScheduler(timestep_spacing="trailing")
    (kind,) = [c for c in scheduler.compatibles if c.__name__ == name]
    other = kind.from_config(scheduler.config)
    torch.testing.assert_close(other.alphas_cumprod, scheduler.alphas_cumprod, rtol=0, atol=1e-6)
    other.set_timesteps(20)
    scheduler.set_timesteps(20)
    torch.testing.assert_close(noise_level(other, other.timesteps.long()), scheduler.timesteps)
    original, state = states()
    original = 5 * original  # beyond any clipping range
    for timestep in other.timesteps:
        other.scale_model_input(state, timestep)
        state = other.step(original, timestep, state).prev_sample
    torch.testing.assert_close(state, original)
    back = EgoMotionSDEScheduler.from_config(other.config)
    assert (back.config.eta, back.config.variance, back.config.timestep_spacing) == (1.0, "jump", "trailing")


def test_a_configuration_goes_to_diffusers_and_comes_back_whole() -> None:
    """In memory a class leaves out what was left at its default; from a file nothing is."""
    for config in ({}, {"variance": "single_level", "eta": 0.5}):
        scheduler = EgoMotionSDEScheduler(**config)
        for kind in scheduler.compatibles:
            back = EgoMotionSDEScheduler.from_config(kind.from_config(scheduler.config).config)
            assert {k: v for k, v in back.config.items() if k in scheduler.config} == dict(scheduler.config)


def test_a_stored_configuration_leaves_nothing_to_defaults(tmp_path) -> None:
    scheduler = EgoMotionSDEScheduler()
    scheduler.save_pretrained(tmp_path)
    stored = {k: v for k, v in scheduler.config.items() if k != "_use_default_values"}
    assert dict(EgoMotionSDEScheduler.from_pretrained(tmp_path).config) == stored


def test_eta_comes_fourth_as_in_diffusers() -> None:
    scheduler = scheduler_with(10)
    original, state, noise = states(3)
    given = scheduler.step(original, 1000, state, 0.3, variance_noise=noise)
    named = scheduler.step(original, 1000, state, eta=0.3, variance_noise=noise)
    assert torch.equal(given.prev_sample, named.prev_sample)
    assert not torch.equal(given.std, scheduler.step(original, 1000, state).std)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (IPNDMScheduler(), "IPNDMScheduler cannot sample with this denoiser, but EgoMotionSDEScheduler and diffusers'"),
        (FlowMatchEulerDiscreteScheduler(), "FlowMatchEulerDiscreteScheduler cannot sample with this denoiser"),
        (LMSDiscreteScheduler.from_config(OURS), "LMSDiscreteScheduler cannot sample"),
        (DDIMScheduler(), "The DDIMScheduler has prediction_type='epsilon', which does not fit this denoiser"),
        (DDIMScheduler.from_config(OURS, clip_sample=True), "has clip_sample=True"),
        (DDPMScheduler.from_config(OURS, thresholding=True), "has thresholding=True"),
        (
            DDIMScheduler.from_config(OURS, beta_schedule="linear"),
            r"has betas of another noise schedule \(beta_schedule='linear'\)",
        ),
        (DDIMScheduler.from_config(OURS, rescale_betas_zero_snr=True), "has rescale_betas_zero_snr=True"),
        (DDIMScheduler.from_config(EgoMotionSDEScheduler().config), "has timestep_spacing='quadratic'"),
        (DDIMScheduler.from_config(OURS, num_train_timesteps=100), "has num_train_timesteps=100, but .* on 1000 noise"),
        (EgoMotionSDEScheduler(num_train_timesteps=100), "EgoMotionSDEScheduler has num_train_timesteps=100"),
        (DPMSolverMultistepScheduler.from_config(OURS, use_flow_sigmas=True), "has use_flow_sigmas=True"),
    ],
)
def test_schedulers_that_do_not_fit_are_refused(scheduler: SchedulerMixin, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refuse_incompatible(scheduler, 1000)


def test_noise_level_counts_ours_from_one_and_diffusers_from_zero() -> None:
    assert noise_level(EgoMotionSDEScheduler(), 841) == 841
    assert noise_level(DDIMScheduler(), 840) == 841
    torch.testing.assert_close(noise_level(DDIMScheduler(), torch.tensor([999, 0])), torch.tensor([1000, 1]))


def test_add_noise_has_the_marginal_of_its_level() -> None:
    scheduler = EgoMotionSDEScheduler()
    alpha_bars = alpha_bars_by_definition()
    levels = torch.tensor([1, 300, 1000])
    original = torch.full((3, 200, 200), 2.0)
    noise = torch.randn(original.shape, generator=torch.Generator().manual_seed(0))
    noisy = scheduler.add_noise(original, noise, levels)
    for row, level in enumerate(levels.tolist()):
        std = math.sqrt(1 - alpha_bars[level])
        assert noisy[row].mean().item() == pytest.approx(2 * math.sqrt(alpha_bars[level]), abs=0.02)
        assert noisy[row].std().item() == pytest.approx(std, rel=0.02)
        torch.testing.assert_close(
            noisy[row], scheduler.add_noise(original[row : row + 1], noise[row : row + 1], level)[0]
        )
    assert torch.equal(scheduler.add_noise(original, noise, 0), original)
    ours = scheduler.add_noise(original, noise, levels)
    diffusers = DDIMScheduler.from_config(scheduler.config).add_noise(original, noise, levels - 1)
    torch.testing.assert_close(ours, diffusers, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match=r"0\.\.1000"):
        scheduler.add_noise(original, noise, 1001)


def test_thirty_quadratic_steps_are_egoallos() -> None:
    assert scheduler_with(30).levels.tolist() == EGOALLO_LEVELS
    assert scheduler_with(EGOALLO_LEVELS).levels.tolist() == EGOALLO_LEVELS
    assert scheduler_with(EGOALLO_LEVELS[:-1]).timesteps.tolist() == EGOALLO_LEVELS[:-1]


@settings(deadline=None, max_examples=200)
@given(
    spacing=st.sampled_from(["quadratic", "leading", "trailing"]),
    counts=st.integers(1, 1200).flatmap(lambda total: st.tuples(st.just(total), st.integers(1, total))),
)
def test_every_spacing_descends_to_zero(spacing: str, counts: tuple[int, int]) -> None:
    total, steps = counts
    scheduler = scheduler_with(steps, num_train_timesteps=total, timestep_spacing=spacing)
    levels = scheduler.levels
    assert (len(levels), levels[-1], scheduler.num_inference_steps) == (steps + 1, 0, steps)
    assert (levels.diff() < 0).all()
    assert levels[0] <= total if spacing == "leading" else levels[0] == total
    torch.testing.assert_close(scheduler.timesteps, levels[:-1])


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 30, 100, 1000])
def test_spacings_of_diffusers_are_theirs_plus_one(spacing: str, steps: int) -> None:
    ddim = DDIMScheduler(timestep_spacing=spacing)
    ddim.set_timesteps(steps)
    torch.testing.assert_close(scheduler_with(steps, timestep_spacing=spacing).timesteps, ddim.timesteps + 1)


def test_previous_timestep_is_the_successor() -> None:
    scheduler = scheduler_with(30)
    levels = torch.tensor([[1, 1000], [841, 4]])
    assert scheduler.previous_timestep(levels).tolist() == [[0, 841], [784, 1]]
    assert scheduler.previous_timestep(1) == 0


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("spacing", "steps"), [("leading", 30), ("leading", 7), ("trailing", 10), ("trailing", 50)])
def test_jump_is_ddim_step_for_step(eta: float, spacing: str, steps: int) -> None:
    ours = scheduler_with(steps, timestep_spacing=spacing)
    ddim = DDIMScheduler(
        trained_betas=ours.betas.tolist(), prediction_type="sample", clip_sample=False, timestep_spacing=spacing
    )
    ddim.set_timesteps(steps)
    if eta:  # 1 - alpha_bar_n - s^2 cancels in diffusers' float32: 1e-4 off at eta 1
        ddim.alphas_cumprod = ours.alpha_bars[1:]
    original, state, noise = states(3)
    for level, timestep in zip(ours.timesteps, ddim.timesteps, strict=True):
        expected = ddim.step(original, timestep, state, eta=eta, variance_noise=noise if eta else None).prev_sample
        actual = ours.step(original, level, state, eta=eta, variance_noise=noise).prev_sample
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
        state = expected


def test_eta_one_is_the_ancestral_posterior() -> None:
    """q(x_n | x_t, x_0) = N(...) of Ho et al. 2020, Eq. 6-7, with the jump's alphas; on EgoAllo's levels."""
    ours = scheduler_with(30)
    ddpm = DDPMScheduler.from_config(ours.config)
    ddpm.set_timesteps(timesteps=(ours.timesteps - 1).tolist())
    ddpm.alphas_cumprod = ours.alpha_bars[1:]  # float64: its 1 - alpha_bar cancels at low levels
    alpha_bars = alpha_bars_by_definition()
    original, state = states()
    for t, n in pairwise(EGOALLO_LEVELS):
        out = ours.step(original, t, state, eta=1.0, generator=torch.Generator().manual_seed(t))
        alpha = alpha_bars[t] / alpha_bars[n]
        mean = math.sqrt(alpha_bars[n]) * (1 - alpha) / (1 - alpha_bars[t]) * original
        mean += math.sqrt(alpha) * (1 - alpha_bars[n]) / (1 - alpha_bars[t]) * state
        torch.testing.assert_close(out.prev_sample_mean, mean, rtol=1e-5, atol=1e-6)
        assert out.std.item() ** 2 == pytest.approx((1 - alpha_bars[n]) / (1 - alpha_bars[t]) * (1 - alpha), rel=1e-5)
        theirs = ddpm.step(original, t - 1, state, generator=torch.Generator().manual_seed(t)).prev_sample
        torch.testing.assert_close(out.prev_sample, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("t", [1000, 841, 400, 25, 4, 1])
def test_egoallos_step_by_hand(t: int) -> None:
    scheduler = EgoMotionSDEScheduler.egoallo()
    scheduler.set_timesteps(30)
    n = EGOALLO_LEVELS[EGOALLO_LEVELS.index(t) + 1]
    ab = alpha_bars_by_definition()
    alpha = ab[t] / ab[t - 1]
    s = 0.8 * math.sqrt((1 - ab[t - 1]) / (1 - ab[t]) * (1 - alpha))
    original, state, noise = states(3)
    direction = (state - math.sqrt(ab[t]) * original) / math.sqrt(1 - ab[t] + 0.1)
    expected = math.sqrt(ab[n]) * original + math.sqrt(1 - ab[n] - s**2) * direction + s * noise
    out = scheduler.step(original, t, state, variance_noise=noise)
    torch.testing.assert_close(out.prev_sample, expected, rtol=1e-5, atol=1e-6)
    assert out.std.item() == pytest.approx(s, rel=1e-5)
    if t == 841:  # the figure of the documentation
        assert out.std.item() == pytest.approx(0.0883, abs=1e-4)


def test_egoallo_settings_can_be_replaced() -> None:
    config = EgoMotionSDEScheduler.egoallo(eta=0.1).config
    assert (config.eta, config.variance, config.direction_offset) == (0.1, "single_level", 0.1)


@pytest.mark.parametrize("config", [{}, {"variance": "single_level", "timestep_spacing": "trailing", "eta": 0.3}])
def test_last_step_returns_the_clean_state_without_density(config: dict) -> None:
    scheduler = scheduler_with(10, **config)
    original, state = states()
    out = scheduler.step(original, scheduler.timesteps[-1], state)
    torch.testing.assert_close(out.prev_sample, original, rtol=0, atol=0)
    assert out.std.item() == 0
    assert out.log_prob is None
    with pytest.raises(ValueError, match="no density"):
        scheduler.step(original, scheduler.timesteps[-1], state, prev_sample=original)


def test_constant_prediction_keeps_the_forward_marginal() -> None:
    """If the denoiser knows x0, states of every eta stay distributed like add_noise's: mean and std at every level."""
    scheduler = scheduler_with(12)
    original = torch.full((1, 40_000), 0.7)
    for eta in (0.0, 0.6, 1.0):
        generator = torch.Generator().manual_seed(3)
        state = scheduler.add_noise(original, torch.randn(original.shape, generator=generator), 1000)
        for level, following in zip(scheduler.levels[:-1], scheduler.levels[1:], strict=True):
            state = scheduler.step(original, level, state, eta=eta, generator=generator).prev_sample
            alpha_bar = scheduler.alpha_bars[following].item()
            assert state.std().item() == pytest.approx(math.sqrt(1 - alpha_bar), rel=0.02, abs=1e-6)
            assert state.mean().item() == pytest.approx(0.7 * math.sqrt(alpha_bar), abs=0.02)


@settings(deadline=None, max_examples=50)
@given(
    index=st.integers(0, 28),
    eta=st.floats(0.05, 1.0),
    single=st.booleans(),
    offset=st.sampled_from([0.0, 0.1]),
)
def test_log_prob_is_torchs_normal(index: int, eta: float, single: bool, offset: float) -> None:
    variance = "single_level" if single else "jump"
    eta *= 0.9 if single else 1.0  # one level's noise at 1000 is more than level 841 holds
    scheduler = scheduler_with(30, variance=variance, eta=eta, direction_offset=offset)
    original, state = states()
    out = scheduler.step(original, scheduler.timesteps[index], state, generator=torch.Generator().manual_seed(index))
    assert out.log_prob.shape == SHAPE
    expected = torch.distributions.Normal(out.prev_sample_mean, out.std).log_prob(out.prev_sample)
    assert torch.equal(out.log_prob, expected)
    z = (out.prev_sample - out.prev_sample_mean).double() / out.std.double()
    by_hand = -0.5 * z**2 - out.std.double().log() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(out.log_prob.double(), by_hand, rtol=1e-5, atol=1e-5)
    scored = scheduler.step(original, scheduler.timesteps[index], state, prev_sample=out.prev_sample)
    assert torch.equal(scored.log_prob, out.log_prob)
    assert torch.equal(scored.prev_sample, out.prev_sample)


def test_rows_at_different_levels_equal_single_steps() -> None:
    """What post-training relies on: a rollout's rows, shuffled over levels and batches, have the same densities."""
    scheduler = scheduler_with(10)
    batch = 23
    original, state, noise = states(3, (batch, 7, 3))
    levels = scheduler.timesteps[torch.arange(batch) % 9]
    out = scheduler.step(original, levels, state, variance_noise=noise, eta=0.7)
    assert out.std.shape == (batch, 1, 1)
    for row, level in enumerate(levels.tolist()):
        one = slice(row, row + 1)
        alone = scheduler.step(original[one], level, state[one], eta=0.7, prev_sample=out.prev_sample[one])
        assert torch.equal(alone.prev_sample_mean[0], out.prev_sample_mean[row])
        assert torch.equal(alone.log_prob[0], out.log_prob[row])
        assert alone.std.item() == out.std[row].item()


def test_prev_timestep_replaces_the_schedule() -> None:
    scheduler = scheduler_with(10)
    original, state, noise = states(3)
    pairs = [(1000, 841), (841, 784), (50, 3), (999, 998)]
    levels, following = (torch.tensor(column) for column in zip(*pairs, strict=True))
    out = scheduler.step(original, levels, state, prev_timestep=following, variance_noise=noise)
    for row, (level, lower) in enumerate(pairs):
        one = slice(row, row + 1)
        custom = scheduler_with([level, lower])
        alone = custom.step(original[one], level, state[one], variance_noise=noise[one])
        torch.testing.assert_close(alone.prev_sample[0], out.prev_sample[row], rtol=0, atol=0)


def test_a_batch_with_a_last_step_is_drawn_but_not_scored() -> None:
    scheduler = scheduler_with(10)
    original, state, noise = states(3)
    levels = scheduler.timesteps[[0, 4, 9, 2]]
    out = scheduler.step(original, levels, state, variance_noise=noise)
    assert out.log_prob is None
    torch.testing.assert_close(out.prev_sample[2], original[2], rtol=0, atol=0)
    assert ((out.std == 0).flatten() == torch.tensor([False, False, True, False])).all()
    with pytest.raises(ValueError, match=r"row\(s\) \[2\]"):
        scheduler.step(original, levels, state, prev_sample=noise)


def test_gradient_is_the_score_functions_whether_drawn_or_scored() -> None:
    scheduler = scheduler_with(10)
    original, state, noise = states(3)
    level = scheduler.timesteps[3]
    original.requires_grad_()
    drawn = scheduler.step(original, level, state, variance_noise=noise)
    (gradient,) = torch.autograd.grad(drawn.log_prob.sum(), original)
    scored = scheduler.step(original, level, state, prev_sample=drawn.prev_sample.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(scored.log_prob.sum(), original)[0], rtol=0, atol=0)
    weight = torch.autograd.grad(scheduler.step(original, level, state).prev_sample_mean.sum(), original)[0]
    torch.testing.assert_close(gradient, weight * noise / drawn.std, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_networks_get_float32_densities(dtype: torch.dtype) -> None:
    scheduler = scheduler_with(10)
    original, state, noise = states(3)
    out = scheduler.step(original.to(dtype), scheduler.timesteps[2], state.to(dtype), variance_noise=noise)
    expected = scheduler.step(
        original.to(dtype).float(), scheduler.timesteps[2], state.to(dtype).float(), variance_noise=noise
    )
    assert {value.dtype for value in out.values()} == {torch.float32}
    assert torch.equal(out.log_prob, expected.log_prob)
    assert scheduler.add_noise(original.to(dtype), noise, 500).dtype == torch.float32


def test_a_seed_fixes_the_step_and_a_list_of_seeds_each_row() -> None:
    scheduler = scheduler_with(10)
    original, state = states()

    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    def draw(generator, rows=slice(None)):
        return scheduler.step(original[rows], scheduler.timesteps[1], state[rows], generator=generator).prev_sample

    assert torch.equal(draw(seeded(5)), draw(seeded(5)))
    assert not torch.equal(draw(seeded(5)), draw(seeded(6)))
    together = draw([seeded(s) for s in range(4)])
    assert torch.equal(together[2:], draw([seeded(2), seeded(3)], slice(2, 4)))
    assert torch.equal(together[1:2], draw([seeded(1)], slice(1, 2)))


def test_configuration_survives_a_folder(tmp_path: Path) -> None:
    scheduler = EgoMotionSDEScheduler.egoallo(eta=0.3, timestep_spacing="trailing")
    scheduler.save_pretrained(tmp_path / "scheduler")
    loaded = EgoMotionSDEScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    keep = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    assert keep == {key: loaded.config[key] for key in keep}
    solver = DPMSolverMultistepScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    torch.testing.assert_close(solver.alphas_cumprod, scheduler.alphas_cumprod, rtol=0, atol=1e-6)


def test_output_is_a_diffusers_output() -> None:
    scheduler = scheduler_with(10)
    original, state, noise = states(3)
    out = scheduler.step(original, scheduler.timesteps[0], state, variance_noise=noise)
    assert isinstance(out, EgoMotionSDESchedulerOutput)
    as_tuple = scheduler.step(original, scheduler.timesteps[0], state, variance_noise=noise, return_dict=False)
    assert len(as_tuple) == 5
    assert all(torch.equal(a, b) for a, b in zip(as_tuple, out.to_tuple(), strict=True))
    assert torch.equal(as_tuple[0], out.prev_sample)
    assert torch.equal(as_tuple[1], original)
    assert scheduler.scale_model_input(state, scheduler.timesteps[0]) is state
    assert (scheduler.init_noise_sigma, scheduler.order) == (1.0, 1)
