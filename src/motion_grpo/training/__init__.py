"""Trainers, each a transformers Trainer with its own config."""

from motion_grpo.training.denoising import DenoisingConfig, DenoisingTrainer

__all__ = ["DenoisingConfig", "DenoisingTrainer"]
