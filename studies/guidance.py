"""What guidance changes: the tables of docs/guidance.md.

    python -m studies.guidance run DATA --limit 20 --out docs/results/guidance.jsonl
    python -m studies.guidance write

The beginning of each clip is recovered in every way that `ROWS` names, one sample, the same noise. Clips come source by
source in turn, in an order drawn once, and a line of the JSONL is one clip in one way: a run that is cut short is a
smaller one, and goes on where it stopped. ``write`` makes the tables.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer

from motion_grpo import EgoMotionPipeline, GuidanceConfig
from motion_grpo.body import FOOT_JOINTS, WRIST_JOINTS
from motion_grpo.data import Clip
from motion_grpo.evaluation import clip_generators, clip_name, read_clips, score
from motion_grpo.evaluation.clips import frames_of
from motion_grpo.files import write_between
from motion_grpo.guidance import Terrain
from motion_grpo.motion import FPS, Motion
from motion_grpo.motion.contacts import TOE_HEIGHT, speeds
from motion_grpo.provenance import code_version, dataset_facts
from motion_grpo.seeding import generator_of
from studies.conditions import Call, both_wrists, digest_of, head_only, noisy_wrists
from studies.records import read_records

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "docs/results/guidance.jsonl", ROOT / "docs/guidance.md"
MARKS = {
    name: (f"<!-- guidance {name}: written by studies/guidance.py -->", f"<!-- end of guidance {name} -->")
    for name in ("feet", "wrists", "ground")
}
MAX_FRAMES = 300
STEP_HEIGHT, STEP_SHARE = 0.12, 0.1
"""A recording climbs if a toe rests so high over the floor, in meters, for that share of its frames."""
_STILL = 0.15
"""m/s."""


class Row(NamedTuple):
    """One way to recover a clip."""

    call: Callable[[Clip], Call]
    guidance: GuidanceConfig | None = None
    terrain: bool = False
    """Over the ground that the recording's own feet stood on; only clips that climb."""


def head_over_ground(clip: Clip) -> Call:
    """The true head, and the ground under the recording's feet."""
    trajectory, more = head_only(clip)
    return trajectory, more | {"terrain": ground_of(clip.motion)}


FEET = {
    "plain": Row(head_only),
    "`no_hands`": Row(head_only, GuidanceConfig()),
    "`no_hands`, `penetration=30`": Row(head_only, GuidanceConfig(penetration=30.0)),
    "`no_hands`, `skating=0`": Row(head_only, GuidanceConfig(skating=0.0)),
    "`no_hands`, inner too": Row(head_only, GuidanceConfig(inner=True)),
}
WRISTS = {
    "wrists told to the network": Row(both_wrists),
    "wrists, `aria_wrist_only`": Row(both_wrists, GuidanceConfig("aria_wrist_only")),
    "noisy wrists told to the network": Row(noisy_wrists),
    "noisy wrists, `aria_wrist_only`": Row(noisy_wrists, GuidanceConfig("aria_wrist_only")),
}
GROUND = {
    "flat floor, `penetration=30`": Row(head_only, GuidanceConfig(penetration=30.0), terrain=True),
    "its ground, `penetration=30`": Row(head_over_ground, GuidanceConfig(penetration=30.0), terrain=True),
}
ROWS: dict[str, Row] = FEET | WRISTS | GROUND


def ground_of(motion: Motion) -> Terrain:
    """Heights under the feet of a motion where they rest, and its floor elsewhere."""
    feet = motion.joints[:, list(FOOT_JOINTS)]
    ankles, toes = feet[:, :2], feet[:, 2:]
    rest = speeds(toes, FPS) < _STILL
    # A sole is flat: the ground is as high under the heel.
    heels = torch.cat([ankles[..., :2], toes[..., 2:]], dim=-1)
    soles = torch.cat([w * toes[rest] + (1 - w) * heels[rest] for w in torch.linspace(0, 1, 5)])
    low = soles - torch.tensor([0.0, 0.0, TOE_HEIGHT])
    return Terrain.from_points(low, floor=float(motion.floor_height), cell=0.1, ceiling=2.0)


def climbs(motion: Motion) -> bool:
    """Whether feet of a motion rest on something higher than the floor."""
    toes = motion.joints[:, list(FOOT_JOINTS[2:])]
    high = (toes[..., 2] - motion.floor_height > STEP_HEIGHT) & (speeds(toes, FPS) < _STILL)
    return float(high.any(1).float().mean()) >= STEP_SHARE


app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def run(
    dataset: Path,
    model: str = "base",
    split: str = "val,id_test,test",
    out: Path = KEPT,
    limit: Annotated[int | None, typer.Option(help="Only so many clips a source and split.")] = None,
) -> None:
    """Recover clips in every way, and append a line for each."""
    pipeline = EgoMotionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    facts = {
        "model": model,
        "weights_sha256": digest_of(pipeline),
        "seed": 0,
        **code_version(),
        **dataset_facts(dataset),
    }
    done = {(x["split"], x["clip"]) for x in read_records(out)}
    for part, clip in in_turn({part: read_clips(dataset, part) for part in split.split(",")}, limit):
        if (part, clip_name(clip)) in done:
            continue
        place = {"split": part, "source": clip.source, "clip": clip_name(clip), "frames": len(clip.motion)}
        rows = [place | {"row": name} | values | facts for name, values in measured(pipeline, clip)]
        with out.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))


