"""Callbacks that several trainers use."""

import signal
from types import FrameType

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TellEpoch(TrainerCallback):
    """Tells the windows which epoch it is: with several processes accelerate tells the sampler only."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs) -> None:
        """Tells the data set, if it asks."""
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(int(state.epoch or 0))


class StopWhenTerminated(TrainerCallback):
    """On SIGTERM, writes a checkpoint after the present update and ends the training.

    All processes of a run stop after the same update, whichever of them was told first.
    """

    def __init__(self, trainer: Trainer) -> None:
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
