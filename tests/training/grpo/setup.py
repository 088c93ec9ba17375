"""A GRPO run that takes a second: tiny network, windows of 16 frames, groups of 4."""

from pathlib import Path

import torch

from motion_grpo import EgoMotionPipeline
from motion_grpo.data import MotionWindows
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training import MotionGRPOConfig, MotionGRPOTrainer
from tests.tiny import moving_clip, tiny_denoiser

WINDOW = 16
SETTINGS = {
    "use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no", "logging_steps": 1.0,
    "warmup_steps": 0.0, "learning_rate": 1e-3, "max_steps": 2, "lr_scheduler_type": "constant",
    "num_generations": 4, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
    "window": WINDOW, "num_sampling_steps": 3, "head_noise": 0.05, "exploration_components": 4,
    "rewards": ["rotation", "position", "aligned_position", "velocity"],
}  # fmt: skip


def pipeline(seed: int = 0, **network) -> EgoMotionPipeline:
    torch.manual_seed(seed)
    denoiser = tiny_denoiser(**{"rotation_representation": "6d"} | network)
    scheduler = EgoMotionSDEScheduler(timestep_spacing="trailing", eta=1.0)
    return EgoMotionPipeline(denoiser, scheduler, num_inference_steps=3, window=WINDOW, overlap=4)


def windows(clips: int = 6, seed: int | None = 0, length: int = WINDOW) -> MotionWindows:
    return MotionWindows([moving_clip(40, number) for number in range(clips)], length, seed=seed)


def config(output: Path, **settings) -> MotionGRPOConfig:
    return MotionGRPOConfig(str(output), **SETTINGS | settings)


def trainer(output: Path, *, base: EgoMotionPipeline | None = None, **settings) -> MotionGRPOTrainer:
    given = {name: settings.pop(name) for name in ("eval_clips", "rewards_by_name", "callbacks") if name in settings}
    given["rewards"] = given.pop("rewards_by_name", None)
    return MotionGRPOTrainer(base or pipeline(), config(output, **settings), windows(), **given)


def logged(run: MotionGRPOTrainer, name: str) -> list[float]:
    return [entry[name] for entry in run.state.log_history if name in entry]


def weights(run: MotionGRPOTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.policy.trained_parameters()])
