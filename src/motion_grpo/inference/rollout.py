"""Sampling for training: windows of many conditions in one batch, every state kept, for post-training and critics."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.motion import MotionState, StateLayout
from motion_grpo.schedulers import EgoMotionSDEScheduler

StepNoise = Callable[[int], Float[Tensor, "samples frames d_state"]]
"""Standard normal noise of the k-th step, counted from 0."""


class Transition(NamedTuple):
    """One step x_t -> x_next of the policy: N(clean_weight x0 + latent_weight x_t, std^2) (MotionGRPO, Eq. 7)."""

    level: int
    """Noise level of x_t."""
    next_level: int
    clean_weight: float
    latent_weight: float
    std: float
    """0 for a deterministic step, which has no density."""

    def mean(
        self, clean: Float[Tensor, "samples frames d_state"], latents: Float[Tensor, "samples frames d_state"]
    ) -> Float[Tensor, "samples frames d_state"]:
        """Mean of x_next; differentiable in the predicted clean state."""
        return self.clean_weight * clean + self.latent_weight * latents


def transition(scheduler: EgoMotionSDEScheduler, level: int, next_level: int, eta: float) -> Transition:
    """The step from one noise level to a lower one.

    Args:
        scheduler: sets the law of a step.
        level: of x_t.
        next_level: the step to level 0 is always deterministic.
        eta: stochasticity.

    Raises:
        ValueError: eta is negative, or more than the step can take.
    """
    # The mean is linear in both states, so its weights are what a state of 1 becomes beside one of 0.
    clean, latents = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    out = scheduler.step(clean, level, latents, eta=eta, variance_noise=torch.zeros(2), prev_timestep=next_level)
    return Transition(level, next_level, *out.prev_sample_mean.tolist(), float(out.std.flatten()[0]))


def transitions(scheduler: EgoMotionSDEScheduler, num_steps: int, eta: float) -> list[Transition]:
    """The steps of a rollout: n of them, between the levels of the scheduler."""
    scheduler.set_timesteps(num_steps)
    return [transition(scheduler, *levels, eta) for levels in pairwise(scheduler.levels.tolist())]


@dataclass(frozen=True)
class Rollout:
    """The states that n sampling steps went through."""

    levels: list[int]
    """n + 1 noise levels, falling; the last is 0."""
    latents: list[Float[Tensor, "samples frames d_state"]]
    """n + 1 states x_t, one for each level; the last is the clean state. Transition k leads from k to k + 1."""
    clean: list[Float[Tensor, "samples frames d_state"]]
    """n predictions of the clean state, one for each step, rotations projected."""


def predict_clean(
    network: nn.Module,
    layout: StateLayout,
    latents: Float[Tensor, "samples frames d_state"],
    level: int | Int64[Tensor, " samples"],
    cond: Float[Tensor, "samples frames d_cond"],
    mask: Bool[Tensor, "samples frames"],
    encoded: Float[Tensor, "samples tokens d_latent"] | None = None,
    *,
    project: bool = True,
) -> Float[Tensor, "samples frames d_state"]:
    """The clean state that the network predicts, float32; differentiable.

    Sampling and scoring must both go through here: the ratio of their densities is 1 only if their means are the same.

    Args:
        network: an :class:`EgoMotionDenoiser`, or what accelerate wrapped it in.
        layout: the denoiser's.
        latents: x_t.
        level: its noise level, or one a sample.
        cond: head features.
        mask: True for frames that exist.
        encoded: of :meth:`EgoMotionDenoiser.encode`, where it serves every step.
        project: whether its rotations are made proper ones.
    """
    levels = level if isinstance(level, Tensor) else torch.full((len(latents),), level, device=latents.device)
    x0 = network(latents, levels, cond, mask, encoded, return_dict=False)[0].float()
    if not project:
        return x0
    # Kinematics and densities in bfloat16 would be off by centimeters.
    with torch.autocast(latents.device.type, enabled=False):
        return MotionState.unpack(x0, layout).pack(layout)


@torch.no_grad()
def rollout(
    denoiser: EgoMotionDenoiser,
    scheduler: EgoMotionSDEScheduler,
    start: Float[Tensor, "samples frames d_state"],
    noise: StepNoise,
    cond: Float[Tensor, "samples frames d_cond"],
    mask: Bool[Tensor, "samples frames"],
    *,
    num_steps: int,
    eta: float,
    encoded: Float[Tensor, "samples tokens d_latent"] | None = None,
) -> Rollout:
    """Draws a motion state for every row (MotionGRPO, Eq. 7).

    Args:
        denoiser: the policy; in eval mode if it has dropout.
        scheduler: sets the noise levels.
        start: x_T, standard normal.
        noise: see :data:`StepNoise`; not asked for in a step without any (eta 0, and the last).
        cond: head features of each row.
        mask: True for frames that exist.
        num_steps: n.
        eta: stochasticity.
        encoded: see :func:`predict_clean`; computed here when None and the encoder does not see the noise.
    """
    layout = denoiser.state_layout
    if encoded is None and not denoiser.config.noise_in_encoder:
        encoded = denoiser.encode(cond, None, mask)

    steps, latents, clean = transitions(scheduler, num_steps, eta), [start], []
    for number, step in enumerate(steps):
        clean.append(predict_clean(denoiser, layout, latents[-1], step.level, cond, mask, encoded))
        mean = step.mean(clean[-1], latents[-1])
        latents.append(mean + step.std * noise(number) if step.std > 0 else mean)
    return Rollout([step.level for step in steps] + [steps[-1].next_level], latents, clean)
