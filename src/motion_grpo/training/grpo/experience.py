"""Rollouts of GRPO: groups of samples for a batch of conditions, with everything that an update needs of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from motion_grpo.inference.rollout import Transition, transition
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.motion import FPS, StateLayout
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.seeding import generator_of
from motion_grpo.training.grpo.config import MotionGRPOConfig
from motion_grpo.training.grpo.exploration import (
    ExplorationNoise,
    explored_steps,
    smooth_basis,
    trained_transitions,
)
from motion_grpo.training.grpo.objective import gaussian_kl, log_density, step_weights
from motion_grpo.training.grpo.perlin import perlin_noise, perturb_head
from motion_grpo.training.judging import Conditions
from motion_grpo.trajectory.head_poses import HeadPoses

Predict = Callable[[Tensor, int, Tensor, Tensor, Tensor], Tensor]
"""The policy's clean state, see :meth:`~motion_grpo.training.policy.MotionPolicy.forward`."""


@dataclass(frozen=True)
class Groups:
    """The samples of one process in a rollout."""

    conditions: list[int]
    """Number of each condition, in the data set."""
    rows: list[int]
    """Place in ``conditions`` of each sample's condition, never falling."""
    members: list[int]
    """Number of each sample in its group, which may continue on the next process."""

    @staticmethod
    def of(numbers: Sequence[int], first: int, group_size: int) -> "Groups":
        """Samples of these conditions, the first of them at place ``first`` of the whole batch."""
        conditions = list(dict.fromkeys(numbers))
        place = {number: row for row, number in enumerate(conditions)}
        members = [(first + i) % group_size for i in range(len(numbers))]
        return Groups(conditions, [place[number] for number in numbers], members)


@dataclass(frozen=True)
class Experience:
    """What an update learns from: samples, of whole groups or parts of them, and how they were drawn."""

    args: MotionGRPOConfig
    layout: StateLayout
    """Of a state."""
    transitions: list[Transition]
    explored: list[int]
    """Transitions in which every sample drew noise of its own; in the others the noise, if any, is the group's."""
    trained: list[int]
    """Those of them that an update learns from."""
    weights: list[float]
    """Of each trained transition in the objective."""
    latents: list[Tensor]
    """States, one for each level; transition k leads from k to k + 1. Up to the fork they are (rows, frames, d_state),
    then (samples, frames, d_state)."""
    log_probs: list[Tensor]
    """Under the policy that drew them, for each trained transition: (samples, *parts)."""
    advantages: Float[Tensor, " samples *parts"]
    """One a sample, frame, or frame and joint, as ``credit`` says."""
    rows: Int64[Tensor, " samples"]
    """Row of each sample in what follows, never falling."""
    cond: Float[Tensor, "rows frames d_cond"]
    """Features of the head that the policy sees."""
    mask: Bool[Tensor, "rows frames"]
    basis: Float[Tensor, "rows frames components"]
    """See :func:`~motion_grpo.training.grpo.exploration.smooth_basis`."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fork(self) -> int:
        """The first transition that explores: up to it, all members of a group are in one state."""
        return self.explored[0]

    def part(self, start: int, stop: int) -> "Experience":
        """Samples [start, stop); views."""
        rows = self.rows[start:stop]
        first, last = int(rows[0]), int(rows[-1]) + 1
        return replace(
            self,
            latents=[x[first:last] if number <= self.fork else x[start:stop] for number, x in enumerate(self.latents)],
            log_probs=[x[start:stop] for x in self.log_probs],
            advantages=self.advantages[start:stop],
            rows=rows - first,
            cond=self.cond[first:last],
            mask=self.mask[first:last],
            basis=self.basis[first:last],
        )

    def mean(self, predict: Predict, number: int) -> Float[Tensor, "_ frames d_state"]:
        """Of the state that a transition leads to under this policy; of every sample, before the fork of every row.

        What the members of a group still share, the policy is asked once for all of them.
        """
        latents, step = self.latents[number], self.transitions[number]
        shared = number <= self.fork
        rows = torch.arange(len(self.cond), device=self.rows.device) if shared else self.rows
        mean = step.mean(predict(latents, step.level, self.cond, self.mask, rows), latents)
        return mean[self.rows] if number == self.fork else mean

    def log_density(self, number: int, following: Tensor, mean: Tensor) -> Float[Tensor, " samples *parts"]:
        """Of the states that a transition leads to, under a policy that has this mean."""
        return log_density(
            self._with_density((following - mean) / self.transitions[number].std),
            self.mask[self.rows],
            credit=self.args.credit,
            reduction=self.args.log_prob_reduction,
            basis=self._counted_basis(number),
            layout=self.layout,
        )

    def kl(self, number: int, mean: Tensor, reference: Tensor) -> Float[Tensor, " samples"]:
        """From the transition under the reference to that under a policy that has this mean."""
        std, mask = self.transitions[number].std, self.mask[self.rows]
        mean, reference = self._with_density(mean), self._with_density(reference)
        return gaussian_kl(mean, reference, std, mask, self.args.log_prob_reduction, self._counted_basis(number))

    def _with_density(self, values: Float[Tensor, "samples frames d_state"]) -> Float[Tensor, "samples frames d_state"]:
        """Without betas that are not trained. Means over a state's numbers stay means over all of them."""
        if self.args.train_betas:
            return values
        betas, *others = values.split(list(self.layout.sizes.values()), dim=-1)
        return torch.cat([torch.zeros_like(betas), *others], dim=-1)

    def _counted_basis(self, number: int) -> Tensor | None:
        is_smooth = self.args.exploration != "white" or number == len(self.transitions) - 1
        # A projection onto all frequencies changes nothing.
        is_whole = self.basis.shape[-1] == self.args.window
        return self.basis[self.rows] if is_smooth and not is_whole else None


