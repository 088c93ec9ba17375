"""Rollouts: which steps explore, with which noise, on which head, and what their ratios are."""

import pytest
import torch

from motion_grpo.rewards import RewardInputs
from motion_grpo.training.grpo.experience import Groups, draw
from tests.training.grpo.rollouts import NUMBERS, experience, watch_rollouts
from tests.training.grpo.setup import logged, pipeline, trainer


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        ({}, {}),
        ({}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}),
        (
            {"dropout_p": 0.5},
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "credit": "frame",
             "exploration": "smooth", "last_step_std": 0.1},
        ),
        (
            {"noise_conditioning": "token", "noise_in_encoder": True},
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "head_noise_per_sample": True},
        ),
    ],
)  # fmt: skip
def test_the_first_ratio_is_one(tmp_path, network, settings):
    """Whatever dropout, and however the rollout is divided into batches of the update."""
    run = trainer(tmp_path, base=pipeline(**network), **settings)
    run.train()
    assert max(logged(run, "ratio/first_error")) < 1e-6
    assert not run.denoiser.training


def test_the_first_ratio_of_summed_densities_is_one(tmp_path):
    run = trainer(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, log_prob_reduction="sum")
    run.train()
    assert max(logged(run, "ratio/first_error")) < 1e-3
    assert experience(run).log_probs[0].dtype == torch.float64


def test_later_updates_of_a_rollout_move_the_ratio_and_are_clipped(tmp_path):
    run = trainer(tmp_path, num_iterations=3, max_steps=6, epsilon=1e-5)
    seen = watch_rollouts(run)
    run.train()
    assert len(seen) == 2
    # The log of step 1 belongs to the rollout's own policy, those of 2 and 3 to another.
    spread, clipped = logged(run, "ratio/std"), logged(run, "clip_fraction")
    assert spread[0] < 1e-6
    assert min(spread[1:3]) > 1e-5
    assert clipped[0] == 0
    assert clipped[2] > 0.2


def test_densities_stay_float32_under_bfloat16(tmp_path):
    run = trainer(tmp_path, bf16=True, max_steps=1)
    run.train()
    part = experience(run)
    latents = part.latents[0][part.rows]
    clean = run.model_wrapped(latents, part.transitions[0].level, part.cond, part.mask, part.rows)
    run.accelerator.native_amp = False
    exact = run.policy.denoiser(latents, torch.full((8,), 1000), part.cond[part.rows], part.mask[part.rows]).sample
    # The forward pass is bfloat16 indeed ...
    assert (clean - exact).abs().mean() > 1e-5
    # ... and what follows is exact to float32.
    mean = part.transitions[0].clean_weight * clean.double() + part.transitions[0].latent_weight * latents.double()
    residual = (part.latents[1].double() - mean) / part.transitions[0].std
    torch.testing.assert_close(part.log_probs[0].double(), -0.5 * residual.square().mean((1, 2)), rtol=0, atol=1e-5)


def test_the_deterministic_last_step_is_not_trained(tmp_path):
    run = trainer(tmp_path)
    part = experience(run)
    assert part.trained == [0, 1]
    assert [step.std > 0 for step in part.transitions] == [True, True, False]
    assert len(part.log_probs) == 2


def test_smooth_noise_on_the_last_step_makes_it_trainable(tmp_path):
    run = trainer(tmp_path, last_step_std=0.2, head_noise=0.0, num_generations=8, eta=1e-3)
    run._step = 0
    part = run._generate_and_score_completions({"condition": torch.tensor([3] * 8)})
    assert part.trained == [0, 1, 2]
    clean = run.model_wrapped(part.latents[2], part.transitions[2].level, part.cond, part.mask, part.rows)
    noise = part.latents[3] - clean
    assert float(noise.std()) == pytest.approx(0.2, rel=0.1)
    basis = part.basis[0]
    torch.testing.assert_close(basis @ (basis.T @ noise), noise, rtol=0, atol=1e-5)
    # The mean over the coordinates of a standard normal's square is 1.
    assert float(part.log_probs[2].mean()) == pytest.approx(-0.5, rel=0.1)


def test_only_steps_of_the_window_are_stochastic(tmp_path):
    run = trainer(tmp_path, num_sampling_steps=4, sde_window_size=1, sde_window_start=1)
    part = experience(run)
    assert part.trained == [1]
    # Up to there a group is in one state.
    assert [len(x) for x in part.latents] == [2, 2, 8, 8, 8]
    assert not torch.equal(part.latents[2][0], part.latents[2][1])


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_steps_outside_the_window_are_those_of_the_pipelines_sampler(tmp_path, eta):
    """Noise that they draw is the group's: its members differ by the window alone."""
    base = pipeline()
    base.scheduler.register_to_config(eta=eta)
    run = trainer(tmp_path, base=base, num_sampling_steps=4, sde_window_size=1, sde_window_start=1, head_noise=0.0)
    part = experience(run)
    assert [step.std > 0 for step in part.transitions] == [eta > 0, True, eta > 0, False]
    before, after = (part.latents[number + 1] - part.mean(run.policy, number) for number in (0, 2))
    torch.testing.assert_close(after[:4], after[:1].expand(4, -1, -1), rtol=0, atol=1e-5)
    for noise, number in ((before, 0), (after, 2)):
        assert float(noise.std()) == pytest.approx(part.transitions[number].std, rel=0.1, abs=1e-6)
    assert part.trained == [1]


