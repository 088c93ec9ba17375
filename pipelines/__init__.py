"""Runnable inference; installed as the package motion_grpo_cli."""
