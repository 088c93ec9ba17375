"""Trainers, each a transformers Trainer with its own config."""

from motion_grpo.extras import extra

with extra("train"):
    from motion_grpo.training.relied_on import check_relied_on

    check_relied_on()
    from motion_grpo.training.denoising import DenoisingConfig, DenoisingTrainer
    from motion_grpo.training.grpo import MotionGRPOTrainer
    from motion_grpo.training.grpo_config import MotionGRPOConfig
    from motion_grpo.training.perceptual import PerceptualConfig, PerceptualTrainer
    from motion_grpo.training.saving import newest_checkpoint

__all__ = [
    "DenoisingConfig", "DenoisingTrainer", "MotionGRPOConfig", "MotionGRPOTrainer", "PerceptualConfig",
    "PerceptualTrainer", "newest_checkpoint",
]  # fmt: skip
