"""Says how plausible a motion is, and where least: ``motion-grpo score walk.npz --trajectory head.csv``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from motion_grpo.cli.head_options import (
    Convention,
    DeviceCpf,
    DeviceGeneration,
    Fps,
    Vrs,
    World,
    plain_messages,
    read_T_device_cpf,
)
from rich.console import Console

from motion_grpo import HeadTrajectory, Motion, Skeleton, load_segments
from motion_grpo.inference.scoring import score_motion
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.motion import FPS


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
    convention: Convention = None,
    fps: Fps = None,
    world: World = None,
    device_generation: DeviceGeneration = None,
    vrs: Vrs = None,
    T_device_cpf: DeviceCpf = None,
    torch_device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how plausible a motion is: 0 is made up, 1 is real."""
    console = Console()
    with plain_messages():
        loaded = Motion.load(motion, Skeleton.from_smplh(smplh) if smplh else None)
        head = None
        if trajectory is not None:
            # As `recover` does it, so that what that wrote fits the trajectory it was given.
            pieces = load_segments(
                trajectory,
                convention=convention,
                fps=fps,
                floor_height=loaded.floor_height,
                world_uid=world,
                device=device_generation,
                vrs=vrs,
                T_device_cpf=read_T_device_cpf(T_device_cpf),
            )
            head = _piece_of(loaded, pieces).resample(FPS)
        scored = score_motion(MotionPerceptualModel.from_pretrained(model).to(torch_device), loaded, head, window)
    if as_json:
        print(json.dumps({"file": str(motion)} | asdict(scored)))
        return
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


def _piece_of(motion: Motion, pieces: list[HeadTrajectory]) -> HeadTrajectory:
    """The piece of a recording in which the motion begins; the first where none does."""
    start = float(motion.timestamps[0])
    begins = (p for p in pieces if p.timestamps[0] - 0.5 / FPS <= start <= p.timestamps[-1])
    return next(begins, pieces[0])


if __name__ == "__main__":
    typer.run(score)
