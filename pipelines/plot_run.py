"""Draws the curves of a post-training run, also while it goes on: ``motion-grpo plot-run runs/grpo -o curves.png``."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from motion_grpo.runs import LOG_FILE, TRAINER_STATE_FILE, newest_checkpoint
from motion_grpo.viz import plot_grpo_run


def plot_run(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of the training, or one checkpoint.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Picture to write (.png); DIR/grpo_curves.png by default.")
    ] = None,
) -> None:
    """Draw rewards, advantages, diversity and evaluations of a GRPO run over its steps."""
    log = run_log(run)
    path = plot_grpo_run(log, output or run / "grpo_curves.png")
    Console().print(f"drew {path} (up to step {_last_step(log)})")


def run_log(run: Path) -> list[dict]:
    """What the run logged: in ``training_log.json`` or its newest checkpoint, whichever goes further.

    Raises:
        FileNotFoundError: no folder, or neither file in it.
        ValueError: a file that is not a Trainer's log.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: there is no such folder; name the output folder of a training.")
    checkpoint = newest_checkpoint(run)
    places = [run / LOG_FILE, run / TRAINER_STATE_FILE]
    if checkpoint is not None:
        places.append(Path(checkpoint) / TRAINER_STATE_FILE)
    logs = [_read_log(place) for place in places if place.is_file()]
    if not logs:
        raise FileNotFoundError(
            f"{run}: neither {LOG_FILE} nor a checkpoint with {TRAINER_STATE_FILE} is in this folder; name the output "
            "folder of a training that has saved one."
        )
    return max(logs, key=_last_step)


def _read_log(path: Path) -> list[dict]:
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: this is not JSON ({error}); the file is damaged.") from error
    log = stored.get("log_history") if isinstance(stored, dict) else stored
    if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
        raise ValueError(f"{path}: there is no list of logged entries in this file; it is not a Trainer's.")
    return log


def _last_step(log: list[dict]) -> int:
    return max((entry.get("step", 0) for entry in log), default=0)


if __name__ == "__main__":
    typer.run(plot_run)
