"""What it is worth to know more than the head, and what a device that sits askew costs: a table of docs/pretraining.md.

    python studies/conditions.py run DATA --model base --split val,test --out docs/results/conditions.jsonl
    python studies/conditions.py write

Every clip of a source is recovered whole under each condition, one sample, the same noise. A line of the JSONL is one
condition on one source of one split, with the settings, the commit and the data's digest. ``write`` makes the table.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import roma
import torch
import typer
from rich.progress import track

from motion_grpo import EgoMotionPipeline, HandObservations, HeadTrajectory
from motion_grpo.body import WRIST_JOINTS
from motion_grpo.data import Clip
from motion_grpo.data.loading import evenly
from motion_grpo.evaluation import clip_generators, clip_name, head_trajectory, read_clips, score
from motion_grpo.files import write_between, write_text
from motion_grpo.motion import FPS
from motion_grpo.provenance import code_version, dataset_facts, weights_digest
from motion_grpo.seeding import generator_of

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "docs/results/conditions.jsonl", ROOT / "docs/pretraining.md"
START, END = "<!-- conditions: written by studies/conditions.py -->", "<!-- end of conditions -->"
TURN_DEGREES, OFFSET_METERS, FLOOR_METERS, WRIST_METERS = 5.0, 0.02, 0.04, 0.03
Call = tuple[HeadTrajectory, dict]
"""A trajectory, and further arguments of the pipeline's call."""


def head_only(clip: Clip) -> Call:
    """The true head and nothing else."""
    return head_trajectory(clip), {}


def both_wrists(clip: Clip) -> Call:
    """Both wrists in every frame, as recorded."""
    return head_trajectory(clip), {"hands": _wrists(clip, np.ones((len(clip.motion), 2), bool))}


def wrists_in_bursts(clip: Clip) -> Call:
    """Each wrist in bursts and pauses of a second in the mean: half of the frames."""
    generator = generator_of("bursts", clip_name(clip))
    switches = torch.rand(len(clip.motion), 2, generator=generator) < 1 / FPS
    switches[0] = torch.rand(2, generator=generator) < 0.5
    return head_trajectory(clip), {"hands": _wrists(clip, (switches.cumsum(0) % 2 == 1).numpy())}


def noisy_wrists(clip: Clip) -> Call:
    """Both wrists in every frame, each coordinate off by 3 cm of white noise."""
    generator = generator_of("wrist noise", clip_name(clip))
    noise = WRIST_METERS * torch.randn(len(clip.motion), 2, 3, generator=generator)
    return head_trajectory(clip), {"hands": _wrists(clip, np.ones((len(clip.motion), 2), bool), noise)}


def known_betas(clip: Clip) -> Call:
    """The wearer's body."""
    return head_trajectory(clip), {"betas": clip.motion.betas}


def known_stature(clip: Clip) -> Call:
    """The wearer's height in meters."""
    motion = clip.motion
    return head_trajectory(clip), {"stature": float(motion.body.stature(motion.betas))}


def worn_askew(clip: Clip) -> Call:
    """The device turned by 5 degrees about some axis and 2 cm off in some direction; the floor 4 cm too high or low."""
    generator = generator_of("askew", clip_name(clip))
    axis, direction = torch.nn.functional.normalize(torch.randn(2, 3, generator=generator), dim=-1)
    sign = 1.0 if torch.rand((), generator=generator) < 0.5 else -1.0
    head = head_trajectory(clip)
    turn = roma.rotvec_to_rotmat(math.radians(TURN_DEGREES) * axis)
    R, p = head.R_world_cpf @ turn, head.p_world_cpf + OFFSET_METERS * (head.R_world_cpf @ direction)
    floor = head.floor_height + sign * FLOOR_METERS
    return HeadTrajectory(R, p, head.timestamps, floor, "given", clip.id), {}


CONDITIONS: dict[str, Callable[[Clip], Call]] = {
    "head only": head_only,
    "both wrists seen throughout": both_wrists,
    "both wrists, each coordinate off by 3 cm": noisy_wrists,
    "wrists seen in half of the frames, in bursts of a second": wrists_in_bursts,
    "the wearer's `betas` given": known_betas,
    "the wearer's `stature` given": known_stature,
    "device turned by 5 degrees, moved by 2 cm; floor off by 4 cm": worn_askew,
}
NEEDS_WRISTS = {name for name in CONDITIONS if "wrists" in name}


