"""Says what a file is and what would be done with it: ``motion-grpo info closed_loop_trajectory.csv``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from motion_grpo.cli.head_options import Convention, Fps, plain_messages
from motion_grpo.cli.motion_input import Smplh, read_motion
from rich.console import Console

from motion_grpo import Motion, load_segments
from motion_grpo.io.kinds import kind_of
from motion_grpo.motion import FPS

_UP = {"x": 0, "y": 1, "z": 2}


def info(
    file: Annotated[Path, typer.Argument(help="Any file or folder.")],
    convention: Convention = None,
    fps: Fps = None,
    smplh: Smplh = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a file is, which way is up, how long it is, and what would be done with it."""
    kind = kind_of(file)
    facts: dict[str, Any] = {"file": str(file), "kind": kind}
    if kind == "a motion":
        facts |= motion_facts(read_motion(file, smplh))
    elif kind == "a head trajectory":
        with plain_messages():
            facts |= trajectory_facts(file, convention=convention, fps=fps)
    if as_json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        Console().print(f"{name:>{width}}  {shown}", markup=False, highlight=False, soft_wrap=True)


def motion_facts(motion: Motion) -> dict[str, Any]:
    """Length, body, and which way is up: the axis along which the head lies over the hips."""
    trunk = (motion.joints[:, 15] - motion.joints[:, 0]).mean(0)
    axis = max(_UP, key=lambda name: abs(float(trunk[_UP[name]])))
    path = motion.root_positions[:, :2]
    facts = {
        "frames": len(motion),
        "seconds": len(motion) / motion.fps,
        "fps": motion.fps,
        "up": f"{'-' if trunk[_UP[axis]] < 0 else '+'}{axis}",
        "body": motion.body.name,
        "stature_m": float(motion.body.stature(motion.betas)),
        "hands": "known" if motion.hand_rotmats is not None else "not known (flat)",
        "floor_m": motion.floor_height,
        "traveled_m": float((path[1:] - path[:-1]).norm(dim=-1).sum()),
        "contacts": "labeled" if bool(motion.contacts.any()) else "none",
    }
    upright = facts["up"] == "+z"
    facts["use"] = (
        "motion-grpo view, export, compare and score take it"
        if upright
        else f"motions are z up, and this head is along {facts['up']} from the hips: turn it, unless the person lies"
    )
    return facts


def trajectory_facts(file: Path, **options: Any) -> dict[str, Any]:
    """Length, floor and frames of a head trajectory, and what ``recover`` does with it."""
    pieces = load_segments(file, **options)
    first = pieces[0]
    seconds = sum(piece.duration for piece in pieces)
    frames = sum(int(piece.duration * FPS + 1e-6) + 1 for piece in pieces)
    heights = first.p_world_cpf[:, 2] - first.floor_height
    split = f" --split, into {len(pieces)} files" if len(pieces) > 1 else ""
    return {
        "poses": sum(map(len, pieces)),
        "seconds": seconds,
        "fps": float(first.fps),
        "pieces": len(pieces),
        "up": "+z, after reading",
        "frame": first.source_frame,
        "floor_m": first.floor_height,
        "floor_from": first.floor_source,
        "eyes_over_floor_m": float(heights.median()),
        "use": f"motion-grpo recover{split}: {frames} frames at {FPS:.0f} fps",
    }


if __name__ == "__main__":
    typer.run(info)
