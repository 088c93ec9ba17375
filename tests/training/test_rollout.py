"""Batched sampling for training: its transitions are the scheduler's, its samples those of inference."""

import pytest
import torch

from motion_grpo.conditioning import HeadPoses
from motion_grpo.inference.sampling import sample_latents
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training.rollout import rollout, transitions
from tests.tiny import head_trajectory, tiny_denoiser


@pytest.mark.parametrize("spacing", ["quadratic", "trailing", "leading"])
@pytest.mark.parametrize("eta", [0.0, 0.5, [1.0, 0.0, 0.7, 0.3]])
def test_transitions_are_the_schedulers_steps(spacing, eta):
    scheduler = EgoMotionSDEScheduler(timestep_spacing=spacing)
    steps = transitions(scheduler, 4, eta)
    clean, latents, noise = torch.randn(3, 2, 5, 7)
    etas = eta if isinstance(eta, list) else [eta] * 4
    assert [step.next_level for step in steps] == [*[step.level for step in steps[1:]], 0]
    assert steps[-1][2:] == (1.0, 0.0, 0.0)
    for step, value in zip(steps, etas, strict=True):
        ours = step.mean(clean, latents) + step.std * noise
        theirs = scheduler.step(clean, step.level, latents, eta=value, variance_noise=noise).prev_sample
        assert torch.equal(ours, theirs)


def test_one_stochasticity_a_step():
    with pytest.raises(ValueError):
        transitions(EgoMotionSDEScheduler(), 4, [1.0, 1.0])


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
