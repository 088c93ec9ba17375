"""Recovers the example recordings and draws them: ``motion-grpo demo``; serves a page instead: ``--open``."""

import resource
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers.utils import logging
from rich.console import Console
from rich.table import Table

from motion_grpo import EgoMotionPipeline, Motion, load_trajectory
from motion_grpo.extras import extra
from motion_grpo.metrics import METRIC_UNITS, motion_metrics
from motion_grpo.viz.strip import draw_strip

EXAMPLES = ("walk_turns", "brisk_walk", "look_around")
SHOWN = ("mpjpe", "pa_mpjpe", "mpjve", "mpjre", "jitter")
PORT = 7860
_HERE = Path(__file__).resolve().parents[1] / "examples"


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for motions and pictures.")] = Path(
        "outputs/demo"
    ),
    examples: Annotated[Path, typer.Option(help="Folder of the recordings: the repository's examples/.")] = _HERE,
    open_page: Annotated[bool, typer.Option("--open", help="Serve a page to try it in instead, and open it.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page.")] = PORT,
) -> None:
    """Recover the example recordings and draw them, or serve a page to try it in."""
    if not (examples / f"{EXAMPLES[0]}.csv").is_file():
        raise FileNotFoundError(
            f"{examples} has no {EXAMPLES[0]}.csv: give --examples, the examples/ of the repository."
        )
    if open_page:
        with extra("space"):
            from motion_grpo.cli.app import serve
        serve(examples, port)
    else:
        _recover_examples(examples, output)


def _recover_examples(examples: Path, output: Path) -> None:
    """Writes an npz and a picture per example, and prints errors, time and memory."""
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    started = time.perf_counter()
    pipe = EgoMotionPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    console.print(f"checkpoint loaded in {time.perf_counter() - started:.1f} s")
    table = Table(title="Recovered from the head alone, against the recorded body\n(22 joints, world frame, 30 fps)")
    table.add_column("example", no_wrap=True)
    table.add_column("motion\ns", justify="right")
    table.add_column("took\ns", justify="right")
    for name in SHOWN:
        table.add_column(f"{name}\n{METRIC_UNITS[name]}", justify="right", no_wrap=True)
    for name in EXAMPLES:
        trajectory = load_trajectory(examples / f"{name}.csv")
        truth = Motion.load(examples / f"{name}.npz")
        started = time.perf_counter()
        motion = pipe(trajectory, generator=torch.Generator().manual_seed(0)).motion
        seconds = time.perf_counter() - started
        errors = motion_metrics(motion.body_rotmats, motion.joints, truth.body_rotmats, truth.joints, fps=motion.fps)
        motion.save(output / f"{name}.npz")
        draw_strip({"recovered": motion, "recorded": truth}, output / f"{name}.png", title=name.replace("_", " "))
        values = (f"{float(errors[metric]):.1f}" for metric in SHOWN)
        table.add_row(name, f"{trajectory.duration:.1f}", f"{seconds:.2f}", *values)
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    console.print(f"peak memory {peak:.2f} GB; motions and pictures are in {output}/")


if __name__ == "__main__":
    typer.run(demo)
