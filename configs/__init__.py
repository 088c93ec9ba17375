"""Presets of the training scripts, and of accelerate; installed as ``motion_grpo.configs``."""
