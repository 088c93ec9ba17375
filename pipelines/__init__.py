"""The commands of ``motion-grpo``; installed as ``motion_grpo.cli``."""
