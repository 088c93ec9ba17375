"""A run of the exact gradient that takes a second."""

from pathlib import Path

from motion_grpo import EgoMotionPipeline
from motion_grpo.training import RewardGradientConfig, RewardGradientTrainer
from tests.training.grpo import setup as grpo
from tests.training.grpo.setup import pipeline, windows

OWN = ("num_generations", "exploration_components", "head_noise")
SETTINGS = {name: value for name, value in grpo.SETTINGS.items() if name not in OWN} | {
    "per_device_train_batch_size": 4, "ema_decay": 0.0,
}  # fmt: skip


def config(output: Path, **changes) -> RewardGradientConfig:
    return RewardGradientConfig(str(output), **SETTINGS | changes)


def trainer(output: Path, *, base: EgoMotionPipeline | None = None, data=None, **changes) -> RewardGradientTrainer:
    given_ = {name: changes.pop(name) for name in ("eval_clips", "rewards_by_name") if name in changes}
    given_["rewards"] = given_.pop("rewards_by_name", None)
    return RewardGradientTrainer(base or pipeline(), config(output, **changes), data or windows(), **given_)
