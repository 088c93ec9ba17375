"""Recovers full-body motion from a head trajectory: ``motion-grpo recover closed_loop_trajectory.csv -o walk.npz``."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers.utils import logging
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
from motion_grpo.cli.sampling_options import Eta, GuidanceFloor, GuidanceInner, Steps, Temperature, guidance_settings
from rich.console import Console

from motion_grpo import (
    EgoMotionPipeline,
    HeadTrajectory,
    Motion,
    MotionPerceptualModel,
    load_segments,
    load_trajectory,
)
from motion_grpo.inference.scoring import ScoredMotion, score_motion
from motion_grpo.motion.formats import check_output_path, numbered
from motion_grpo.viz.figures import check_picture_path
from motion_grpo.viz.strip import draw_strip


def recover(
    trajectory: Annotated[Path, typer.Argument(help="Aria MPS, ADT, TUM, EuRoC, CSV or npz file, or an MPS folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Motion to write; .npz, .bvh, .glb, .mp4 ...")],
    checkpoint: Annotated[str, typer.Option(help="Folder, Hub id, or the name of a shipped checkpoint.")] = "base",
    samples: Annotated[int, typer.Option(min=1, help="Motions to draw; several are numbered _0, _1, ...")] = 1,
    steps: Steps = None,
    eta: Eta = None,
    temperature: Temperature = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same motion.")] = 0,
    hands: Annotated[
        Path | None, typer.Option(help="Wrists: MPS hand tracking (file or folder), or a CSV with left_wrist_x ...")
    ] = None,
    hamer: Annotated[
        Path | None, typer.Option(help="Hands that HaMeR found in the images (.npz of `motion-grpo data hamer`).")
    ] = None,
    guidance: Annotated[
        str | None,
        typer.Option(
            help="Optimize the result: no_hands (feet that stand do not slide), aria_wrist_only, aria_hamer, "
            "hamer_wrist, hamer_reproj2, or off; the checkpoint's own by default."
        ),
    ] = None,
    guidance_inner: GuidanceInner = False,
    guidance_floor: GuidanceFloor = False,
    stature: Annotated[float | None, typer.Option(help="Height of the wearer, m; guessed by default.")] = None,
    convention: Convention = None,
    fps: Fps = None,
    floor_height: Annotated[
        float | None,
        typer.Option(help="Height of the floor along the file's up axis, m; by default found or estimated."),
    ] = None,
    world: World = None,
    device_generation: DeviceGeneration = None,
    vrs: Vrs = None,
    T_device_cpf: DeviceCpf = None,
    split: Annotated[
        bool, typer.Option("--split", help="Split at gaps of more than 0.5 s and between worlds, one file a piece.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw the body along the head path (.png).")] = None,
    torch_device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recover full-body motion from a head trajectory."""
    say = Console(stderr=as_json, markup=False, highlight=False, soft_wrap=True).print
    check_output_path(output)
    if picture is not None:
        check_picture_path(picture)
    with plain_messages():
        settings = guidance_settings(guidance, guidance_inner, guidance_floor)
        options = dict(
            convention=convention,
            fps=fps,
            floor_height=floor_height,
            world_uid=world,
            device=device_generation,
            vrs=vrs,
            T_device_cpf=read_T_device_cpf(T_device_cpf),
        )
        pieces = load_segments(trajectory, **options) if split else [load_trajectory(trajectory, **options)]
        pipe = _load_pipeline(checkpoint).to(torch_device)
        motions: list[Motion] = []
        told: list[dict[str, Any]] = []
        for piece in pieces:
            say(_described(piece))
            generator = torch.Generator().manual_seed(seed)
            seen = tuple(path for path in (hands, hamer) if path is not None)
            result = pipe(
                piece,
                hands=seen or None,
                stature=stature,
                guidance=settings,
                num_samples=samples,
                num_inference_steps=steps,
                eta=eta,
                temperature=temperature,
                generator=generator,
            )
            if result.guidance is not None:
                say(str(result.guidance))
            motions += result.motions
            told += [_facts(piece)] * len(result.motions)
        critic = _installed_critic(torch_device)
        for number, motion in enumerate(motions):
            path = output if len(motions) == 1 else numbered(output, number)
            say(f"wrote {motion.save(path)} ({len(motion)} frames at {motion.fps:.0f} fps)")
            told[number] = told[number] | {"file": str(path), "frames": len(motion), "fps": motion.fps}
            if critic is not None:
                scored = score_motion(critic, motion)
                say(f"  {_verdict(scored)}")
                told[number] |= {"plausible": scored.score, "implausible_seconds": scored.implausible()}
        if picture is not None:
            draw_strip({"recovered": motions[0]}, picture, title=trajectory.name)
            say(f"drew {picture}")
    if as_json:
        print(json.dumps(told))


def _load_pipeline(checkpoint: str) -> EgoMotionPipeline:
    """The pipeline, whose progress is shown on terminals only: a log has no use for bars."""
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    pipe = EgoMotionPipeline.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    return pipe


def _facts(piece: HeadTrajectory) -> dict[str, Any]:
    """What ``--json`` says of a piece of the recording."""
    return {
        "source": str(piece.source),
        "seconds": piece.duration,
        "floor_m": piece.floor_height,
        "floor_from": piece.floor_source,
        "frame": piece.source_frame,
    }


def _described(piece: HeadTrajectory) -> str:
    floor = f"floor at z = {piece.floor_height:.3f} m ({piece.floor_source})"
    if piece.floor_source not in ("given", "point cloud"):
        floor += ", which --floor-height corrects"
    return f"{piece.source}: {len(piece)} poses, {piece.duration:.1f} s; {floor}; {piece.source_frame}"


def _installed_critic(torch_device: str) -> MotionPerceptualModel | None:
    """The critic that ships, where it is installed."""
    try:
        return MotionPerceptualModel.from_pretrained(local_files_only=True).to(torch_device)
    except OSError:
        return None


def _verdict(scored: ScoredMotion) -> str:
    """How plausible the critic finds a motion, and which seconds it finds implausible."""
    verdict = f"the critic finds it {scored.score:.2f} plausible (0 made up, 1 recorded)"
    spans = scored.implausible()
    if not spans:
        return f"{verdict}, and no second implausible"
    seconds = ", ".join(f"{start:.1f} to {stop:.1f} s" for start, stop in spans)
    lowest = scored.lowest(1)[0]
    worst = f"; the least so: {lowest.start_time:.1f} to {lowest.stop_time:.1f} s ({lowest.score:.2f})"
    return f"{verdict}; implausible (below 0.5): {seconds}{worst if len(scored.windows) > 1 else ''}"


if __name__ == "__main__":
    typer.run(recover)
