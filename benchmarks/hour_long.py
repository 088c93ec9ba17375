"""An hour of head motion (108,000 frames) in bounded memory: time, and peak memory beside that of one minute.

python benchmarks/hour_long.py [--minutes 60]
"""

import argparse
import resource
import time
from pathlib import Path

import torch

from motion_grpo import EgoMotionPipeline, HeadTrajectory, load_trajectory

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "walk_turns.csv"
FPS = 30


def back_and_forth(minutes: float) -> HeadTrajectory:
    """A recorded walk played forwards, backwards, forwards ... so that it lasts and never jumps."""
    walk = load_trajectory(EXAMPLE, floor_height=0.0).resample(float(FPS))
    there_and_back = torch.cat([torch.arange(len(walk)), torch.arange(len(walk) - 2, 0, -1)])
    frames = int(minutes * 60 * FPS)
    order = there_and_back.repeat(-(-frames // len(there_and_back)))[:frames]
    T = torch.eye(4).repeat(frames, 1, 1)
    T[:, :3, :3], T[:, :3, 3] = walk.R_world_cpf[order], walk.p_world_cpf[order]
    return HeadTrajectory.from_matrices(T, fps=FPS, floor_height=0.0)


def main() -> None:
    """Runs one minute, then the whole length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    pipe = EgoMotionPipeline.from_pretrained()
    for length in (1.0, minutes):
        trajectory = back_and_forth(length)
        started = time.perf_counter()
        motion = pipe(trajectory, generator=torch.Generator().manual_seed(0)).motion
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(
            f"{length:g} min = {len(motion)} frames: {seconds:.1f} s, {length * 60 / seconds:.0f} x real time, "
            f"peak memory {peak:.2f} GB"
        )


if __name__ == "__main__":
    main()
