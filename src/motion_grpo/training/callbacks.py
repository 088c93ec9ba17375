"""Callbacks that several trainers use."""

import signal
from types import FrameType

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TellEpoch(TrainerCallback):
    """Tells the windows which epoch it is: with several processes accelerate tells the sampler only."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs) -> None:
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(int(state.epoch or 0))


class KeepInStep(TrainerCallback):
    """Tells the sampler and the windows which epoch it is, and a resumed run how far it has come."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        # TRL counts from 0 again after a resume; rollouts and their seeds would no longer match the sampler's blocks.
        self.trainer._step = state.global_step * args.gradient_accumulation_steps
        # Before the first update the base is evaluated; a run that goes on has done so.
        args.eval_on_start = args.eval_on_start and state.global_step == 0

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.trainer.start_of_epoch(int(state.epoch or 0))


class AverageWeights(TrainerCallback):
    """Moves the averaged weights after each update."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.trainer.ema.to(args.device)
        self.trainer.ema.optimization_step = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.trainer.ema.step(self.trainer.policy.trained_parameters())


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
        self._previous = signal.signal(signal.SIGTERM, self._request)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if args.world_size > 1:
            told = torch.tensor(float(self.requested), device=args.device)
            self.requested = bool(self.trainer.accelerator.reduce(told, "sum") > 0)
        if self.requested:
            control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
