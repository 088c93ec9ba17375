"""Writes a motion in another format: ``motion-grpo export walk.npz walk.glb``."""

from pathlib import Path
from typing import Annotated

import typer
from motion_grpo.cli.motion_input import Smplh, read_motion, read_row
from rich.console import Console

from motion_grpo.motion import check_output_path

_HELP = "Motion to write; .bvh .glb .vrma .mp4 .gif .html .csv .parquet .npz .smplx.npz."


def export(
    motion: Annotated[str, typer.Argument(help="Motion (.npz, AMASS layout), or a data set's folder or Hub id.")],
    output: Annotated[Path, typer.Argument(help=_HELP)],
    clip: Annotated[str | None, typer.Option(help="Id of the data set's row to take.")] = None,
    split: Annotated[str, typer.Option(help="Split that the row is in.")] = "val",
    smplh: Smplh = None,
) -> None:
    """Write a motion for Blender, game engines, avatars, the web, video or tables."""
    check_output_path(output)
    read = read_motion(Path(motion), smplh) if clip is None else read_row(motion, clip, split, smplh)
    read.save(output, model_path=smplh)
    Console().print(f"wrote {output}: {read}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(export)
