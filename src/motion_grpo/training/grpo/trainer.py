"""MotionGRPO: post-training of the denoiser by group relative policy optimization (MotionGRPO, Sec. 3.3-3.5)."""

import copy
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainerCallback

from motion_grpo.data import Clip
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.metrics import diversity
from motion_grpo.motion import MotionState
from motion_grpo.rewards import Reward, score, score_parts
from motion_grpo.training.conditions import EpochSampler, NumberedConditions
from motion_grpo.training.grpo.config import MotionGRPOConfig
from motion_grpo.training.grpo.experience import Experience, Groups, draw, path
from motion_grpo.training.grpo.objective import advantages, clipped_loss, is_clipped
from motion_grpo.training.grpo.trl_adapter import GRPOTrainerAdapter
from motion_grpo.training.judging import Conditions, check_truth, named_rewards, weights_of
from motion_grpo.training.policy_trainer import PolicyTrainerMixin


class MotionGRPOTrainer(PolicyTrainerMixin, GRPOTrainerAdapter):
    """Post-trains the denoiser of a pipeline on rewards of what it samples (Algorithm 1).

    Checkpoints hold the denoiser as diffusers writes it (and the averaged one in ``ema/``), and resume: all randomness
    is a function of the seed and the number of the rollout. A run that is resumed between two updates of one rollout
    draws that rollout again, with the same noise and the present weights.

    Args:
        pipeline: the base policy with the scheduler that it is evaluated with; its denoiser is trained in place.
        args: settings.
        train_dataset: :class:`MotionWindows` of recorded motion, with a seed; :class:`HeadWindows` where no reward
            needs a truth.
        eval_clips: whole clips for the evaluation (no guidance, no head noise).
        rewards: by name, in place of those that ``args`` names.
        callbacks: further ones.

    Raises:
        ValueError: data, settings and pipeline that do not fit each other; the message says what and how to mend it.
    """

    kind = "grpo"
    _tag_names = ("motion-grpo", "grpo")

    def __init__(
        self,
        pipeline: EgoMotionPipeline,
        args: MotionGRPOConfig,
        train_dataset: Dataset,
        eval_clips: Sequence[Clip] | None = None,
        rewards: Mapping[str, Reward] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        needed = args.conditions_per_generation
        self.take(pipeline, args, train_dataset, needed, eval_clips, project=args.project_rotations)
        smooth = args.reward_smooth_frames
        self.rewards = dict(rewards) if rewards is not None else named_rewards(args, args.device, smooth)
        check_truth(self.rewards, self.windows)
        self.reward_weights = weights_of(self.rewards, args)
        path(args, self.rollout_scheduler, 0)  # refuses what cannot be drawn before anything is loaded
        self.reference = None
        if args.beta > 0 and not self.policy.has_adapter:
            self.reference = copy.deepcopy(self.policy).requires_grad_(False).to(args.device)
        self._update_seconds = 0.0
        super().__init__(self.policy, args, NumberedConditions(self.windows), self.eval_clips or None, callbacks)
        self.follow(has_reference=args.beta > 0)

    def make_sampler(self, dataset: Dataset) -> EpochSampler:
        """An order that is a function of seed and epoch, each condition repeated for its group."""
        conditions = self.args.conditions_per_generation
        return self.order_of(
            dataset, conditions=conditions, members=self.num_generations, passes=self.passes_per_rollout
        )

    # ---- Algorithm 1, lines 2-13: rollout, rewards, advantages

    @torch.no_grad()
    def rollout(self, numbers: list[int], generation: int) -> Experience:
        """G samples for every condition, with their advantages."""
        args = self.args
        first = self.accelerator.process_index * len(numbers)
        groups = Groups.of(numbers, first, self.num_generations)

        started = self.now()
        truth = self.conditions(groups.conditions)
        self.policy.eval()
        experience = draw(args, self.model_wrapped, self.denoiser, self.rollout_scheduler, truth, generation, groups)
        self.policy.train()
        rolled_out = self.now()
        scalars, values = self._judge(experience.latents[-1], truth, groups.rows)
        # Groups are complete only over all processes.
        own_mask = truth.mask[groups.rows]
        mask = self.gather(own_mask)
        advantage, stds = advantages(
            {name: self.gather(value) for name, value in values.items()},
            self.num_generations,
            weights=self.reward_weights,
            aggregation=args.aggregation,
            std_floor=args.group_std_floor,
            clip=args.advantage_clip,
            mask=mask,
        )
        self._log_rewards({name: self.gather(value) for name, value in scalars.items()}, stds)
        counted = advantage if args.credit == "sequence" else advantage[mask]
        self.log_metric("advantages/std", float(counted.std()))
        self.log_metric("diversity", self._diversity(experience.latents[-1], own_mask))
        self.log_metric("rollout_seconds", rolled_out - started)
        self.log_metric("reward_seconds", self.now() - rolled_out)
        return replace(experience, advantages=advantage[first : first + len(numbers)])

    def _judge(
        self, latents: Float[Tensor, "samples frames d_state"], truth: Conditions, rows: list[int]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Rewards of the samples, one number each, and as ``credit`` divides them; so many at a time as an update."""
        size = self.args.per_device_train_batch_size
        found: dict[str, list[Tensor]] = defaultdict(list)
        divided: dict[str, list[Tensor]] = defaultdict(list)
        for start in range(0, len(latents), size):
            state = MotionState.unpack(latents[start : start + size], self.denoiser.state_layout)
            judged = self.reward_inputs(state, truth, rows[start : start + size])
            scalars = parts = score(self.rewards, judged)
            if self.args.credit != "sequence":
                parts = score_parts(self.rewards, judged, scalars, joints=self.args.credit == "joint")
            for name in self.rewards:
                found[name].append(scalars[name])
                divided[name].append(parts[name])
        whole, values = ({n: torch.cat(x) for n, x in lists.items()} for lists in (found, divided))
        return whole, values

    # ---- Algorithm 1, lines 14-16: update

    def learn(self, model: nn.Module, part: Experience) -> Tensor:
        """Gradients of one batch of samples, transition by transition: memory does not grow with their number."""
        started = self.now()
        total, stats = torch.zeros((), device=self.args.device), []
        for place in self.exchanging_last(model, range(len(part.trained))):
            loss, numbers = self._transition_loss(model, part, place)
            self.backward(loss)
            total += loss.detach()
            stats.append(numbers)
        self._log_update(torch.stack(stats))
        self._update_seconds += self.now() - started
        if (self.passes + 1) % self.current_gradient_accumulation_steps == 0:
            self.log_metric("update_seconds", self._update_seconds)
            self._update_seconds = 0.0
        return total

    def _transition_loss(self, model: nn.Module, part: Experience, place: int) -> tuple[Tensor, Float[Tensor, "5"]]:
        """One transition's share of the objective (Eq. 8), and what is logged of it."""
        number = part.trained[place]
        mean = part.mean(model, number)
        with torch.autocast(mean.device.type, enabled=False):
            log_ratio = part.log_density(number, part.latents[number + 1], mean) - part.log_probs[place]
            ratio = log_ratio.exp()
            mask = part.mask[part.rows]
            losses = clipped_loss(ratio, part.advantages, mask, self.epsilon_low, self.epsilon_high)
            kl = torch.zeros_like(losses)
            if self.beta > 0:
                kl = part.kl(number, mean, self._reference_mean(model, part, number))
            loss = (part.weights[place] * losses + self.beta * kl).mean() / len(part.trained)
        with torch.no_grad():
            # In padding the ratio per frame is 1, and counts as such.
            clipped = is_clipped(ratio, part.advantages, self.epsilon_low, self.epsilon_high).float().mean()
            error = (ratio - 1).abs().max()
            numbers = torch.stack([ratio.mean(), ratio.std(correction=0), clipped, kl.mean(), error]).float()
        return loss, numbers

    @torch.no_grad()
    def _reference_mean(self, model: nn.Module, part: Experience, number: int) -> Tensor:
        if self.reference is not None:
            with self.accelerator.autocast():  # as accelerate does for the policy
                return part.mean(self.reference, number)
        with self.policy.without_adapter():
            return part.mean(model, number)

    # ---- what a person watches

    def now(self) -> float:
        """Seconds of the clock, once the device has done what it was given."""
        if self.args.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _log_rewards(self, values: dict[str, Tensor], stds: dict[str, Tensor]) -> None:
        total = torch.zeros_like(next(iter(values.values())))
        silent = []
        for weight, (name, value) in zip(self.reward_weights, values.items(), strict=True):
            self.log_metric(f"rewards/{name}/mean", float(value.mean()))
            self.log_metric(f"rewards/{name}/std", float(value.std()))
            silent.append(stds[name] < self.args.group_std_floor)
            self.log_metric(f"frac_reward_zero_std/{name}", float(silent[-1].float().mean()))
            total += weight * value
        self.log_metric("reward", float(total.mean()))
        self.log_metric("reward_std", float(total.unflatten(0, (-1, self.num_generations)).std(dim=1).mean()))
        self.log_metric("frac_reward_zero_std", float(torch.stack(silent).all(dim=0).float().mean()))

    def _diversity(self, latents: Tensor, mask: Tensor) -> float:
        """Mean distance within a group (Eq. 22), of the packed states."""
        if len(latents) % self.num_generations:  # a group lies on two processes
            latents, mask = self.gather(latents), self.gather(mask)
        groups = latents.unflatten(0, (-1, self.num_generations))
        values = diversity(groups, mask[:: self.num_generations])
        return float(self.gather(values).mean())

    def _log_update(self, stats: Float[Tensor, "transitions 5"]) -> None:
        stats = self.gather(stats)
        names = ["ratio/mean", "ratio/std", "clip_fraction"] + (["kl"] if self.beta > 0 else [])
        for name, value in zip(names, stats.mean(0).tolist(), strict=False):
            self.log_metric(name, value)
        if self.passes % self.passes_per_rollout < self.args.gradient_accumulation_steps:
            # Before the first update of a rollout the policy is the one that drew it.
            self.log_metric("ratio/first_error", float(stats[:, 4].max()))
