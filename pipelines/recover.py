"""Recovers full-body motion from a head trajectory: ``motion-grpo recover closed_loop_trajectory.csv -o walk.npz``."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from motion_grpo import EgoMotionPipeline, HeadTrajectory, Motion, load_trajectory
from motion_grpo.motion import check_output_path
from motion_grpo.viz.figures import check_picture_path
from motion_grpo.viz.strip import draw_strip


def recover(
    trajectory: Annotated[Path, typer.Argument(help="Aria MPS, ADT, TUM, CSV or npz file, or an MPS folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Motion to write (.npz).")],
    checkpoint: Annotated[str, typer.Option(help="Folder, Hub id, or the name of a shipped checkpoint.")] = "base",
    samples: Annotated[int, typer.Option(min=1, help="Motions to draw; several are numbered _0, _1, ...")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps; the checkpoint's own by default.")] = None,
    eta: Annotated[float | None, typer.Option(min=0, help="Stochasticity; the checkpoint's own by default.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same motion.")] = 0,
    hands: Annotated[
        Path | None, typer.Option(help="Wrists: MPS hand tracking (file or folder), or a CSV with left_wrist_x ...")
    ] = None,
    stature: Annotated[float | None, typer.Option(help="Height of the wearer, m; guessed by default.")] = None,
    floor_height: Annotated[
        float | None, typer.Option(help="z of the floor, m; found or estimated by default.")
    ] = None,
    device_generation: Annotated[str, typer.Option(help="Aria device whose default extrinsic is used.")] = "gen1",
    vrs: Annotated[Path | None, typer.Option(help="VRS file to take the device-to-CPF calibration from.")] = None,
    split: Annotated[bool, typer.Option("--split", help="Split at gaps of more than 0.5 s, one file a piece.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw the body along the head path (.png).")] = None,
    torch_device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
) -> None:
    """Recover full-body motion from a head trajectory."""
    console = Console()
    check_output_path(output)
    if picture is not None:
        check_picture_path(picture)
    loaded = load_trajectory(
        trajectory,
        floor_height=floor_height,
        device=device_generation,
        vrs=vrs,
        on_gap="split" if split else "error",
    )
    pieces = [loaded] if isinstance(loaded, HeadTrajectory) else loaded
    pipe = EgoMotionPipeline.from_pretrained(checkpoint).to(torch_device)
    motions: list[Motion] = []
    for piece in pieces:
        console.print(
            f"{piece.source}: {len(piece)} poses, {piece.duration:.1f} s; floor at z = {piece.floor_height:.3f} m "
            f"({piece.floor_source}); {piece.source_frame}"
        )
        generator = torch.Generator().manual_seed(seed)
        known = {"hands": hands, "stature": stature}
        result = pipe(piece, **known, num_samples=samples, num_inference_steps=steps, eta=eta, generator=generator)
        motions += result.motions
    for number, motion in enumerate(motions):
        path = output if len(motions) == 1 else output.with_stem(f"{output.stem}_{number}")
        console.print(f"wrote {motion.save(path)} ({len(motion)} frames at {motion.fps:.0f} fps)")
    if picture is not None:
        draw_strip({"recovered": motions[0]}, picture, title=trajectory.name)
        console.print(f"drew {picture}")


if __name__ == "__main__":
    typer.run(recover)
