"""Everything between MotionGRPO's trainer and TRL's, transformers' and accelerate's insides.

:data:`RELIED_ON` names what the trainers override or call though nobody promises it. These names fence the versions
that can be used: as long as they are there, a newer one is taken. An upgrade of TRL is a matter of this file.
"""

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from pkgutil import resolve_name
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer

from motion_grpo.training.grpo.config import MotionGRPOConfig
from motion_grpo.training.grpo.experience import Experience
from motion_grpo.training.hub_runs import HubTrainerMixin

Item = TypeVar("Item")

RELIED_ON = {
    "trl.trainer.base_trainer:_BaseTrainer": ("_send_telemetry", "create_model_card"),
    "trl:GRPOTrainer": (
        "_set_signature_columns_if_needed",
        "_get_train_sampler",
        "_generate_and_score_completions",
        "_prepare_inputs",
        "_save_checkpoint",
        "training_step",
    ),
    "trl.trainer.utils:RepeatSampler": ("__iter__",),
    "transformers:Trainer": (
        "_save",
        "_save_checkpoint",
        "_load_from_checkpoint",
        "_load_best_model",
        "_get_dataloader",
        "_push_from_checkpoint",
    ),
    "transformers.utils:PushInProgress": ("is_done",),
    "accelerate.state:GradientState": ("_set_sync_gradients",),
}
"""Attributes by the class that defines them."""
TESTED = {"trl": "1.16.0", "transformers": "5.24.0", "accelerate": "1.15.0"}


def check_relied_on() -> None:
    """Checks that the installed packages still have what the trainers rely on.

    Raises:
        ImportError: one has it no more.
    """
    for place, names in RELIED_ON.items():
        module, _, owner = place.partition(":")
        package = module.partition(".")[0]
        import_module(package)
        try:
            there = vars(resolve_name(place))
        except (ImportError, AttributeError):
            there = {}
        if missing := [name for name in names if name not in there]:
            tested = " ".join(f'"{name}=={number}"' for name, number in TESTED.items())
            raise ImportError(
                f"{package} {version(package)} has no {owner}.{missing[0]}, which motion-grpo's trainers rely on; "
                f"install the versions that they are tested with: pip install {tested}."
            )


