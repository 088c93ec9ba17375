"""What tests of the perceptual trainer share."""

from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor, nn

from motion_grpo.data import MotionWindows, collate_windows
from motion_grpo.training import PerceptualConfig, PerceptualTrainer
from tests.tiny import moving_clip, tiny_perceptual_model, tiny_pipeline


def trainer_of(folder: Path, clips=None, eval_clips=None, policies=None, model=None, **settings) -> PerceptualTrainer:
    torch.manual_seed(0)
    defaults = {
        "use_cpu": True, "report_to": "none", "disable_tqdm": True, "window": 12, "num_negatives": 3,
        "learning_rate": 1e-3, "per_device_train_batch_size": 2, "save_strategy": "no", "logging_steps": 1, "seed": 3,
    }  # fmt: skip
    # transformers annotates some counts as float, and the shape checker takes it at its word.
    types = {field.name: field.type for field in fields(PerceptualConfig)}
    settings = {
        name: float(v) if "float" in str(types[name]) and v is not None else v
        for name, v in (defaults | settings).items()
    }
    config = PerceptualConfig(output_dir=str(folder), **settings)
    clips = clips or [moving_clip(12, seed) for seed in range(6)]  # one possible window each
    model = model or tiny_perceptual_model(dropout_p=0.1)
    return PerceptualTrainer(
        model,
        config,
        MotionWindows(clips, config.window, seed=3),
        MotionWindows(eval_clips, config.window, random=False) if eval_clips else None,
        policies=[tiny_pipeline()] if policies is None else policies,
    )


def batch_of(trainer: PerceptualTrainer, *rows: int) -> dict[str, Tensor]:
    return collate_windows([trainer.train_dataset[row] for row in rows])


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class Critic(nn.Module):
    """Returns given scores and keeps what it was asked about."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, joints: Tensor, head: Tensor, mask: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        self.seen.append((joints, head, mask))
        return (self.scores.flatten(),)


def recorded(trainer: PerceptualTrainer, monkeypatch) -> tuple[list[Tensor], list[Tensor]]:
    """Batches that the steps got, and those that negatives were made for; by the motions' betas."""
    steps, made = [], []
    loss, make = trainer.compute_loss, trainer._make_contrast
    monkeypatch.setattr(trainer, "compute_loss", lambda m, x, **k: steps.append(x["betas"]) or loss(m, x, **k))
    monkeypatch.setattr(trainer, "_make_contrast", lambda x: made.append(x["betas"]) or make(x))
    return steps, made
