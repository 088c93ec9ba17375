"""Writes a pipeline as ONNX: ``motion-grpo export-onnx folder``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from motion_grpo import EgoMotionPipeline
from motion_grpo.inference.onnx_export import FILES
from motion_grpo.inference.onnx_export import export_onnx as write


def export_onnx(
    folder: Annotated[Path, typer.Argument(help="Where to; made if it is not there.")],
    checkpoint: Annotated[str, typer.Option(help="Pipeline: a folder, a Hub id or a shipped checkpoint.")] = "base",
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps; the pipeline's own by default.")] = None,
    frames: Annotated[int | None, typer.Option(min=2, help="Of a window; the pipeline's own by default.")] = None,
) -> None:
    """Write a pipeline as ONNX: encoder, denoising step, body, and a schedule.

    The schedule is JSON; docs/live.md says how to loop over the steps.
    """
    write(EgoMotionPipeline.from_pretrained(checkpoint), folder, num_inference_steps=steps, frames=frames)
    Console().print(f"wrote {', '.join(FILES)} to {folder}", markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(export_onnx)
