"""What a denoiser learns from the noisy state, and how far its samples differ: the tables of docs/pretraining.md.

    python studies/sample_spread.py DATA --source cmu2 --split val

Windows of 128 frames of recordings are noised and x0 is predicted once, at several noise levels: a denoiser that looks
away from the state gets no better as the noise falls, and cannot draw samples that differ. Then each head is sampled
eight times with every sampling setting.
"""

import argparse

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from motion_grpo import EgoMotionPipeline
from motion_grpo.data import MotionWindows, collate_windows
from motion_grpo.data.batches import TrainingBatch, training_batch
from motion_grpo.data.loading import evenly
from motion_grpo.evaluation.clips import read_clips, windows_of
from motion_grpo.inference.sampling import hang_body, recover_state
from motion_grpo.metrics import mpjpe, spread
from motion_grpo.motion import MotionState
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.seeding import generator_of

LEVELS = (1000, 980, 960, 930, 900, 800, 600, 400, 200, 1)
SETTINGS = ((1, 0.0), (2, 1.0), (5, 0.0), (5, 1.0), (10, 1.0), (20, 1.0), (20, 0.0))
"""Steps and eta."""
FRAMES, SAMPLES = 128, 8


def read_windows(args: argparse.Namespace, pipeline: EgoMotionPipeline) -> TrainingBatch:
    """Windows of whole length, evenly spread over the split's clips of the source."""
    clips = [clip for clip in read_clips(args.dataset, args.split) if clip.source == args.source]
    windows = [window for clip in clips for window in windows_of(clip, FRAMES) if len(window.motion) == FRAMES]
    windows = [windows[i] for i in evenly(len(windows), args.windows)]
    rows = [MotionWindows([window], length=FRAMES, random=False)[0] for window in windows]
    return training_batch(collate_windows(rows), pipeline.skeleton, pipeline.denoiser.state_layout.include_hands)


@torch.no_grad()
def by_level(pipeline: EgoMotionPipeline, truth: TrainingBatch) -> Table:
    """Errors of a single prediction from a truly noised recording."""
    denoiser, scheduler = pipeline.denoiser, EgoMotionSDEScheduler()
    layout = denoiser.state_layout
    x0, cond = truth.state.pack(layout), denoiser.condition(truth.head)
    noise = torch.randn(x0.shape, generator=generator_of("noise"))
    table = Table("level", "alpha_bar", "MPJPE, mm", "squared rotation error, 1e-3")
    for level in LEVELS:
        levels = torch.full((len(x0),), level)
        predicted = denoiser(scheduler.add_noise(x0, noise, levels), levels, cond).sample
        joints = hang_body(pipeline.skeleton, MotionState.unpack(predicted, layout), truth.head).joints
        rotation = (predicted - x0).split(list(layout.sizes.values()), dim=-1)[1].square().mean()
        position = mpjpe(joints, truth.joints).mean()
        table.add_row(
            str(level), f"{float(scheduler.alpha_bars[level]):.1e}", f"{float(position):.1f}", f"{1e3 * rotation:.1f}"
        )
    return table


@torch.no_grad()
def by_setting(pipeline: EgoMotionPipeline, truth: TrainingBatch) -> Table:
    """Eight samples a window: their error, the best one's, their distance from their mean."""
    table = Table("steps", "eta", "MPJPE, mm", "best of 8", "spread", "spread / MPJPE", "of the mean of 8")
    for steps, eta in track(SETTINGS, "sampling settings"):
        numbers = []
        for window in range(len(truth.joints)):
            head = truth.head.rows(window)
            streams = [generator_of(window, sample) for sample in range(SAMPLES)]
            options = {"num_inference_steps": steps, "eta": eta, "num_samples": SAMPLES, "generator": streams}
            state = recover_state(pipeline.denoiser, pipeline.scheduler, head, **options)
            joints = hang_body(pipeline.skeleton, state, head).joints
            error = mpjpe(joints, truth.joints[window])
            of_mean = mpjpe(joints.mean(0), truth.joints[window])
            numbers.append(torch.stack([error.mean(), error.min(), spread(joints), of_mean]))
        error, best, apart, of_mean = torch.stack(numbers).mean(0).tolist()
        table.add_row(
            str(steps), f"{eta:g}", f"{error:.1f}", f"{best:.1f} ({best / error - 1:+.0%})", f"{apart:.1f}",
            f"{apart / error:.2f}", f"{of_mean:.1f}",
        )  # fmt: skip
    return table


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--source", default="cmu2")
    parser.add_argument("--split", default="val")
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--model", default="base")
    args = parser.parse_args()
    pipeline = EgoMotionPipeline.from_pretrained(args.model)
    truth = read_windows(args, pipeline)
    console = Console()
    console.print(f"{args.model}, {len(truth.joints)} windows of {FRAMES} frames, {args.source} {args.split}")
    console.print(by_level(pipeline, truth))
    console.print(by_setting(pipeline, truth))


if __name__ == "__main__":
    main()
