"""MotionGRPO: post-training of the denoiser by group relative policy optimisation (MotionGRPO, Sec. 3.3-3.5)."""

import contextlib
import copy
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from diffusers.training_utils import EMAModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer

from motion_grpo.data import Clip, collate_windows
from motion_grpo.data.batches import TrainingBatch, training_batch
from motion_grpo.evaluation import PipelineSystem, evaluate_clip
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.metrics import diversity
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.motion import FPS, MotionState
from motion_grpo.rewards import Reward, RewardInputs, build_rewards, score, score_parts
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training.callbacks import AverageWeights, KeepInStep, StopWhenTerminated
from motion_grpo.training.grpo.conditions import EpochSampler, NumberedConditions, check_windows
from motion_grpo.training.grpo.config import MotionGRPOConfig
from motion_grpo.training.grpo.experience import Experience, Groups, draw, path
from motion_grpo.training.grpo.objective import advantages, clipped_loss, is_clipped
from motion_grpo.training.grpo.policy import MotionPolicy
from motion_grpo.training.hub_runs import HubTrainerMixin, clips_to_evaluate
from motion_grpo.trajectory.head_poses import HeadPoses


class MotionGRPOTrainer(HubTrainerMixin, GRPOTrainer):
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
        check_windows(train_dataset, args)
        _check_pipeline(pipeline, args)
        self.pipeline = pipeline
        self.denoiser = self.diffusers_model = pipeline.denoiser
        self.skeleton = pipeline.skeleton.to(args.device)
        self.windows = train_dataset
        self.eval_clips = list(eval_clips or [])
        self.rewards = dict(rewards) if rewards is not None else _named_rewards(args)
        self.reward_weights = _weights(self.rewards, args)
        spacing = args.timestep_spacing or pipeline.scheduler.config.timestep_spacing
        self.rollout_scheduler = EgoMotionSDEScheduler.from_config(pipeline.scheduler.config, timestep_spacing=spacing)
        path(args, self.rollout_scheduler, 0)  # refuses what cannot be drawn before anything is loaded
        self.policy = MotionPolicy(pipeline.denoiser, args.lora_r, args.lora_alpha)
        if args.gradient_checkpointing:
            # transformers would call a method of its own models.
            pipeline.denoiser.enable_gradient_checkpointing()
            args.gradient_checkpointing = args.activation_checkpointing = False
        self.reference = None
        if args.beta > 0 and not self.policy.has_adapter:
            self.reference = _frozen_copy(self.policy).to(args.device)
        self._order: EpochSampler | None = None
        self._set_what_trl_reads(args)
        # GRPOTrainer's own constructor loads language models; the one above it does all that is needed here.
        super(GRPOTrainer, self).__init__(
            model=self.policy,
            args=args,
            data_collator=lambda numbers: {"condition": torch.tensor(numbers)},
            train_dataset=NumberedConditions(train_dataset),
            eval_dataset=self.eval_clips or None,
            callbacks=callbacks,
        )
        self._check_sharding()
        self.ema = None
        if args.ema_decay > 0:
            self.ema = EMAModel(self.policy.trained_parameters(), decay=args.ema_decay, foreach=True)
            self.add_callback(AverageWeights(self))
        self.add_callback(KeepInStep(self))
        self.terminated = StopWhenTerminated(self)
        self.add_callback(self.terminated)

    @property
    def was_terminated(self) -> bool:
        """Whether SIGTERM ended the run."""
        return self.terminated.requested

    def _check_sharding(self) -> None:
        args = self.args
        if self._is_sharded and (args.lora_r or args.ema_decay or args.beta or args.eval_strategy != "no"):
            raise ValueError(
                "With FSDP or DeepSpeed no process holds the whole network, so lora_r, ema_decay and beta must be 0 "
                "and eval_strategy 'no' (`motion-grpo evaluate` scores the checkpoints); or launch with DDP."
            )

    def _set_what_trl_reads(self, args: MotionGRPOConfig) -> None:
        self.num_generations, self.num_iterations = args.num_generations, args.num_iterations
        self.shuffle_dataset = True
        self.epsilon_low = args.epsilon
        self.epsilon_high = args.epsilon if args.epsilon_high is None else args.epsilon_high
        self.beta = args.beta
        self._step = 0
        self._buffered_inputs: list[Experience] | None = None
        self._metrics: dict[str, dict[str, list[float]]] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._update_seconds = 0.0
        self.log_completions = False
        self.use_adaptive_entropy = False

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere: TRL's telemetry reads a language model's configuration."""

    def card_facts(self) -> dict[str, Any]:
        """What was post-trained, and how it samples."""
        config = self.pipeline.config
        sampling = {"num_inference_steps": config.num_inference_steps, "eta": self.pipeline.scheduler.config.eta}
        return {"base_model": config.get("_name_or_path"), "sampling": sampling}

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["condition"]

    def _get_train_sampler(self, dataset: Dataset | None = None) -> EpochSampler:
        self._order = EpochSampler(
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.conditions_per_generation,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )
        return self._order

    def start_of_epoch(self, epoch: int) -> None:
        """Another order and other windows; told before the loader starts on them."""
        self._order.epoch = epoch
        self.windows.set_epoch(epoch)

    # ---- Algorithm 1, lines 2-13: rollout, rewards, advantages

    def _prepare_inputs(self, generation_batch: dict[str, Tensor]) -> Experience:
        """The samples of this forward pass; draws new ones where their rollout begins.

        Unlike TRL's it does not shuffle: members of a group stay together, so that their head is encoded once.
        """
        every = self.args.steps_per_generation * self.num_iterations
        if self._step % every == 0 or self._buffered_inputs is None:
            experience = self._generate_and_score_completions(generation_batch)
            size = self.args.per_device_train_batch_size
            starts = range(0, len(experience), size)
            self._buffered_inputs = [experience.part(start, start + size) for start in starts]
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    @torch.no_grad()
    def _generate_and_score_completions(self, inputs: dict[str, Tensor]) -> Experience:
        """G samples for every condition, with their advantages."""
        args = self.args
        generation = self._step // (args.steps_per_generation * self.num_iterations)
        numbers = inputs["condition"].tolist()
        first = self.accelerator.process_index * len(numbers)
        groups = Groups.of(numbers, first, self.num_generations)

        started = self._now()
        truth = self._conditions(groups.conditions)
        self.model.eval()
        experience = draw(args, self.model_wrapped, self.denoiser, self.rollout_scheduler, truth, generation, groups)
        self.model.train()
        rolled_out = self._now()
        state = MotionState.unpack(experience.latents[-1], self.denoiser.state_layout)
        judged = self._reward_inputs(state, truth, groups.rows)
        scalars = score(self.rewards, judged)
        values = scalars
        if args.credit != "sequence":
            values = score_parts(self.rewards, judged, scalars, joints=args.credit == "joint")
        # Groups are complete only over all processes.
        mask = self.accelerator.gather(judged.mask)
        advantage, stds = advantages(
            {name: self.accelerator.gather(value) for name, value in values.items()},
            self.num_generations,
            weights=self.reward_weights,
            aggregation=args.aggregation,
            std_floor=args.group_std_floor,
            clip=args.advantage_clip,
            mask=mask,
        )
        self._log_rewards({name: self.accelerator.gather(value) for name, value in scalars.items()}, stds)
        counted = advantage if args.credit == "sequence" else advantage[mask]
        self._log_metric("advantages/std", float(counted.std()))
        self._log_metric("diversity", self._diversity(experience.latents[-1], judged.mask))
        self._log_metric("rollout_seconds", rolled_out - started)
        self._log_metric("reward_seconds", self._now() - rolled_out)
        return replace(experience, advantages=advantage[first : first + len(numbers)])

    def _conditions(self, numbers: list[int]) -> TrainingBatch:
        windows = collate_windows(self.windows.__getitems__(numbers))
        windows = {name: values.to(self.args.device) for name, values in windows.items()}
        return training_batch(windows, self.skeleton, self.denoiser.config.include_hands)

    def _reward_inputs(self, state: MotionState, truth: TrainingBatch, rows: list[int]) -> RewardInputs:
        """Bodies of the samples hung from the clean head as the pipeline does it, beside what was recorded."""
        mask = truth.mask[rows]
        head = HeadPoses(*(x[rows] for x in truth.head))
        body = self.skeleton.place_by_head(
            state.mean_betas(mask), state.body_rotmats, head.R_world_cpf, head.p_world_cpf
        )
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

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Gradients of one batch of samples, transition by transition: memory does not grow with their number."""
        model.train()
        part = self._prepare_inputs(inputs)
        started = self._now()
        total, stats = torch.zeros((), device=self.args.device), []
        # Only the last backward pass of an update exchanges gradients, and only if the trainer lets it.
        exchange = self.accelerator.sync_gradients
        # DeepSpeed would divide by the number of passes once more.
        options = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
        for place in range(len(part.trained)):
            is_last = place == len(part.trained) - 1
            self.accelerator.gradient_state._set_sync_gradients(exchange and is_last)
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                loss, numbers = self._transition_loss(model, part, place)
                self.accelerator.backward(loss / self.current_gradient_accumulation_steps, **options)
            total += loss.detach()
            stats.append(numbers)
        self._log_update(torch.stack(stats))
        self._step += 1
        self._update_seconds += self._now() - started
        if self._step % self.current_gradient_accumulation_steps == 0:
            self._log_metric("update_seconds", self._update_seconds)
            self._update_seconds = 0.0
        return total / self.current_gradient_accumulation_steps

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

    def _now(self) -> float:
        if self.args.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _log_metric(self, name: str, value: float) -> None:
        self._metrics["train"][name].append(value)

    def _log_rewards(self, values: dict[str, Tensor], stds: dict[str, Tensor]) -> None:
        total = torch.zeros_like(next(iter(values.values())))
        silent = []
        for weight, (name, value) in zip(self.reward_weights, values.items(), strict=True):
            self._log_metric(f"rewards/{name}/mean", float(value.mean()))
            self._log_metric(f"rewards/{name}/std", float(value.std()))
            silent.append(stds[name] < self.args.group_std_floor)
            self._log_metric(f"frac_reward_zero_std/{name}", float(silent[-1].float().mean()))
            total += weight * value
        self._log_metric("reward", float(total.mean()))
        self._log_metric("reward_std", float(total.unflatten(0, (-1, self.num_generations)).std(dim=1).mean()))
        self._log_metric("frac_reward_zero_std", float(torch.stack(silent).all(dim=0).float().mean()))

    def _diversity(self, latents: Tensor, mask: Tensor) -> float:
        """Mean distance within a group (Eq. 22), of the packed states."""
        if len(latents) % self.num_generations:  # a group lies on two processes
            latents, mask = self.accelerator.gather(latents), self.accelerator.gather(mask)
        groups = latents.unflatten(0, (-1, self.num_generations))
        values = diversity(groups, mask[:: self.num_generations])
        return float(self.accelerator.gather(values).mean())

    def _log_update(self, stats: Float[Tensor, "transitions 5"]) -> None:
        stats = self.accelerator.gather(stats)
        names = ["ratio/mean", "ratio/std", "clip_fraction"] + (["kl"] if self.beta > 0 else [])
        for name, value in zip(names, stats.mean(0).tolist(), strict=False):
            self._log_metric(name, value)
        every = self.args.steps_per_generation * self.num_iterations
        if self._step % every < self.args.gradient_accumulation_steps:
            # Before the first update of a rollout the policy is the one that drew it.
            self._log_metric("ratio/first_error", float(stats[:, 4].max()))

    # ---- evaluation

    @contextlib.contextmanager
    def averaged(self):
        """The policy with its averaged weights, where there are any."""
        if self.ema is None:
            yield
            return
        parameters = self.policy.trained_parameters()
        self.ema.store(parameters)
        self.ema.copy_to(parameters)
        try:
            yield
        finally:
            self.ema.restore(parameters)

    @torch.no_grad()
    def measure(self, eval_dataset: object) -> dict[str, float]:
        """Recovers whole clips as a user would, one sample each with noise of its own; means over clips."""
        clips = clips_to_evaluate(eval_dataset, self.eval_clips)
        self.model.eval()
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
        state = self.accelerator.get_state_dict(self.model_wrapped) if self._is_sharded else None
        if not self.is_world_process_zero():
            return
        with self.averaged():
            parts = {**self.pipeline.components, "denoiser": self.policy.merged(state)}
            names = ("num_inference_steps", "window", "overlap", "stitching")
            config = {name: self.pipeline.config[name] for name in names}
            EgoMotionPipeline(**parts, **config).save_pretrained(folder)
            self.policy.save_adapter(folder)

    save_result = save_pipeline

    @property
    def _is_sharded(self) -> bool:
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        self.policy.save(folder, state_dict)
        if self.ema is not None:
            with self.averaged():
                self.policy.save(folder / "ema")

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """A checkpoint is whole or absent: one that cannot be written to its end does not stay behind."""
        try:
            # TRL's would write a model card every time.
            super(GRPOTrainer, self)._save_checkpoint(model, trial)
        except Exception as error:  # safetensors and torch have classes of their own for a full disk
            name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            shutil.rmtree(Path(self.args.output_dir) / name, ignore_errors=True)
            raise OSError(
                f"{name} could not be written to {self.args.output_dir} ({error}); the checkpoints before it are "
                "whole. Make room and resume."
            ) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        folder = Path(resume_from_checkpoint)
        if self.ema is not None:
            self.policy.load(folder / "ema")
            self.ema.shadow_params = [p.detach().clone() for p in self.policy.trained_parameters()]
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
