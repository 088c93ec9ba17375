"""Says and draws how two motions differ: ``motion-grpo compare walk.npz truth.npz``."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from motion_grpo.cli.motion_input import Smplh, read_motion
from rich.console import Console
from rich.table import Table

from motion_grpo import Motion
from motion_grpo.body import BODY_JOINT_NAMES, NUM_BODY_AND_ROOT
from motion_grpo.metrics import METRIC_UNITS, motion_metrics
from motion_grpo.viz.figures import check_picture_path
from motion_grpo.viz.strip import draw_strip
from motion_grpo.viz.timing import frames_at, shared_time


def compare(
    motion: Annotated[Path, typer.Argument(help="Motion (.npz).")],
    reference: Annotated[Path, typer.Argument(help="Motion that it is compared with, such as the recorded one.")],
    picture: Annotated[Path | None, typer.Option(help="Also draw both (.png).")] = None,
    smplh: Smplh = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how far two motions of one recording lie apart, and draw both."""
    if picture is not None:
        check_picture_path(picture)
    console = Console(stderr=as_json, markup=False, highlight=False, soft_wrap=True)
    a, b = read_motion(motion, smplh), read_motion(reference, smplh)
    values = differences(a, b)
    if as_json:
        print(json.dumps(values))
    else:
        console.print(f"{motion.name} against {reference.name}, {values['seconds']:.2f} s that both have")
        table = Table()
        table.add_column("measure")
        table.add_column("value", justify="right")
        for name, value in values.items():
            table.add_row(name, f"{value:.1f} {METRIC_UNITS.get(name, 's' if name == 'seconds' else 'mm')}")
        console.print(table)
    if picture is not None:
        draw_strip({motion.stem: a, f"{reference.stem} (reference)": b}, picture)
        console.print(f"drew {picture}")


def differences(motion: Motion, reference: Motion) -> dict[str, float]:
    """Metrics over the time that both have, by name, and the mean distance of every joint in mm.

    Raises:
        ValueError: the motions share no time.
    """
    start, end = shared_time({"the first": motion, "the second": reference})
    times = reference.timestamps.numpy()
    shared = torch.from_numpy((times >= start - 1e-6) & (times <= end + 1e-6))
    frames = frames_at(motion, times[shared.numpy()])
    joints, true_joints = motion.joints[frames, :NUM_BODY_AND_ROOT], reference.joints[shared, :NUM_BODY_AND_ROOT]
    values = {"seconds": end - start}
    if len(frames) > 3:
        rotmats, true_rotmats = motion.body_rotmats[frames], reference.body_rotmats[shared]
        metrics = motion_metrics(rotmats, joints, true_rotmats, true_joints, fps=reference.fps)
        shown = ("mpjpe", "pa_mpjpe", "mpjve", "mpjre", "jitter")
        values |= {name: float(metrics[name]) for name in shown}
    distance = 1000 * (joints - true_joints).norm(dim=-1).mean(0)
    return values | dict(zip(("pelvis", *BODY_JOINT_NAMES), distance.tolist(), strict=True))


if __name__ == "__main__":
    typer.run(compare)
