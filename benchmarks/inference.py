"""What a recovery costs, plain and with guidance (the paper's Table 6): time and memory of 128 frames.

    python benchmarks/inference.py [--frames 128] [--samples 1] [--device cpu] [--threads 1] [--long 10000]

Seconds are of the processor, which a machine that is busy with something else leaves as they are, or of the clock on a
GPU. The first call of a fresh process is shown beside the fastest of later ones: nothing is compiled. ``--long`` times
the solver alone, by length and for a batch. What is found is written to ``--out``, and its tables to docs/guidance.md.
"""

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from motion_grpo import EgoMotionPipeline, GuidanceConfig, HeadTrajectory
from motion_grpo.files import write_between, write_text
from motion_grpo.guidance import GuidanceReport, Guide
from motion_grpo.motion import MotionState
from motion_grpo.provenance import code_version
from motion_grpo.trajectory.head_poses import HeadPoses

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "docs/results/guidance_time.json", ROOT / "docs/guidance.md"
START, END = "<!-- time: written by benchmarks/inference.py -->", "<!-- end of time -->"
ROWS = {
    "plain": None,
    "post (20 iterations)": GuidanceConfig(),
    "inner (5 a step) and post": GuidanceConfig(inner=True),
}
LENGTHS = (128, 500, 1000, 2000, 5000, 10_000)
BATCH = 16
NOISE = 0.2
"""Of a matrix's components before it is made a rotation: so much that the solver needs all of its steps."""


def main() -> None:
    """Measures, writes the numbers and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", type=int, default=0, help="the solver alone, up to so many frames")
    parser.add_argument("--note", default="", help="what else the machine is doing")
    parser.add_argument("--out", type=Path, default=KEPT)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipe = EgoMotionPipeline.from_pretrained().to(args.device)
    pipe.set_progress_bar_config(disable=True)
    found = {
        "machine": f"{processor(args.device)}, {args.threads} thread(s), torch {torch.__version__}",
        "frames": args.frames, "samples": args.samples, "steps": pipe.config.num_inference_steps,
        "note": args.note, **code_version(),
        # Before anything else has run: what a process pays that only optimizes.
        "cold": spent(lambda: solve(pipe, args.frames), args.device),
        "iterations": solve(pipe, args.frames).iterations,
        "recovery": {},
    }  # fmt: skip
    for name, guidance in ROWS.items():
        times = [spent(lambda g=guidance: recover(pipe, args.frames, args.samples, g), args.device)
                 for _ in range(1 + args.repeats)]  # fmt: skip
        found["recovery"][name] = {"first": times[0], "then": min(times[1:]), "memory": memory(args.device)}
    if args.long:
        found["solver"] = {
            str(n): min(spent(lambda n=n: solve(pipe, n), args.device) for _ in range(args.repeats if n < 2000 else 1))
            for n in LENGTHS if n <= args.long
        }  # fmt: skip
        found["batch"] = min(spent(lambda: solve(pipe, LENGTHS[0], BATCH), args.device) for _ in range(args.repeats))
    text = table(found)
    print(text)
    write_text(args.out, json.dumps(found, indent=1) + "\n")
    if args.out == KEPT:
        write_between(PAGE, START, text, END)


def table(found: dict) -> str:
    """What was found, as it stands in the page."""
    lines = [
        f"{found['frames']} frames, {found['samples']} sample(s), {found['steps']} steps of sampling; seconds "
        f"of processor time on {found['machine']}{found['note'] and '; ' + found['note']}.",
        "",
        "| | first call, s | then, s | memory of the process, MiB |",
        "|---|---|---|---|",
    ]
    for name, row in found["recovery"].items():
        lines.append(f"| {name} | {row['first']:.2f} | {row['then']:.2f} | {row['memory']:.0f} |")
    lines += ["", f"The solver alone, {found['iterations']} iterations: {found['cold']:.2f} s at its first call."]
    if "solver" in found:
        frames, seconds = [int(n) for n in found["solver"]], list(found["solver"].values())
        fit = np.corrcoef(frames, seconds)[0, 1] ** 2
        lines[-1] += f" A batch of {BATCH} takes {found['batch'] / seconds[0]:.1f} times as long as one. By length:"
        lines += [
            "",
            "| frames | " + " | ".join(f"{n:,}" for n in frames) + " |",
            "|---|" + "---|" * len(frames),
            "| s | " + " | ".join(f"{s:.2f}" for s in seconds) + " |",
            "",
            f"R² of a line through these: {fit:.4f}.",
        ]
    return "\n".join(lines)


def walk(frames: int) -> HeadTrajectory:
    """A head that walks a circle at a natural pace, nodding."""
    time = np.arange(frames) / 30
    poses = np.tile(np.eye(4), (frames, 1, 1))
    forward = np.stack([-np.sin(time), np.cos(time), 0 * time], 1)
    left = np.stack([-np.cos(time), -np.sin(time), 0 * time], 1)
    poses[:, :3, :3] = np.stack([left, np.cross(forward, left), forward], 2)
    poses[:, :3, 3] = np.stack([np.cos(time), np.sin(time), 1.6 + 0.02 * np.sin(12 * time)], 1)
    return HeadTrajectory.from_matrices(poses, fps=30.0, floor_height=0.0)


def recover(pipe: EgoMotionPipeline, frames: int, samples: int, guidance: GuidanceConfig | None) -> None:
    """One call of the pipeline."""
    generator = torch.Generator().manual_seed(0)
    pipe(walk(frames), num_samples=samples, guidance=guidance or "off", generator=generator)


def solve(pipe: EgoMotionPipeline, frames: int, samples: int = 1) -> GuidanceReport:
    """Guidance alone, of noisy still bodies whose feet stand half the time."""
    generator = torch.Generator().manual_seed(0)
    layout, head = pipe.denoiser.state_layout, walk(frames)
    noise = 0.05 * torch.randn(samples, frames, layout.dim, generator=generator).cumsum(1) / frames**0.5
    state = MotionState.unpack(noise, layout)
    eye = torch.eye(3) + NOISE * torch.randn(samples, frames, 21, 3, 3, generator=generator)
    state = MotionState.unpack(state._replace(body_rotmats=eye).pack(layout), layout)
    contacts = (torch.arange(frames) % 30 < 15).float()[None, :, None].expand(samples, -1, 21)
    state = MotionState(*(None if x is None else x.to(pipe.device) for x in state._replace(contacts=contacts)))
    poses = HeadPoses.from_world(head.R_world_cpf.to(pipe.device), head.p_world_cpf.to(pipe.device))
    return Guide(GuidanceConfig(), pipe.skeleton, poses).post(state)[1]


def spent(work: Callable[[], None], device: str) -> float:
    """Seconds of the processor; on a GPU of the clock."""
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    start = clock()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return clock() - start


def processor(device: str) -> str:
    """Its name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def memory(device: str) -> float:
    """The most that this process has held so far, MiB: of the GPU if there is one."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