def path(
    args: MotionGRPOConfig, scheduler: EgoMotionSDEScheduler, generation: int
) -> tuple[list[Transition], list[int], list[int]]:
    """The transitions of a rollout, which of them explore and which are trained, the same on every process.

    Steps that explore are Eq. 7's with the settings' ``eta``, ``variance`` and ``direction_offset``; the others are
    those of ``scheduler``, as when nothing is trained.
    """
    stream = generator_of(args.seed, generation, "transitions")
    explored = explored_steps(args.num_sampling_steps, args.sde_window_size, args.sde_window_start, stream)
    explores = EgoMotionSDEScheduler.from_config(
        scheduler.config, variance=args.variance, direction_offset=args.direction_offset
    )
    scheduler.set_timesteps(args.num_sampling_steps)
    steps = [
        transition(explores, *levels, args.eta)
        if number in explored
        else transition(scheduler, *levels, scheduler.config.eta)
        for number, levels in enumerate(pairwise(scheduler.levels.tolist()))
    ]
    if args.last_step_std > 0:
        # Of a coordinate along the basis, so that a frame of a full window has the deviation asked for.
        share = (args.window / args.exploration_components) ** 0.5
        steps[-1] = steps[-1]._replace(std=args.last_step_std * share)
        explored = [*explored, len(steps) - 1]
    return steps, explored, trained_transitions(explored, args.timestep_fraction, stream)


def perturbed_head(
    args: MotionGRPOConfig, head: HeadPoses, starts: Bool[Tensor, " batch"], generation: int, groups: Groups
) -> HeadPoses:
    """The head that the policy sees (Eq. 16), one a condition, or one a sample if ``head`` has as many rows.

    Bodies are hung from, and rewarded on, the clean one. ``starts``: rows that no step leads to.
    """
    if args.head_noise == 0:
        return head
    keys: list[tuple[int, ...]] = [(condition,) for condition in groups.conditions]
    if args.head_noise_per_sample:
        keys = [(groups.conditions[row], member) for row, member in zip(groups.rows, groups.members, strict=True)]
    offsets = perlin_noise(
        args.window + 1,
        [generator_of(args.seed, generation, "head", *key) for key in keys],
        frequency=args.head_noise_frequency,
        octaves=args.head_noise_octaves,
        fps=FPS,
    )
    return perturb_head(head, offsets.to(head.p_world_cpf.device), args.head_noise).without_previous(starts)


def in_parts(predict: Predict, size: int) -> Predict:
    """The same policy, asked for so many samples at a time: a rollout then needs no more memory than an update."""

    def asked(latents: Tensor, level: int, cond: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        found = []
        for start in range(0, len(latents), size):
            own = rows[start : start + size]
            first, last = int(own[0]), int(own[-1]) + 1
            part = latents[start : start + size]
            found.append(predict(part, level, cond[first:last], mask[first:last], own - first))
        return torch.cat(found)

    return asked


@torch.no_grad()
def draw(
    args: MotionGRPOConfig,
    predict: Predict,
    denoiser: EgoMotionDenoiser,
    scheduler: EgoMotionSDEScheduler,
    truth: Conditions,
    generation: int,
    groups: Groups,
) -> Experience:
    """Draws the samples (Eq. 7) and remembers how likely they were; their advantages are still to come.

    Args:
        args: settings.
        predict: the policy.
        denoiser: of the policy; tells the state's layout and the head's features.
        scheduler: of the pipeline, with the levels of the rollout.
        truth: one row a condition.
        generation: number of the rollout in the run.
        groups: which samples.
    """
    device = truth.mask.device
    head, starts, mask = truth.head, truth.starts, truth.mask
    basis = smooth_basis(mask, args.exploration_components)
    noise = ExplorationNoise(
        args.seed,
        generation,
        groups.conditions,
        groups.rows,
        groups.members,
        (args.window, denoiser.state_layout.dim),
        basis,
        args.exploration,
    )
    rows = torch.tensor(groups.rows, device=device)
    start = noise.start()
    if args.head_noise_per_sample:
        head, starts = head.rows(rows), starts[rows]
        mask, basis, start = mask[rows], basis[rows], start[rows]
        rows = torch.arange(len(rows), device=device)
    steps, explored, trained = path(args, scheduler, generation)
    predict = in_parts(predict, args.per_device_train_batch_size)
    experience = Experience(
        args=args,
        layout=denoiser.state_layout,
        transitions=steps,
        explored=explored,
        trained=trained,
        weights=step_weights(steps, trained, args.step_weights),
        latents=[start],
        log_probs=[],
        advantages=torch.zeros(len(rows), device=device),
        rows=rows,
        cond=denoiser.condition(perturbed_head(args, head, starts, generation, groups)),
        mask=mask,
        basis=basis,
    )
    for number, step in enumerate(steps):
        following = mean = experience.mean(predict, number)
        if number in explored:
            following = mean + step.std * (noise.step() if number < len(steps) - 1 else noise.smooth())
        elif step.std > 0:
            shared = noise.shared()  # of each condition, while the states may be those of samples
            following = mean + step.std * (shared[groups.rows] if len(mean) > len(shared) else shared)
        experience.latents.append(following)
        if number in trained:
            experience.log_probs.append(experience.log_density(number, following, mean))
    return experience
