"""MotionGRPO: post-training of the denoiser by group relative policy optimization (MotionGRPO, Sec. 3.3-3.5)."""

import contextlib
import copy
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainerCallback

from motion_grpo.data import Clip, collate_windows
from motion_grpo.data.batches import TrainingBatch, training_batch
from motion_grpo.evaluation import PipelineSystem, evaluate_clip
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.inference.sampling import hang_body
from motion_grpo.metrics import diversity
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.motion import FPS, MotionState
from motion_grpo.rewards import Reward, RewardInputs, build_rewards, score, score_parts
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training.averaging import AveragedWeights
from motion_grpo.training.callbacks import StopWhenTerminated
from motion_grpo.training.grpo.conditions import EpochSampler, NumberedConditions, check_windows
from motion_grpo.training.grpo.config import MotionGRPOConfig
from motion_grpo.training.grpo.experience import Experience, Groups, draw, path
from motion_grpo.training.grpo.objective import advantages, clipped_loss, is_clipped
from motion_grpo.training.grpo.policy import MotionPolicy
from motion_grpo.training.grpo.trl_adapter import GRPOTrainerAdapter
from motion_grpo.training.hub_runs import checkpoint_gradients, clips_to_evaluate


class MotionGRPOTrainer(GRPOTrainerAdapter):
    """Post-trains the denoiser of a pipeline on rewards of what it samples (Algorithm 1).

    Checkpoints hold the denoiser as diffusers writes it (and the averaged one in ``ema/``), and resume: all randomness
    is a function of the seed and the number of the rollout. A run that is resumed between two updates of one rollout
    draws that rollout again, with the same noise and the present weights.

    Args:
        pipeline: the base policy with the scheduler that it is evaluated with; its denoiser is trained in place.
        args: settings.
        train_dataset: :class:`MotionWindows` of recorded motion, with a seed.
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
        if args.n_gpu > 1:
            raise ValueError(
                f"One process has {args.n_gpu} GPUs, which would divide groups among them; start a process a GPU with "
                "`accelerate launch --num_processes N`, or show it only one (CUDA_VISIBLE_DEVICES=0)."
            )
        self.windows = check_windows(train_dataset, args)
        _check_pipeline(pipeline, args)
        self.pipeline = pipeline
        self.denoiser = self.diffusers_model = pipeline.denoiser
        self.skeleton = pipeline.skeleton.to(args.device)
        self.eval_clips = list(eval_clips or [])
        self.rewards = dict(rewards) if rewards is not None else _named_rewards(args)
        self.reward_weights = _weights(self.rewards, args)
        spacing = args.timestep_spacing or pipeline.scheduler.config.timestep_spacing
        self.rollout_scheduler = EgoMotionSDEScheduler.from_config(pipeline.scheduler.config, timestep_spacing=spacing)
        path(args, self.rollout_scheduler, 0)  # refuses what cannot be drawn before anything is loaded
        self.policy = MotionPolicy(pipeline.denoiser, args.lora_r, args.lora_alpha)
        checkpoint_gradients(pipeline.denoiser, args)
        self.reference = None
        if args.beta > 0 and not self.policy.has_adapter:
            self.reference = _frozen_copy(self.policy).to(args.device)
        self._order: EpochSampler | None = None
        self._update_seconds = 0.0
        super().__init__(self.policy, args, NumberedConditions(self.windows), self.eval_clips or None, callbacks)
        self._check_sharding()
        self.ema = None
        if args.ema_decay > 0:
            self.ema = AveragedWeights(self.policy.trained_parameters(), args.ema_decay)
            self.add_callback(self.ema)
        self.terminated = StopWhenTerminated(self)
        self.add_callback(self.terminated)

    @property
    def was_terminated(self) -> bool:
        """Whether SIGTERM ended the run."""
        return self.terminated.requested

    def _check_sharding(self) -> None:
        args = self.args
        if self.is_sharded and (args.lora_r or args.ema_decay or args.beta or args.eval_strategy != "no"):
            raise ValueError(
                "With FSDP or DeepSpeed no process holds the whole network, so lora_r, ema_decay and beta must be 0 "
                "and eval_strategy 'no' (`motion-grpo evaluate` scores the checkpoints); or launch with DDP."
            )

    def card_facts(self) -> dict[str, Any]:
        """What was post-trained, and how it samples."""
        config = self.pipeline.config
        sampling = {"num_inference_steps": config.num_inference_steps, "eta": self.pipeline.scheduler.config.eta}
        return {"base_model": config.get("_name_or_path"), "sampling": sampling}

    def make_sampler(self, dataset: Dataset) -> EpochSampler:
        """An order that is a function of seed and epoch, each condition repeated for its group."""
        self._order = EpochSampler(
            data_source=dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.conditions_per_generation,
            repeat_count=self.passes_per_rollout,
            seed=self.args.seed,
        )
        return self._order

    def start_of_epoch(self, epoch: int) -> None:
        """Another order and other windows; told before the loader starts on them."""
        self._order.epoch = epoch
        self.windows.set_epoch(epoch)

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
        state = MotionState.unpack(experience.latents[-1], self.denoiser.state_layout)
        judged = self._reward_inputs(state, truth, groups.rows)
        scalars = score(self.rewards, judged)
        values = scalars
        if args.credit != "sequence":
            values = score_parts(self.rewards, judged, scalars, joints=args.credit == "joint")
        # Groups are complete only over all processes.
        mask = self.gather(judged.mask)
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
        self.log_metric("diversity", self._diversity(experience.latents[-1], judged.mask))
        self.log_metric("rollout_seconds", rolled_out - started)
        self.log_metric("reward_seconds", self.now() - rolled_out)
        return replace(experience, advantages=advantage[first : first + len(numbers)])

    def conditions(self, numbers: list[int]) -> TrainingBatch:
        """The windows of these numbers, on the device."""
        windows = collate_windows(self.windows.__getitems__(numbers))
        windows = {name: values.to(self.args.device) for name, values in windows.items()}
        return training_batch(windows, self.skeleton, self.denoiser.config.include_hands)

    def _reward_inputs(self, state: MotionState, truth: TrainingBatch, rows: list[int]) -> RewardInputs:
        """Bodies of the samples hung from the clean head as the pipeline does it, beside what was recorded."""
        mask = truth.mask[rows]
        head = truth.head.rows(rows)
        body = hang_body(self.skeleton, state, head, mask)
        return RewardInputs(
            body_rotmats=state.body_rotmats,
            joints=body.joints,
            contacts=state.contacts,
            head=head,
            mask=mask,
            fps=FPS,
            true_body_rotmats=truth.state.body_rotmats[rows],
            true_joints=truth.joints[rows],
            true_contacts=truth.state.contacts[rows],
        )

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

    # ---- evaluation

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """The policy with its averaged weights, where there are any."""
        return contextlib.nullcontext() if self.ema is None else self.ema.in_place()

    @torch.no_grad()
    def measure(self, eval_dataset: object) -> dict[str, float]:
        """Recovers whole clips as a user would, one sample each with noise of its own; means over clips."""
        clips = clips_to_evaluate(eval_dataset, self.eval_clips)
        self.policy.eval()
        mine = clips[self.accelerator.process_index :: self.accelerator.num_processes]
        system = PipelineSystem(self.pipeline, (0,), self.args.eval_num_inference_steps)
        with self.averaged():
            scored = [evaluate_clip(system, clip).metrics for clip in mine]
        sums: dict[str, float] = defaultdict(float)
        for clip_metrics in gather_object(scored):
            for name, values in clip_metrics.items():
                sums[name] += values[0] / len(clips)
        return dict(sorted(sums.items()))

    # ---- checkpoints

    def save_pipeline(self, folder: str | Path) -> None:
        """Writes the pipeline with the trained weights, the averaged ones where there are any, adapters merged.

        An adapter lies beside it too. To be called by all processes; the first one writes.
        """
        # Parameters that are divided among processes have to be gathered by all of them.
        state = self.accelerator.get_state_dict(self.model_wrapped) if self.is_sharded else None
        if not self.is_world_process_zero():
            return
        with self.averaged():
            parts = {**self.pipeline.components, "denoiser": self.policy.merged(state)}
            names = ("num_inference_steps", "window", "overlap", "stitching")
            config = {name: self.pipeline.config[name] for name in names}
            EgoMotionPipeline(**parts, **config).save_pretrained(folder)
            self.policy.save_adapter(folder)

    save_result = save_pipeline

    def write_weights(self, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes the denoiser and, in ``ema/``, the averaged one."""
        self.policy.save(folder, state_dict)
        if self.ema is not None:
            with self.averaged():
                self.policy.save(folder / "ema")

    def read_weights(self, folder: Path) -> None:
        """Reads what :meth:`write_weights` wrote."""
        if self.ema is not None:
            self.policy.load(folder / "ema")
            self.ema.go_on_from(self.policy.trained_parameters())
        self.policy.load(folder)


