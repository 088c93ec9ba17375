"""What the trainers of a policy share: conditions, rewards, averaged weights, evaluation, checkpoints."""

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import Dataset

from motion_grpo.data import Clip
from motion_grpo.evaluation import PipelineSystem, evaluate_clip
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.motion import MotionState
from motion_grpo.rewards import RewardInputs
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training.averaging import AveragedWeights
from motion_grpo.training.callbacks import FollowRun, SkipNonFinite, StopWhenTerminated
from motion_grpo.training.conditions import EpochSampler, check_windows
from motion_grpo.training.hub_runs import HubTrainerMixin, checkpoint_gradients, clips_to_evaluate
from motion_grpo.training.judging import Conditions, conditions_of, reward_inputs
from motion_grpo.training.policy import MotionPolicy


class PolicyTrainerMixin(HubTrainerMixin):
    """Post-trains the denoiser of a pipeline; comes before a transformers Trainer among the bases.

    A trainer calls :meth:`take` before the constructor of transformers' Trainer and :meth:`follow` after it. The
    checkpoints hold the denoiser as diffusers writes it (and the averaged one in ``ema/``), and resume: all randomness
    is a function of the seed, the number of the update and the condition.
    """

    args: Any
    """:class:`~motion_grpo.training.policy_settings.PolicySettings` and transformers' TrainingArguments."""
    pipeline: EgoMotionPipeline
    policy: MotionPolicy
    windows: Any
    """:class:`MotionWindows`, :class:`HeadWindows`, or None where no rollouts are drawn."""
    eval_clips: Any
    """A list of :class:`Clip`."""
    ema: AveragedWeights | None

    def take(
        self,
        pipeline: EgoMotionPipeline,
        args: Any,
        train_dataset: Dataset | None,
        conditions: int,
        eval_clips: Sequence[Clip] | None,
        *,
        project: bool = True,
    ) -> None:
        """Checks that pipeline, data and settings fit each other, and makes the policy.

        Args:
            pipeline: the base policy with the scheduler that it is evaluated with; its denoiser is trained in place.
            args: settings.
            train_dataset: :class:`MotionWindows` with a seed, or :class:`HeadWindows`; None without rollouts.
            conditions: that an update or rollout needs, on all processes together.
            eval_clips: whole clips for the evaluation.
            project: see :class:`MotionPolicy`.

        Raises:
            ValueError: what does not fit, and how to mend it.
        """
        if args.n_gpu > 1:
            raise ValueError(
                f"One process has {args.n_gpu} GPUs, which would divide its conditions among them; start a process a "
                "GPU with `accelerate launch --num_processes N`, or show it only one (CUDA_VISIBLE_DEVICES=0)."
            )
        self.windows = None if train_dataset is None else check_windows(train_dataset, args.window, conditions)
        check_pipeline(pipeline, args.window)
        self.args, self.pipeline = args, pipeline
        self.denoiser = self.diffusers_model = pipeline.denoiser
        self.skeleton = pipeline.skeleton.to(args.device)
        self.eval_clips = list(eval_clips or [])
        spacing = args.timestep_spacing or pipeline.scheduler.config.timestep_spacing
        scheduler = EgoMotionSDEScheduler.from_config(pipeline.scheduler.config, timestep_spacing=spacing)
        self.rollout_scheduler = cast(EgoMotionSDEScheduler, scheduler)
        self.policy = MotionPolicy(
            pipeline.denoiser, args.lora_r, args.lora_alpha, trainable=args.trainable, project=project
        )
        checkpoint_gradients(pipeline.denoiser, args)
        self._order: EpochSampler | None = None

    def follow(self, *, has_reference: bool = False) -> None:
        """Averages the weights if asked for, follows epochs, stops on SIGTERM.

        Raises:
            ValueError: parameters are divided among processes, and settings need all of them.
        """
        args = self.args
        if self.is_sharded and (has_reference or args.lora_r or args.ema_decay or args.eval_strategy != "no"):
            raise ValueError(
                "With FSDP or DeepSpeed no process holds the whole network, so lora_r, ema_decay and beta must be 0 "
                "and eval_strategy 'no' (`motion-grpo evaluate` scores the checkpoints); or launch with DDP."
            )
        self.ema = None
        if self.args.ema_decay > 0:
            self.ema = AveragedWeights(self.policy.trained_parameters(), self.args.ema_decay)
            self.add_callback(self.ema)
        self.add_callback(FollowRun(self))
        self.terminated = StopWhenTerminated(self)
        self.add_callback(self.terminated)

    @property
    def was_terminated(self) -> bool:
        """Whether SIGTERM ended the run."""
        return self.terminated.requested

    @property
    def is_sharded(self) -> bool:
        """Whether parameters are divided among processes."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def card_facts(self) -> dict[str, Any]:
        """What was post-trained, and how it samples."""
        config = self.pipeline.config
        sampling = {"num_inference_steps": config.num_inference_steps, "eta": self.pipeline.scheduler.config.eta}
        return {"base_model": config.get("_name_or_path"), "sampling": sampling}

    def order_of(self, dataset: Any, *, conditions: int, members: int = 1, passes: int = 1) -> EpochSampler:
        """An order that is a function of seed and epoch.

        Args:
            dataset: the numbers.
            conditions: of a rollout or update; an epoch's rest that makes no whole one is left out.
            members: how often each comes in a row, for the samples of a group.
            passes: how often such a batch comes in a row.
        """
        self._order = EpochSampler(dataset, members, conditions, passes, seed=self.args.seed)
        return self._order

    def start_of_epoch(self, epoch: int) -> None:
        """Another order and other windows; told before the loader starts on them."""
        if self._order is not None:
            self._order.epoch = epoch
        if self.windows is not None:
            self.windows.set_epoch(epoch)

    def gather(self, values: Tensor) -> Tensor:
        """The rows of all processes."""
        return cast(Tensor, self.accelerator.gather(values))

    # ---- conditions and what is rewarded

    def conditions(self, numbers: list[int]) -> Conditions:
        """The windows of these numbers, on the device."""
        return conditions_of(self.windows, numbers, self.pipeline, self.args.device)

    def reward_inputs(self, state: MotionState, truth: Conditions, rows: Sequence[int] | None = None) -> RewardInputs:
        """See :func:`~motion_grpo.training.judging.reward_inputs`."""
        return reward_inputs(state, truth, self.skeleton, rows)

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
            names = ("num_inference_steps", "window", "overlap", "stitching", "guidance", "neck_low_pass")
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


class NumberedTrainerMixin(PolicyTrainerMixin):
    """A policy's trainer whose batches are numbers of a data set, each of which an update takes once.

    ``logged`` collects what a step wants logged; updates that are not finite are skipped and counted.
    """

    column: str
    """What the numbers are of: their name in a batch."""
    skipping: SkipNonFinite
    logged: dict[str, list[float]]

    def collate(self, numbers: list[int]) -> dict[str, Tensor]:
        """A batch, the way transformers' Trainer takes it."""
        return {self.column: torch.tensor(numbers)}

    def follow(self, *, has_reference: bool = False) -> None:
        """Skips updates that are not finite, and what every trainer of a policy does."""
        self.skipping = SkipNonFinite(self.policy)
        self.add_callback(self.skipping)
        super().follow(has_reference=has_reference)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochSampler:
        return self.order_of(train_dataset or self.train_dataset, conditions=self.args.numbers_per_update)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [self.column]

    def means_of_logged(self) -> dict[str, float]:
        """What steps collected, averaged since the last call, and how many updates were skipped so far."""
        means = {name: sum(values) / len(values) for name, values in self.logged.items()}
        self.logged.clear()
        return means | {"skipped_updates": float(self.skipping.count)}


def check_pipeline(pipeline: EgoMotionPipeline, window: int) -> None:
    """Refuses a pipeline whose rollouts have no densities, or that was trained on shorter windows."""
    if not isinstance(pipeline.scheduler, EgoMotionSDEScheduler):
        raise ValueError(
            f"The pipeline has a {type(pipeline.scheduler).__name__}; post-training needs the steps of an "
            "EgoMotionSDEScheduler: set pipeline.scheduler to one."
        )
    if pipeline.config.window < window:
        raise ValueError(
            f"window is {window} frames, but the pipeline's network was trained on {pipeline.config.window}; set "
            "window to that or less."
        )
