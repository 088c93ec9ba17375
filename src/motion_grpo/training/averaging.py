"""The exponential moving average of what a trainer trains."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class AveragedWeights(EMAModel, TrainerCallback):
    """diffusers' moving average as a callback: it moves after each update, and goes on where a resumed run stopped.

    Args:
        parameters: those that are trained.
        decay: the average's share that one update leaves in place, from about 9 / (1 - decay) updates on (diffusers').
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        super().__init__(parameters, decay=decay, foreach=True)
        self.trained = parameters

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Counts from the update that the training begins with."""
        self.to(args.device)
        self.optimization_step = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Moves the average."""
        self.step(self.trained)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The average stands in the network, and what is trained comes back afterwards."""
        self.store(self.trained)
        self.copy_to(self.trained)
        try:
            yield
        finally:
            self.restore(self.trained)

    def go_on_from(self, values: Iterable[Tensor]) -> None:
        """Takes the stored average of a run that is resumed, parameter by parameter."""
        self.shadow_params = [
            value.detach().clone().to(parameter.device) for value, parameter in zip(values, self.trained, strict=True)
        ]
