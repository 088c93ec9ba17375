"""What tests of DPO share: pairs of a tiny network, and a run on them that takes a second."""

from functools import cache
from pathlib import Path

import torch

from motion_grpo import EgoMotionPipeline
from motion_grpo.rewards import REWARDS
from motion_grpo.training import MotionDPOConfig, MotionDPOTrainer, PreferencePairs, draw_pairs
from tests.training.grpo import setup as grpo
from tests.training.grpo.setup import pipeline, windows

CPU = torch.device("cpu")
NAMES = ("rotation", "position")


def drawn(count: int = 5, rewards: dict | None = None, **options) -> PreferencePairs:
    settings = {"count": count, "group_size": 4, "num_sampling_steps": 2, "seed": 0, "device": CPU} | options
    return draw_pairs(pipeline(), windows(), rewards or {name: REWARDS[name] for name in NAMES}, **settings)


OWN = ("exploration_components", "head_noise")
SETTINGS = {name: value for name, value in grpo.SETTINGS.items() if name not in OWN} | {
    "per_device_train_batch_size": 4, "beta": 100.0,
}  # fmt: skip


@cache
def pairs() -> PreferencePairs:
    return drawn(12)


def config(output: Path, **changes) -> MotionDPOConfig:
    return MotionDPOConfig(str(output), **SETTINGS | changes)


def trainer(output: Path, *, base: EgoMotionPipeline | None = None, given=None, **changes) -> MotionDPOTrainer:
    options = {name: changes.pop(name) for name in ("eval_clips", "reference") if name in changes}
    return MotionDPOTrainer(base or pipeline(), config(output, **changes), given or pairs(), **options)