def _wrists(clip: Clip, visible: np.ndarray, noise: torch.Tensor | float = 0.0) -> HandObservations:
    posed = clip.motion.posed
    wrists = list(WRIST_JOINTS)
    poses = torch.zeros(len(clip.motion), 2, 4, 4)
    poses[..., :3, :3], poses[..., :3, 3] = posed.rotmats[:, wrists], posed.joints[:, wrists] + noise
    poses[..., 3, 3] = 1
    return HandObservations.from_world(poses, visible=visible, timestamps=clip.motion.timestamps)


app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def run(
    dataset: Path,
    model: str = "base",
    split: str = "val,test",
    out: Path = KEPT,
    limit: Annotated[int | None, typer.Option(help="Only so many clips a source, evenly spread.")] = None,
    conditions: Annotated[str, typer.Option(help="Some of the conditions, by number; all by default.")] = "",
) -> None:
    """Recover every clip under each condition."""
    pipeline = EgoMotionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    facts = {"model": model, "weights_sha256": digest_of(pipeline), **code_version(), **dataset_facts(dataset)}
    names = list(CONDITIONS)
    if conditions:
        names = [names[int(number)] for number in conditions.split(",")]
    if not pipeline.denoiser.config.include_wrists_cond:
        names = [name for name in names if name not in NEEDS_WRISTS]
    lines = []
    for part in split.split(","):
        clips = read_clips(dataset, part)
        for source in sorted({clip.source for clip in clips}):
            of_source = [clip for clip in clips if clip.source == source]
            of_source = [of_source[index] for index in evenly(len(of_source), limit)]
            place = {"split": part, "source": source}
            lines += [place | {"condition": name} | _measured(pipeline, of_source, name) | facts for name in names]
    write_text(out, "".join(json.dumps(line) + "\n" for line in lines))


def _measured(pipeline: EgoMotionPipeline, clips: list[Clip], name: str) -> dict:
    errors, wrist_errors, legs, jitters = [], [], [], []
    for clip in track(clips, f"{clips[0].source}: {name}"):
        trajectory, more = CONDITIONS[name](clip)
        motion = pipeline(trajectory, generator=clip_generators(clip, [0]), **more).motion
        # Scored in the world, over the clip's own floor, whatever the pipeline was told of it.
        scores = score([replace(motion, floor_height=clip.motion.floor_height)], clip)
        errors.append(scores["mpjpe"][0])
        jitters.append(scores["jitter"][0])
        wrists = list(WRIST_JOINTS)
        apart = (motion.joints[:, wrists] - clip.motion.joints[:, wrists]).norm(dim=-1)
        wrist_errors.append(1000 * float(apart.mean()))
        leg, true = (float(m.body.leg_length(m.betas)) for m in (motion, clip.motion))
        legs.append(abs(leg / true - 1))
    mean = {
        "mpjpe": np.mean(errors), "wrist_error": np.mean(wrist_errors), "jitter": np.mean(jitters),
        "leg_length_off": np.mean(legs),
    }  # fmt: skip
    return {"clips": len(clips), **{key: round(float(value), 5) for key, value in mean.items()}, "seed": 0}


def digest_of(pipeline: EgoMotionPipeline) -> str:
    """Of the denoiser's weights; empty for a pipeline that was not loaded from a folder."""
    folder = Path(str(pipeline.config.get("_name_or_path")))
    return weights_digest(folder / "denoiser") if folder.is_dir() else ""


@app.command()
def write(out: Path = KEPT) -> None:
    """Write the table."""
    write_between(PAGE, START, table(map(json.loads, out.read_text().splitlines())), END)


def table(lines: Iterable[dict]) -> str:
    """MPJPE by condition, and what differs from head only, for each split and source."""
    rows = list(lines)
    places = sorted({(row["split"], row["source"]) for row in rows})
    at = {(row["split"], row["source"], row["condition"]): row for row in rows}
    text = ["| MPJPE, mm (the wrists' own error) | " + " | ".join(f"{s} {split}" for split, s in places) + " |"]
    text.append("|---|" + "---|" * len(places))
    clips = " | ".join(str(next(r["clips"] for r in rows if (r["split"], r["source"]) == place)) for place in places)
    text.append(f"| clips | {clips} |")
    for name in CONDITIONS:
        cells = []
        for place in places:
            row, first = at.get((*place, name)), at[(*place, "head only")]
            if row is None:
                cells.append("")
                continue
            change = "" if row is first else f" {row['mpjpe'] / first['mpjpe'] - 1:+.0%}".replace("-", "−")
            cells.append(f"{row['mpjpe']:.1f}{change} ({row['wrist_error']:.0f})")
        if any(cells):
            text.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(text)


if __name__ == "__main__":
    app()
