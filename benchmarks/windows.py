"""Training windows a second out of local Parquet (T = 128, body only), beside decoding rows the plain way.

    python benchmarks/windows.py [--pack FOLDER] [--windows 20000]

Rows are those of the validation split of an open_mocap_smplh pack, or made up without one. Per second of wall time, and
per second of processor time, which says more on a machine that is busy with something else.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from motion_grpo.data import (
    Job,
    MocapPackImporter,
    MotionWindows,
    collate_windows,
    load_motions,
    run_import,
)
from motion_grpo.data.clips import Clip
from motion_grpo.motion import Motion

PACK = Path(__file__).resolve().parents[2] / "shared" / "mocap"
LENGTH, BATCH = 128, 256


class MadeUp:
    """An importer of clips of noise, about as long as those of the pack."""

    name = "made_up"

    def jobs(self) -> list[Job]:
        """300 clips."""
        return [Job(f"{i:03d}", Path(f"{i:03d}"), "val") for i in range(300)]

    def convert(self, job: Job) -> list[Clip]:
        """Identity rotations somewhere."""
        frames = 150 + int(job.id)
        eye = torch.eye(3).expand(frames, 21, 3, 3)
        motion = Motion(
            eye[:, 0],
            torch.randn(frames, 3),
            eye,
            torch.zeros(16),
            torch.zeros(frames, 21),
            torch.arange(frames).double() / 30,
        )
        return [Clip(job.id, self.name, motion)]


class DecodedRows(Dataset):
    """The plain way: decode the row as NumPy arrays, slice."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows.select_columns(["root_orient", "trans", "body_quats", "contacts", "betas"]).with_format(
            "numpy"
        )
        self.rng = np.random.default_rng(0)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A window of a clip, without the frame before it."""
        row = self.rows[index]
        frames = len(row["trans"])
        start = int(self.rng.integers(max(frames - LENGTH, 0) + 1))
        places = np.arange(start, start + LENGTH).clip(0, frames - 1)
        return {name: torch.tensor(a if name == "betas" else a[places]) for name, a in row.items()}

    def __len__(self) -> int:
        return len(self.rows)


def rate(batches: Iterable[dict[str, Tensor]]) -> tuple[float, float]:
    """Windows per second of wall and of processor time, children included, after the first batch has come."""
    batches = iter(batches)
    next(batches)
    wall, cpu = time.perf_counter(), _cpu_seconds()
    count = sum(len(batch["betas"]) for batch in batches)
    wall = time.perf_counter() - wall
    del batches
    return count / wall, count / (_cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main() -> None:
    """Measures each way three times, in turns, and prints the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, default=PACK)
    parser.add_argument("--windows", type=int, default=20_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
        importer = MocapPackImporter((args.pack,), ("val",)) if args.pack.is_dir() else MadeUp()
        report = run_import(importer, Path(folder) / "data")
        rows = load_motions(Path(folder) / "data", "val")
        print(
            f"{report}\n{sum(p.stat().st_size for p in Path(folder).glob('data/*/*.parquet')) / 1e6:.1f} MB of Parquet"
        )
        windows = MotionWindows(rows, LENGTH, seed=0)
        order = np.random.default_rng(0).integers(0, len(windows), args.windows).tolist()
        plain = (np.array(order[: args.windows // 20]) % len(rows)).tolist()
        decoded = DecodedRows(rows)
        ways = {
            "MotionWindows, in the process": lambda: DataLoader(
                windows, BATCH, sampler=order, collate_fn=collate_windows
            ),
            "MotionWindows, one loader worker": lambda: DataLoader(
                windows, BATCH, sampler=order, collate_fn=collate_windows, num_workers=1
            ),
            "MotionWindows, default_collate": lambda: DataLoader(windows, BATCH, sampler=order),
            "rows decoded by datasets, default_collate": lambda: DataLoader(decoded, BATCH, sampler=plain),
        }
        best: dict[str, tuple[float, float]] = {}
        for _ in range(3):
            for name, loader in ways.items():
                best[name] = tuple(map(max, best.get(name, (0.0, 0.0)), rate(loader())))
        for name, (wall, cpu) in best.items():
            print(f"{name:44s} {wall:9,.0f} windows/s   {cpu:9,.0f} windows/s of processor time")


if __name__ == "__main__":
    main()
