"""The training scripts; installed as ``motion_grpo.cli.train``."""
