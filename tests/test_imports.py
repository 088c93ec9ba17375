"""Recovering and drawing load no trainer and no data set library (`lint-imports` says which part may import which)."""

import subprocess
import sys

import pytest

HEAVY = ("trl", "datasets", "transformers.trainer", "motion_grpo.training")
LIGHT = [
    "motion_grpo", "motion_grpo.inference.scoring", "motion_grpo.motion.artefacts", "motion_grpo.viz",
    "motion_grpo.viz.severity", "motion_grpo.cli.recover", "motion_grpo.cli.score", "motion_grpo.cli.plot_run",
    "motion_grpo.cli.view", "motion_grpo.cli.export", "motion_grpo.cli.compare", "motion_grpo.cli.info",
]  # fmt: skip


@pytest.mark.slow
def test_recovering_scoring_and_drawing_load_no_trainer() -> None:
    lines = f"import sys; import {', '.join(LIGHT)}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    process = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert process.stdout.split() == []
