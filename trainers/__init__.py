"""The training scripts; installed as ``motion_grpo.cli.train``."""

from motion_grpo.extras import extra

with extra("train"):
    import motion_grpo.training  # noqa: F401  (first of all: it says what has to be installed)
