"""What a stream loses beside the recovery of a whole recording, by its lag and its steps: the table of docs/live.md.

    python studies/live_stream.py DATA [--split val] [--clips 24] [--seconds 12] [--write]

Recordings, evenly spread over the split, are pushed pose by pose at 30 fps, and recovered whole by the same pipeline
with its own settings. Both are scored on the frames that the stream gave out. Milliseconds are those of a push, of the
clock, on one thread; the machine should have nothing else to do.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from motion_grpo import EgoMotionPipeline
from motion_grpo.data import Clip
from motion_grpo.data.loading import evenly
from motion_grpo.evaluation.clips import clip_generators, frames_of, head_trajectory, read_clips, score
from motion_grpo.files import write_between, write_text
from motion_grpo.motion import FPS, Motion
from motion_grpo.streaming import EgoMotionStream, StreamConfig, motion_of

ROOT = Path(__file__).resolve().parents[1]
PAGE, KEPT = ROOT / "docs/live.md", ROOT / "docs/results/live_stream.json"
START, END = "<!-- lag: written by studies/live_stream.py -->", "<!-- end of lag -->"
HEADER = """| lag | steps | MPJPE, mm | to the whole's | jitter | to the whole's | push, ms | 99th percentile |
|---|---|---|---|---|---|---|---|"""
LAGS, STEPS = (0, 3, 6, 15, 30), (1, 2, 5)


def streamed(pipe: EgoMotionPipeline, clip: Clip, config: StreamConfig) -> tuple[Motion, int, list[float]]:
    """The motion that a stream gives out, the number of its first frame, and the seconds of each push."""
    head = head_trajectory(clip)
    stream = EgoMotionStream(pipe, replace(config, floor_height=head.floor_height))
    poses, seconds = [], []
    for T, timestamp in zip(head.T_world_cpf, head.timestamps.tolist(), strict=True):
        begun = time.perf_counter()
        pose = stream.push(T, timestamp)
        if pose is not None:
            seconds.append(time.perf_counter() - begun)
            poses.append(pose)
    first = round((poses[0].timestamp - float(head.timestamps[0])) * FPS)
    return motion_of(poses, pipe.skeleton, head.floor_height), first, seconds


def part(clip: Clip, first: int, frames: int) -> Clip:
    """Some of a clip's frames."""
    return replace(clip, motion=frames_of(clip.motion, first, first + frames))


def measure(pipe: EgoMotionPipeline, clips: Iterable[Clip], wholes: dict[str, Motion], config: StreamConfig) -> dict:
    """Means over clips, of the stream and of the whole recovery on the same frames."""
    rows, seconds = [], []
    for clip in clips:
        motion, first, pushes = streamed(pipe, clip, config)
        truth = part(clip, first, len(motion))
        whole = frames_of(wholes[clip.id], first, first + len(motion))
        motion = replace(motion, timestamps=truth.motion.timestamps)
        rows.append(score([motion, replace(whole, timestamps=truth.motion.timestamps)], truth))
        seconds += pushes
    table = {name: [statistics.mean(row[name][i] for row in rows) for i in (0, 1)] for name in rows[0]}
    times = 1e3 * np.array(seconds)
    return {
        "lag": config.lag,
        "steps": config.num_inference_steps,
        "stream": {name: value[0] for name, value in table.items()},
        "whole": {name: value[1] for name, value in table.items()},
        "push_ms": {"median": float(np.median(times)), "p99": float(np.quantile(times, 0.99))},
    }


def line(row: dict) -> str:
    """A row of the table."""
    change = {name: 100 * (row["stream"][name] / row["whole"][name] - 1) for name in row["stream"]}
    return (
        f"| {row['lag']} ({1e3 * row['lag'] / FPS:.0f} ms) | {row['steps']} | {row['stream']['mpjpe']:.1f} "
        f"| {change['mpjpe']:+.1f}% | {row['stream']['jitter']:.2f} | {change['jitter']:+.0f}% "
        f"| {row['push_ms']['median']:.1f} | {row['push_ms']['p99']:.1f} |"
    )


def main() -> None:
    """Measures, prints, and writes what the page shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--split", default="val")
    parser.add_argument("--checkpoint", default="base")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each clip, at most")
    parser.add_argument("--lags", type=int, nargs="+", default=LAGS)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--config", type=json.loads, default={}, help="further settings of StreamConfig, as JSON")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = EgoMotionPipeline.from_pretrained(args.checkpoint)
    pipe.set_progress_bar_config(disable=True)
    frames = int(args.seconds * FPS)
    long_enough = [clip for clip in read_clips(args.dataset, args.split) if len(clip.motion) >= 4 * FPS]
    clips = [long_enough[i] for i in evenly(len(long_enough), args.clips)]
    clips = [part(clip, 0, min(frames, len(clip.motion))) for clip in clips]
    wholes = {clip.id: pipe(head_trajectory(clip), generator=clip_generators(clip, (0,))[0]).motion for clip in clips}
    print(f"{len(clips)} clips, {sum(len(clip.motion) for clip in clips) / FPS:.0f} s")
    rows = []
    for lag in args.lags:
        for steps in args.steps:
            config = StreamConfig(**{"lag": lag, "num_inference_steps": steps} | args.config)
            rows.append(measure(pipe, clips, wholes, config))
            print(line(rows[-1]), flush=True)
    if args.write:
        write_between(PAGE, START, "\n".join(["", HEADER, *map(line, rows), ""]), END)
        write_text(KEPT, json.dumps({"clips": [clip.id for clip in clips], "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
