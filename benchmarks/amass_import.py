"""Import of AMASS on one core: source frames per second from npz to a clip (kinematics, floor, contacts, resampling).

Beside it, in the same run, the first step of the reference's preprocessing alone: joints by way of the SMPL-H mesh
(smplx.SMPLH, 2,000 frames a batch), on a body file of SMPL-H's size; and what of our own import is unpacking npz.

    OMP_NUM_THREADS=1 python benchmarks/amass_import.py [--seconds 20] [--files 8]

Bar: 20,000 source frames per second. CPU time is what the process itself got on a shared machine.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import smplx
import torch

from motion_grpo.data.importers.amass import AmassImporter
from motion_grpo.data.schema import clip_to_row

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.body.smplh import smplh_arrays

REFERENCE_FRAMES = 2000


def write_files(root: Path, files: int, frames: int, fps: float, hands: bool) -> None:
    """Files of smooth random motion as AMASS has them: float64, compressed."""
    rng = np.random.default_rng(0)
    time_ = np.arange(frames)[:, None] / fps
    for number in range(files):

        def wave(columns):
            return np.sin(time_ * rng.uniform(0.5, 3, columns) + rng.uniform(0, 6, columns))

        poses = np.zeros((frames, 156))
        poses[:, :66] = 0.3 * wave(66)
        poses[:, 66:] = 0.2 * wave(90) if hands else 0.1
        poses[:, 0] += np.pi / 2
        path = root / "CMU" / f"{number:02d}" / "walk_poses.npz"
        path.parent.mkdir(parents=True)
        np.savez_compressed(
            path,
            poses=poses,
            trans=0.1 * wave(3) + [0, 0, 1.1],
            betas=np.zeros(16),
            gender=np.array("male"),
            mocap_framerate=np.array(fps),
            dmpls=rng.normal(size=(frames, 8)),
        )


def rates(work: Callable[[], object], frames: int) -> tuple[float, float]:
    """Frames per second of wall and of CPU time, best of three."""
    best = [np.inf, np.inf]
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        best = [min(best[0], time.perf_counter() - wall), min(best[1], time.process_time() - cpu)]
    return frames / best[0], frames / best[1]


def reference(folder: Path) -> Callable[[], object]:
    """Joints of 2,000 frames by way of the mesh."""
    arrays = smplh_arrays() | {"weights": np.full((6890, 52), 1 / 52, np.float32), "posedirs": np.zeros((6890, 3, 459))}
    np.savez(folder / "SMPLH_MALE.npz", **arrays)
    body = smplx.create(
        str(folder / "SMPLH_MALE.npz"), "smplh", use_pca=False, ext="npz", batch_size=REFERENCE_FRAMES, num_betas=16
    )
    pose = {"body_pose": torch.randn(REFERENCE_FRAMES, 63), "global_orient": torch.randn(REFERENCE_FRAMES, 3)}
    return torch.no_grad()(lambda: body(**pose, return_verts=False))


def main() -> None:
    """Prints a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a file")
    parser.add_argument("--files", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = rates(reference(Path(folder)), REFERENCE_FRAMES)
        print(f"{'smplx.SMPLH, joints by way of the mesh':52s} {wall:9,.0f} frames/s, CPU {cpu:9,.0f}")
    for fps, hands in ((120.0, False), (120.0, True), (100.0, False), (59.94, False)):
        with tempfile.TemporaryDirectory() as folder:
            frames = round(args.seconds * fps)
            write_files(Path(folder), args.files, frames, fps, hands)
            importer = AmassImporter(Path(folder))
            jobs = importer.jobs()
            total = frames * args.files

            def unpack(jobs: list = jobs) -> None:
                for job in jobs:
                    with np.load(job.path, allow_pickle=False) as file:
                        _ = file["poses"], file["trans"]

            cases = {
                "npz to clip": lambda i=importer, j=jobs: [i.convert(job) for job in j],
                "npz to row of the data set": lambda i=importer, j=jobs: [
                    clip_to_row(clip) for job in j for clip in i.convert(job)
                ],
                "unpacking alone": unpack,
            }
            for name, work in cases.items():
                got_wall, got_cpu = rates(work, total)
                case = f"{name}, {fps:g} fps{', hands' if hands else ''}"
                print(
                    f"{case:52s} {got_wall:9,.0f} frames/s, CPU {got_cpu:9,.0f}: "
                    f"{got_wall / wall:6.0f} x the mesh (CPU {got_cpu / cpu:.0f} x)"
                )


if __name__ == "__main__":
    main()
