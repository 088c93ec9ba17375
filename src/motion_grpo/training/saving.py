"""What the trainers share about checkpoints: which one to resume from, and weights as diffusers writes them."""

import json
import re
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME


def newest_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint of a run that was written to its end; None where there is none.

    A run can be killed while it writes one. The trainer's state is what is written last, so a checkpoint whose state
    cannot be read is passed over for the one before.
    """
    numbered = [(re.fullmatch(r"checkpoint-(\d+)", folder.name), folder) for folder in Path(output_dir).glob("*")]
    for _, folder in sorted(((int(match[1]), folder) for match, folder in numbered if match), reverse=True):
        try:
            json.loads((folder / TRAINER_STATE_NAME).read_text())
        except (OSError, ValueError):
            continue
        return str(folder)
    return None


class DiffusersTrainer(Trainer):
    """A transformers Trainer of one diffusers model: checkpoints hold ``config.json`` and diffusers' weight file.

    transformers would write its own file name, which ``from_pretrained`` does not find, and no configuration.
    """

    def __init__(self, model: ModelMixin, args: TrainingArguments, **options: Any) -> None:
        self.diffusers_model = model
        """The model itself, whatever accelerate wraps it in."""
        super().__init__(model=model, args=args, **options)
        if args.gradient_checkpointing:
            # transformers would call a method of its own models.
            model.enable_gradient_checkpointing()
            args.gradient_checkpointing = args.activation_checkpointing = False

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        self.diffusers_model.save_pretrained(output_dir or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        stored = type(self.diffusers_model).from_pretrained(resume_from_checkpoint)
        self.diffusers_model.load_state_dict(stored.state_dict())

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)
