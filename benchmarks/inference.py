"""What a recovery costs, plain and with guidance (the paper's Table 6): time and memory of 128 frames.

    python benchmarks/inference.py [--frames 128] [--samples 1] [--device cpu] [--threads 2] [--long 10000]

The first call of a fresh process is shown beside the median of later ones: nothing is compiled. Processor time says
more than wall time on a machine that is busy with something else. ``--long`` times the solver alone, by length.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from motion_grpo import EgoMotionPipeline, GuidanceConfig, HeadTrajectory
from motion_grpo.guidance import Guide
from motion_grpo.motion import MotionState
from motion_grpo.trajectory.head_poses import HeadPoses

ROWS = {
    "plain": None,
    "post (20 iterations)": GuidanceConfig(),
    "inner (5 a step) and post": GuidanceConfig(inner=True),
}


def main() -> None:
    """Prints a table, and with ``--long`` another one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", type=int, default=0, help="the solver alone, up to so many frames")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipe = EgoMotionPipeline.from_pretrained().to(args.device)
    pipe.set_progress_bar_config(disable=True)
    print(f"{args.frames} frames, {args.samples} sample(s), {args.device}, {args.threads} thread(s), T = 30 steps")
    print(f"{'':28}{'first, s':>10}{'then, s':>10}{'CPU, s':>10}{'memory, MiB':>13}")
    for name, guidance in ROWS.items():
        first, later, cpu = timed(lambda g=guidance: recover(pipe, args.frames, args.samples, g), args.repeats)
        print(f"{name:28}{first:10.2f}{later:10.2f}{cpu:10.2f}{memory(args.device):13.0f}")
    if args.long:
        lengths = [n for n in (125, 250, 500, 1000, 2000, 5000, 10_000) if n <= args.long]
        cpus = [timed(lambda n=n: solve(pipe, n), 1)[2] for n in lengths]
        for frames, cpu in zip(lengths, cpus, strict=True):
            print(
                f"solver, 20 iterations, {frames:6d} frames: {cpu:8.2f} s of CPU, {1e3 * cpu / frames:.2f} ms a frame"
            )
        print(f"R^2 of a line through these: {np.corrcoef(lengths, cpus)[0, 1] ** 2:.4f}")
        sixteen = timed(lambda: solve(pipe, 128, 16), 1)[2] / timed(lambda: solve(pipe, 128), 1)[2]
        print(f"16 samples take {sixteen:.1f} times as long as one")


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


def solve(pipe: EgoMotionPipeline, frames: int, samples: int = 1) -> None:
    """Guidance alone, of noisy still bodies whose feet stand half the time."""
    generator = torch.Generator().manual_seed(0)
    layout, head = pipe.denoiser.state_layout, walk(frames)
    noise = 0.05 * torch.randn(samples, frames, layout.dim, generator=generator).cumsum(1) / frames**0.5
    state = MotionState.unpack(noise, layout)
    eye = torch.eye(3) + 0.02 * torch.randn(samples, frames, 21, 3, 3, generator=generator)
    state = MotionState.unpack(state._replace(body_rotmats=eye).pack(layout), layout)
    contacts = (torch.arange(frames) % 30 < 15).float()[None, :, None].expand(samples, -1, 21)
    state = MotionState(*(None if x is None else x.to(pipe.device) for x in state._replace(contacts=contacts)))
    poses = HeadPoses.from_world(head.R_world_cpf.to(pipe.device), head.p_world_cpf.to(pipe.device))
    Guide(GuidanceConfig(), pipe.skeleton, poses).post(state)


def timed(work: Callable[[], None], repeats: int) -> tuple[float, float, float]:
    """Seconds: the first time, then the median, and the median of processor time."""
    walls, cpus = [], []
    for _ in range(1 + repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return walls[0], statistics.median(walls[1:]), statistics.median(cpus[1:])


def memory(device: str) -> float:
    """The most that this process has held so far, MiB: of the GPU if there is one."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