def _named_rewards(args: MotionGRPOConfig) -> dict[str, Reward]:
    model = None
    if "visual" in args.rewards:
        if args.perceptual_model is None:
            raise ValueError(
                "The reward 'visual' needs perceptual_model, a trained perceptual model; name one, or leave the reward "
                "out of rewards."
            )
        model = MotionPerceptualModel.from_pretrained(args.perceptual_model).to(args.device)
    return build_rewards(
        args.rewards, omegas=args.reward_omegas, smooth_frames=args.reward_smooth_frames, perceptual_model=model
    )


def _weights(rewards: Mapping[str, Reward], args: MotionGRPOConfig) -> list[float]:
    if args.reward_weights is None:
        return [1.0] * len(rewards)
    if len(args.reward_weights) != len(rewards):
        raise ValueError(
            f"reward_weights is {args.reward_weights}; give one number each to the rewards {', '.join(rewards)}."
        )
    return args.reward_weights


def _frozen_copy(policy: MotionPolicy) -> MotionPolicy:
    return copy.deepcopy(policy).requires_grad_(False)


def _check_pipeline(pipeline: EgoMotionPipeline, args: MotionGRPOConfig) -> None:
    if not isinstance(pipeline.scheduler, EgoMotionSDEScheduler):
        raise ValueError(
            f"The pipeline has a {type(pipeline.scheduler).__name__}; GRPO needs the densities of an "
            "EgoMotionSDEScheduler: set pipeline.scheduler to one."
        )
    if pipeline.config.window < args.window:
        raise ValueError(
            f"window is {args.window} frames, but the pipeline's network was trained on {pipeline.config.window}; set "
            "window to that or less."
        )
