"""Callbacks that several trainers use."""

from transformers import TrainerCallback


class TellEpoch(TrainerCallback):
    """Tells the windows which epoch it is: with several processes accelerate tells the sampler only."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs) -> None:
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(int(state.epoch or 0))