def in_turn(splits: dict[str, list[Clip]], limit: int | None) -> Iterator[tuple[str, Clip]]:
    """The beginnings of clips of each split and source, one each in turn, in an order drawn once."""
    queues: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for part, clips in splits.items():
        for i in torch.randperm(len(clips), generator=generator_of("guidance study", part)).tolist():
            queues[part, clips[i].source].append(clips[i])
    longest = max(map(len, queues.values()))
    for number in range(longest if limit is None else min(limit, longest)):
        for (part, _), clips in sorted(queues.items()):
            if number < len(clips):
                clip = clips[number]
                yield part, replace(clip, motion=frames_of(clip.motion, 0, min(len(clip.motion), MAX_FRAMES)))


def measured(pipeline: EgoMotionPipeline, clip: Clip) -> Iterator[tuple[str, dict[str, float]]]:
    """What each way comes to on a clip, by its name."""
    high, sees = climbs(clip.motion), pipeline.denoiser.config.include_wrists_cond
    ground = ground_of(clip.motion) if high else None
    for name, row in ROWS.items():
        if (row.terrain and not high) or (row.call in (both_wrists, noisy_wrists) and not sees):
            continue
        trajectory, more = row.call(clip)
        output = pipeline(trajectory, generator=clip_generators(clip, [0]), guidance=row.guidance or "off", **more)
        scores = score([output.motion], clip)
        names = ("mpjpe", "mpjve", "jitter", "foot_skating", "foot_skating_egoallo", "ground_penetration")
        values = {metric: scores[metric][0] for metric in names}
        wrists = list(WRIST_JOINTS)
        apart = (output.motion.joints[:, wrists] - clip.motion.joints[:, wrists]).norm(dim=-1)
        values["wrist_error"] = 1000 * float(apart.mean())
        if ground is not None:
            values["below_ground"] = 1000 * below(output.motion, ground)
        yield name, {key: round(value, 5) for key, value in values.items()}


def below(motion: Motion, ground: Terrain) -> float:
    """How far the deepest ankle or toe lies below a ground, mean over frames, meters."""
    feet = motion.joints[:, list(FOOT_JOINTS)]
    return float((ground.at(feet[..., :2])[0] - feet[..., 2]).clamp_min(0).amax(-1).mean())


@app.command()
def write(out: Path = KEPT) -> None:
    """Write the tables."""
    for name, text in tables(read_records(out)).items():
        start, end = MARKS[name]
        write_between(PAGE, start, text, end)


def tables(lines: Iterable[dict]) -> dict[str, str]:
    """The tables by name: feet, wrists, and ground that is not flat."""
    groups: dict[str, list[dict]] = defaultdict(list)
    climbing = defaultdict(list)
    for line in lines:
        groups[line["split"]].append(line)
        if "below_ground" in line:
            climbing[line["row"]].append(line)
    feet = ["| | " + " | ".join(title for title, *_ in _COLUMNS) + " |", "|---|" + "---|" * len(_COLUMNS)]
    wrists = ["| " + " | ".join(["", *(_place(key, rows) for key, rows in sorted(groups.items()))]) + " |"]
    wrists.append("|---|" + "---|" * len(groups))
    for key, rows in sorted(groups.items()):
        feet.append(f"| **{_place(key, rows)}** |" + " |" * len(_COLUMNS))
        by_row = _by_row(rows)
        feet += [_line(name, by_row[name], by_row["plain"]) for name in FEET if name in by_row]
    for name in ("plain", *WRISTS):
        cells = [_by_row(rows).get(name, []) for _, rows in sorted(groups.items())]
        text = [f"{_mean(x, 'wrist_error'):.1f} ({_mean(x, 'jitter'):.2f})" if x else "" for x in cells]
        wrists.append(f"| {name} | " + " | ".join(text) + " |")
    ground = ["| | clips | below the ground, mm | MPJPE, mm |", "|---|---|---|---|"]
    for name in ("plain", "`no_hands`", *GROUND):
        if rows := climbing.get(name, []):
            deep, error = _mean(rows, "below_ground"), _mean(rows, "mpjpe")
            ground.append(f"| {name} | {len(rows)} | {deep:.1f} | {error:.1f} |")
    return {"feet": "\n".join(feet), "wrists": "\n".join(wrists), "ground": "\n".join(ground)}


_COLUMNS = (
    ("MPJPE, mm", "mpjpe", ".1f", False),
    ("MPJVE, mm/s", "mpjve", ".0f", False),
    ("jitter, 100 m/s³", "jitter", ".2f", False),
    ("foot skating, m", "foot_skating", ".3f", True),
    ("EgoAllo's, m", "foot_skating_egoallo", ".3f", True),
    ("penetration, m", "ground_penetration", ".3f", True),
)


def _place(split: str, rows: list[dict]) -> str:
    seconds = sum({row["clip"]: row["frames"] for row in rows}.values()) / FPS
    return f"{split}, {len({row['clip'] for row in rows})} clips ({seconds:.0f} s)"


def _by_row(lines: list[dict]) -> dict[str, list[dict]]:
    found = defaultdict(list)
    for line in lines:
        found[line["row"]].append(line)
    return dict(found)


def _mean(lines: list[dict], metric: str) -> float:
    return float(np.mean([line[metric] for line in lines]))


def _line(name: str, lines: list[dict], plain: list[dict]) -> str:
    cells = []
    for _, metric, form, with_change in _COLUMNS:
        value, first = _mean(lines, metric), _mean(plain, metric)
        change = (
            f" ({value / first - 1:+.0%})".replace("-", "−") if with_change and lines is not plain and first else ""
        )
        cells.append(f"{value:{form}}{change}")
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    app()
