"""Trainers, each a transformers Trainer with its own config."""

from motion_grpo.extras import extra

with extra("train"):
    from motion_grpo.training.grpo.trl_adapter import check_relied_on

    check_relied_on()
    from motion_grpo.training.denoising import DenoisingConfig, DenoisingTrainer
    from motion_grpo.training.dpo.pairs import PreferencePairs, draw_pairs
    from motion_grpo.training.dpo.trainer import MotionDPOConfig, MotionDPOTrainer
    from motion_grpo.training.grpo.config import MotionGRPOConfig
    from motion_grpo.training.grpo.trainer import MotionGRPOTrainer
    from motion_grpo.training.hub_runs import newest_checkpoint
    from motion_grpo.training.perceptual import PerceptualConfig, PerceptualTrainer
    from motion_grpo.training.reward_gradient import RewardGradientConfig, RewardGradientTrainer

__all__ = [
    "DenoisingConfig", "DenoisingTrainer", "MotionDPOConfig", "MotionDPOTrainer", "MotionGRPOConfig",
    "MotionGRPOTrainer", "PerceptualConfig", "PerceptualTrainer", "PreferencePairs", "RewardGradientConfig",
    "RewardGradientTrainer", "draw_pairs", "newest_checkpoint",
]  # fmt: skip