def test_the_last_step_alone_can_explore(tmp_path):
    run = trainer(tmp_path, num_sampling_steps=4, sde_window_size=0, last_step_std=0.1, exploration_components=16)
    part = experience(run)
    assert part.explored == part.trained == [3]
    assert [len(x) for x in part.latents] == [2, 2, 2, 2, 8]
    assert part.advantages.abs().max() > 0.1


@pytest.mark.parametrize("credit", ["sequence", "frame", "joint"])
def test_betas_can_be_left_out_of_the_density(tmp_path, credit):
    """What they are changes neither density nor KL; what the rest of the state is does."""
    run = trainer(tmp_path, credit=credit, train_betas=False, last_step_std=0.1, beta=0.1)
    part = experience(run)
    betas = slice(0, run.denoiser.state_layout.sizes["betas"])
    mean = part.mean(run.policy, 2).detach().requires_grad_()
    part.log_density(2, part.latents[3], mean).sum().backward()
    assert mean.grad[..., betas].abs().max() == 0
    assert mean.grad[..., betas.stop :].abs().mean() > 0
    moved = mean.detach().clone()
    moved[..., betas] += 1.0
    assert float(part.kl(2, moved, mean.detach()).abs().max()) == 0
    moved[..., betas.stop] += 1.0
    assert float(part.kl(2, moved, mean.detach()).min()) > 0


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, [2, 8, 8]),
        ({"sde_window_size": 1, "sde_window_start": 1}, [2, 2, 8]),
        ({"sde_window_size": 0, "last_step_std": 0.1}, [2, 2, 2]),
        ({"head_noise_per_sample": True}, [8, 8, 8]),
    ],
)
def test_what_a_group_shares_is_asked_of_the_network_once(tmp_path, settings, asked):
    run = trainer(tmp_path, **settings)
    calls: list[int] = []
    run.policy.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    part = experience(run)
    assert calls == asked
    for number in range(part.fork, 3):
        mean, step = part.mean(run.policy, number), part.transitions[number]
        latents = part.latents[number][part.rows] if number <= part.fork else part.latents[number]
        alone = step.mean(run.policy(latents, step.level, part.cond, part.mask, part.rows), latents)
        torch.testing.assert_close(mean, alone, rtol=1e-5, atol=1e-5)


def test_random_windows_and_shares_change_with_the_rollout(tmp_path):
    run = trainer(tmp_path, num_sampling_steps=5, sde_window_size=2)
    assert {tuple(experience(run, generation).trained) for generation in range(8)} == {(0, 1), (1, 2), (2, 3)}
    run = trainer(tmp_path, num_sampling_steps=5, timestep_fraction=0.5)
    picks = [experience(run, generation).trained for generation in range(6)]
    assert all(len(pick) == 2 for pick in picks)
    assert len({tuple(pick) for pick in picks}) > 1


@pytest.mark.parametrize("per_sample", [False, True])
def test_a_rollout_does_not_depend_on_how_its_groups_are_divided(tmp_path, per_sample):
    run = trainer(tmp_path, exploration="smooth", head_noise_per_sample=per_sample)

    def states(first: int, stop: int) -> list[torch.Tensor]:
        groups = Groups.of(NUMBERS[first:stop], first, 4)
        truth = run.conditions(groups.conditions)
        drawn = draw(run.args, run.policy, run.denoiser, run.rollout_scheduler, truth, 7, groups)
        shared = drawn.fork + 1
        return [*(x[drawn.rows] for x in drawn.latents[:shared]), *drawn.latents[shared:], *drawn.log_probs]

    parts = zip(states(0, 3), states(3, 8), strict=True)
    for whole, halves in zip(states(0, 8), parts, strict=True):
        torch.testing.assert_close(torch.cat(halves), whole, rtol=1e-5, atol=1e-5)


def test_rollouts_differ_by_generation_and_repeat_by_seed(tmp_path):
    run = trainer(tmp_path)
    first, again, other = experience(run), experience(run), experience(run, 1)
    for a, b, c in zip(first.latents, again.latents, other.latents, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    reseeded = experience(trainer(tmp_path, seed=1))
    assert not torch.equal(first.latents[0], reseeded.latents[0])


@pytest.mark.parametrize("per_sample", [False, True])
def test_the_policy_sees_a_perturbed_head_and_is_rewarded_on_the_clean_one(tmp_path, per_sample):
    seen: list[RewardInputs] = []

    def reward(inputs: RewardInputs) -> torch.Tensor:
        seen.append(inputs)
        return inputs.joints[:, :, 15, 2].mean(1)

    run = trainer(tmp_path, head_noise=0.2, head_noise_per_sample=per_sample, rewards_by_name={"mine": reward})
    part = experience(run)
    truth = run.conditions([3, 5])
    clean = run.denoiser.condition(truth.head)
    assert len(part.cond) == (8 if per_sample else 2)
    assert (part.cond - (clean.repeat_interleave(4, 0) if per_sample else clean)).abs().max() > 0.01
    assert torch.equal(part.cond[0], part.cond[1]) is False
    assert torch.equal(seen[0].head.p_world_cpf, truth.head.p_world_cpf.repeat_interleave(4, 0))
    assert torch.equal(seen[0].true_joints, truth.joints.repeat_interleave(4, 0))
    # Hung from the clean head: the heads of all samples are where it is.
    heads = seen[0].joints[:, :, 15]
    assert (heads - heads[:1].expand_as(heads))[:4].abs().max() < 0.15