class GRPOTrainerAdapter(HubTrainerMixin, GRPOTrainer):
    """TRL's GRPOTrainer without what is about language models.

    TRL's is kept for its loop: groups of a condition, rollouts that serve several updates, metrics and logs. A subclass
    says what a rollout and a pass of learning are (:meth:`make_sampler`, :meth:`rollout`, :meth:`learn`, with
    :meth:`HubTrainerMixin.write_weights` and :meth:`HubTrainerMixin.read_weights` for checkpoints).

    Args:
        model: what is trained.
        args: settings.
        train_dataset: numbers of the conditions.
        eval_dataset: anything that ``evaluate`` understands.
        callbacks: further ones.
    """

    args: MotionGRPOConfig

    def __init__(
        self,
        model: nn.Module,
        args: MotionGRPOConfig,
        train_dataset: Dataset,
        eval_dataset: Sequence[Any] | None,
        callbacks: list[TrainerCallback] | None,
    ) -> None:
        self.num_generations, self.num_iterations = args.num_generations, args.num_iterations
        self.shuffle_dataset = True
        self.epsilon_low = args.epsilon
        self.epsilon_high = args.epsilon if args.epsilon_high is None else args.epsilon_high
        self.beta = args.beta
        self._step = 0
        self._buffered_inputs: list[Experience] | None = None
        self._metrics: dict[str, dict[str, list[float]]] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self.log_completions = False
        self.use_adaptive_entropy = False
        # GRPOTrainer's own constructor loads language models; the one above it does all that is needed here.
        super(GRPOTrainer, self).__init__(
            model=model,
            args=args,
            data_collator=lambda numbers: {"condition": torch.tensor(numbers)},
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
        )
        self.add_callback(KeepInStep(self))

    # ---- what a subclass fills in

    def make_sampler(self, dataset: Dataset) -> Sampler:
        """The order of the conditions' numbers, each repeated as TRL's ``RepeatSampler`` does."""
        raise NotImplementedError

    def rollout(self, numbers: list[int], generation: int) -> Experience:
        """Samples for these conditions, one a number, with their advantages."""
        raise NotImplementedError

    def learn(self, model: nn.Module, part: Experience) -> Tensor:
        """Adds the gradients of a part of a rollout by :meth:`backward`; the loss before it is divided by passes."""
        raise NotImplementedError

    # ---- what a subclass asks

    @property
    def passes(self) -> int:
        """Passes of learning that are done."""
        return self._step

    @property
    def passes_per_rollout(self) -> int:
        """Passes of learning that one rollout serves."""
        return self.args.steps_per_generation * self.num_iterations

    def log_metric(self, name: str, value: float) -> None:
        """Logs a number; the next log has the mean of what was logged since the last one."""
        self._metrics["train"][name].append(value)

    def exchanging_last(self, model: nn.Module, items: Sequence[Item]) -> Iterator[Item]:
        """The items one by one, of which only the last one's backward pass exchanges gradients among processes.

        It does so only if the trainer lets it, which is at an update's end.
        """
        exchange = self.accelerator.sync_gradients
        for place, item in enumerate(items):
            is_last = place == len(items) - 1
            self.accelerator.gradient_state._set_sync_gradients(exchange and is_last)
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                yield item

    def backward(self, loss: Tensor) -> None:
        """Adds a loss's gradients to those of the update."""
        # DeepSpeed would divide by the number of passes once more.
        options = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
        self.accelerator.backward(loss / self.current_gradient_accumulation_steps, **options)

    # ---- what the packages call

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One pass of learning."""
        model.train()
        loss = self.learn(model, self._prepare_inputs(inputs))
        self._step += 1
        return loss / self.current_gradient_accumulation_steps

    def _prepare_inputs(self, generation_batch: dict[str, Tensor]) -> Experience:
        """The samples of this forward pass; draws new ones where their rollout begins.

        Unlike TRL's it does not shuffle: members of a group stay together, so that their head is encoded once.
        """
        if self._step % self.passes_per_rollout == 0 or self._buffered_inputs is None:
            experience = self._generate_and_score_completions(generation_batch)
            size = self.args.per_device_train_batch_size
            starts = range(0, len(experience), size)
            self._buffered_inputs = [experience.part(start, start + size) for start in starts]
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _generate_and_score_completions(self, inputs: dict[str, Tensor]) -> Experience:
        return self.rollout(inputs["condition"].tolist(), self._step // self.passes_per_rollout)

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        return self.make_sampler(self.train_dataset if dataset is None else dataset)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["condition"]

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere: TRL's telemetry reads a language model's configuration."""

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """A checkpoint is whole or absent: one that cannot be written to its end does not stay behind."""
        try:
            # TRL's would write a model card every time.
            super(GRPOTrainer, self)._save_checkpoint(model, trial)
        except Exception as error:  # safetensors and torch have classes of their own for a full disk
            name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            shutil.rmtree(self.output / name, ignore_errors=True)
            raise OSError(
                f"{name} could not be written to {self.args.output_dir} ({error}); the checkpoints before it are "
                "whole. Make room and resume."
            ) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super(HubTrainerMixin, self)._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def resume_at(self, update: int) -> None:
        """Counts passes from an update on, which TRL does from 0 after a resume.

        Rollouts and their seeds would no longer match the sampler's blocks.
        """
        self._step = update * self.args.gradient_accumulation_steps


class KeepInStep(TrainerCallback):
    """Tells a resumed run how far it has come."""

    def __init__(self, trainer: GRPOTrainerAdapter) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Counts from the update that the training begins with."""
        self.trainer.resume_at(state.global_step)
