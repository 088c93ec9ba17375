"""Batched sampling for training: its transitions are the scheduler's, its samples those of inference."""

import math

import pytest
import torch

from motion_grpo.inference.rollout import rollout, transitions
from motion_grpo.inference.sampling import sample_latents
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training.grpo.experience import path
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import head_trajectory, tiny_denoiser
from tests.training.grpo.setup import pipeline, trainer


@pytest.mark.parametrize("spacing", ["quadratic", "trailing", "leading"])
@pytest.mark.parametrize(("variance", "eta"), [("jump", 0.0), ("jump", 0.5), ("jump", 1.0), ("single_level", 0.1)])
def test_transitions_are_the_schedulers_steps(spacing, variance, eta):
    scheduler = EgoMotionSDEScheduler(timestep_spacing=spacing, variance=variance, direction_offset=0.1)
    steps = transitions(scheduler, 4, eta)
    clean, latents, noise = torch.randn(3, 2, 5, 7)
    assert [step.next_level for step in steps] == [*[step.level for step in steps[1:]], 0]
    assert steps[-1][2:] == (1.0, 0.0, 0.0)
    for step in steps:
        ours = step.mean(clean, latents) + step.std * noise
        theirs = scheduler.step(clean, step.level, latents, eta=eta, variance_noise=noise).prev_sample
        assert torch.equal(ours, theirs)


def test_steps_that_do_not_explore_are_the_pipelines_own(tmp_path):
    """EgoAllo's sampler, whose step from 841 to 784 of 30 steps has the noise of one level, times 0.8."""
    base = pipeline()
    base.scheduler = EgoMotionSDEScheduler.egoallo()
    settings = {"num_sampling_steps": 30, "sde_window_size": 2, "sde_window_start": 4}
    run = trainer(tmp_path, base=base, **settings)

    def shown(scheduler):
        return {k: v for k, v in scheduler.config.items() if not k.startswith("_")}

    assert shown(run.rollout_scheduler) == shown(base.scheduler)
    steps, explored, trained = path(run.args, run.rollout_scheduler, 0)
    assert explored == trained == [4, 5]
    assert (steps[1].level, steps[1].next_level) == (841, 784)
    f = [math.cos((level / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for level in (0, 784, 840, 841)]
    left_784, left_840, left_841 = (x / f[0] for x in f[1:])  # alpha bars
    assert steps[1].std == pytest.approx(0.8 * math.sqrt((1 - left_840) / (1 - left_841) * (1 - left_841 / left_840)))
    assert steps[1].std == pytest.approx(0.088, abs=5e-4)
    direction = math.sqrt((1 - left_784 - steps[1].std ** 2) / (1 - left_841 + 0.1))
    assert steps[1].latent_weight == pytest.approx(direction)
    assert steps[1].clean_weight == pytest.approx(math.sqrt(left_784) - direction * math.sqrt(left_841))
    own = transitions(base.scheduler, 30, 0.8)
    assert [number for number in range(30) if steps[number] != own[number]] == explored
    # Those that explore are Eq. 7's, whatever the pipeline's are.
    exact = transitions(EgoMotionSDEScheduler(), 30, run.args.eta)
    assert [steps[number] for number in explored] == [exact[number] for number in explored]


def test_levels_of_a_rollout_are_the_networks(tmp_path):
    base = pipeline()
    base.scheduler = EgoMotionSDEScheduler(num_train_timesteps=500, timestep_spacing="trailing")
    assert trainer(tmp_path, base=base).rollout_scheduler.config.num_train_timesteps == 500


def test_a_pipeline_whose_steps_cannot_be_drawn_is_refused(tmp_path):
    base = pipeline()
    base.scheduler = EgoMotionSDEScheduler(eta=3.0)
    with pytest.raises(ValueError, match=r"eta=3\.0 .* adds more noise in the step"):
        trainer(tmp_path, base=base, sde_window_size=0, last_step_std=0.1)
    trainer(tmp_path, base=base)  # every step explores, and none is the pipeline's


def test_noise_is_added_to_the_mean_of_every_step_but_the_last():
    denoiser, scheduler = tiny_denoiser(rotation_representation="6d"), EgoMotionSDEScheduler()
    trajectory = head_trajectory(16)
    cond = denoiser.condition(HeadPoses.from_world(trajectory.R_world_cpf, trajectory.p_world_cpf))[None]
    start, asked = torch.randn(1, 16, denoiser.state_layout.dim), []

    def noise(number: int) -> torch.Tensor:
        asked.append(number)
        return torch.full_like(start, 10.0)

    mask = torch.ones(1, 16, dtype=torch.bool)
    drawn = rollout(denoiser, scheduler, start, noise, cond, mask, num_steps=3, eta=1.0)
    assert asked == [0, 1]
    steps = transitions(scheduler, 3, 1.0)
    for step, before, clean, after in zip(steps, drawn.latents, drawn.clean, drawn.latents[1:], strict=False):
        expected = step.clean_weight * clean + step.latent_weight * before + 10 * step.std
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)


def test_samples_are_those_of_inference():
    """One window, the same start: the pipeline's sampler and the rollout go the same way."""
    denoiser, scheduler = tiny_denoiser(rotation_representation="6d"), EgoMotionSDEScheduler()
    trajectory = head_trajectory(16)
    head = HeadPoses.from_world(trajectory.R_world_cpf, trajectory.p_world_cpf)
    start = torch.randn(2, 16, denoiser.state_layout.dim)
    expected = sample_latents(
        denoiser, scheduler, head, num_samples=2, num_inference_steps=4, eta=0.0, latents=start, window=32, overlap=4
    )
    cond = denoiser.condition(head).expand(2, -1, -1)
    mask = torch.ones(2, 16, dtype=torch.bool)
    drawn = rollout(denoiser, scheduler, start, lambda step: torch.zeros_like(start), cond, mask, num_steps=4, eta=0.0)
    torch.testing.assert_close(drawn.latents[-1], expected, rtol=1e-4, atol=1e-4)
    assert drawn.levels == scheduler.levels.tolist()
    assert (len(drawn.latents), len(drawn.clean)) == (5, 4)
    assert torch.equal(drawn.latents[-1], drawn.clean[-1])
