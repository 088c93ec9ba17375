"""Says how plausible a motion is, and where least: ``motion-grpo score walk.npz --trajectory head.csv``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from motion_grpo import Motion, Skeleton, load_trajectory
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.motion import FPS
from motion_grpo.scoring import score_motion


def score(
    motion: Annotated[Path, typer.Argument(help="Motion at 30 fps (.npz, AMASS layout).")],
    trajectory: Annotated[
        Path | None, typer.Option(help="Head trajectory that it should go with; the motion's own head by default.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Folder, Hub id, or the name of a shipped perceptual model.")
    ] = "perceptual",
    lowest: Annotated[int, typer.Option(min=1, help="So many of the least plausible windows are listed.")] = 5,
    window: Annotated[int, typer.Option(min=2, help="Frames of a window; the model was trained on 128.")] = 128,
    smplh: Annotated[Path | None, typer.Option(help="SMPL-H model.npz that the motion's betas refer to.")] = None,
    torch_device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
) -> None:
    """Say how plausible a motion is: 0 is made up, 1 is real."""
    console = Console()
    loaded = Motion.load(motion, Skeleton.from_smplh(smplh) if smplh else None)
    # As `recover` does it, so that what that wrote fits the trajectory it was given.
    head = None if trajectory is None else load_trajectory(trajectory, floor_height=loaded.floor_height).resample(FPS)
    scored = score_motion(MotionPerceptualModel.from_pretrained(model).to(torch_device), loaded, head, window)
    console.print(
        f"{motion}: {scored.score:.3f} (0 made up, 1 real), mean of {len(scored.windows)} windows of up to {window} "
        f"frames, {'with its own head' if head is None else f'with the head of {trajectory}'}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for part in scored.lowest(lowest):
        console.print(
            f"  {part.score:.3f}  {part.start_time:8.2f} to {part.stop_time:.2f} s  (frames {part.start} to "
            f"{part.stop - 1})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


if __name__ == "__main__":
    typer.run(score)
