"""Callbacks that several trainers use."""

import signal
from types import FrameType
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TellEpoch(TrainerCallback):
    """Tells the windows which epoch it is: with several processes accelerate tells the sampler only."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs) -> None:
        """Tells the data set, if it asks."""
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(int(state.epoch or 0))


class FollowRun(TrainerCallback):
    """Tells a trainer of a policy which epoch it is, and evaluates the base only where a run begins.

    Args:
        trainer: has ``start_of_epoch``.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Before the first update the base is evaluated; a run that goes on has done so."""
        args.eval_on_start = args.eval_on_start and state.global_step == 0

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Tells the epoch."""
        self.trainer.start_of_epoch(int(state.epoch or 0))


class SkipNonFinite(TrainerCallback):
    """Leaves the weights as they are after an update whose gradient is not finite, and counts such updates.

    Args:
        model: what is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.count = 0

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Gradients are the same on all processes here, and so is the decision."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        if not gradients or torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
            return
        self.count += 1
        for parameter in self.model.parameters():
            parameter.grad = None


class StopWhenTerminated(TrainerCallback):
    """On SIGTERM, writes a checkpoint after the present update and ends the training.

    All processes of a run stop after the same update, whichever of them was told first.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.requested = False
        self._previous: object = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Listens for SIGTERM."""
        self._previous = signal.signal(signal.SIGTERM, self._request)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Ends the training if any process was told to."""
        if args.world_size > 1:
            told = torch.tensor(float(self.requested), device=args.device)
            self.requested = bool(self.trainer.accelerator.reduce(told, "sum") > 0)
        if self.requested:
            control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Leaves the signal to whoever had it before."""
        signal.signal(signal.SIGTERM, self._previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
