"""What imports what: recovering and drawing load no trainer and no data set library, and nothing imports upwards."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "motion_grpo"
HEAVY = ("trl", "datasets", "transformers.trainer", "motion_grpo.training")
LIGHT = [
    "motion_grpo", "motion_grpo.inference.scoring", "motion_grpo.motion.artefacts", "motion_grpo.viz",
    "motion_grpo.viz.severity", "motion_grpo.cli.recover", "motion_grpo.cli.score", "motion_grpo.cli.plot_run",
]  # fmt: skip
BELOW = {
    "foundations": ["files", "timing", "extras", "seeding", "geometry"],
    "body": ["body"],
    "motion": ["motion", "metrics"],
    "trajectory": ["trajectory"],
    "files": ["io", "hub"],
    "retargeting": ["retargeting"],
    "guidance": ["guidance"],
    "models": ["models", "schedulers"],
    "inference": ["rewards", "inference"],
    "viz": ["viz", "runs"],
    "data": ["data"],
    "evaluation": ["provenance", "evaluation"],
    "cards": ["cards"],
    "training": ["training"],
}
"""Layers, the lowest first: a module imports from its own layer and from those before."""


def test_recovering_scoring_and_drawing_load_no_trainer() -> None:
    lines = f"import sys; import {', '.join(LIGHT)}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    process = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert process.stdout.split() == []


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_nothing_imports_upwards(path: Path) -> None:
    order = {part: number for number, parts in enumerate(BELOW.values()) for part in parts}
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own in ("__init__", "checkpoints"):
        return
    names = {name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)}
    parts = {name.split(".")[1] for name in names if name.startswith("motion_grpo.")}
    assert own in order, f"{own} is in no layer; say where it belongs."
    assert [part for part in sorted(parts & order.keys()) if order[part] > order[own]] == []


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [
            f"{node.module}.{alias.name}" if node.module == "motion_grpo" else str(node.module) for alias in node.names
        ]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
