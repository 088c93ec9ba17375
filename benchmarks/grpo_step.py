"""What an iteration of GRPO costs beside its network arithmetic: n + 3 n f forward passes of its batch.

    python benchmarks/grpo_step.py [--num_sampling_steps 4] [--conditions 2] [--iterations 3] [--bf16]

n passes draw the samples; a forward and a backward pass, which costs two, train each of the n f transitions. A forward
pass is measured alone, in the same run, in two ways: ``plain``, the denoiser on every sample, and ``shared``, with the
head encoded once for the samples of a condition, as the trainer does it. While the members of a group are in one state,
the trainer asks once for all of them: that is how an iteration can cost less than its arithmetic. Times are those of
the processor on a CPU, which a machine that is busy with something else does not change, and of the clock on a GPU.
"""

import argparse
import contextlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from motion_grpo import EgoMotionPipeline, load_trajectory
from motion_grpo.data import Clip, MotionWindows
from motion_grpo.training import MotionGRPOConfig, MotionGRPOTrainer
from motion_grpo.training.grpo.experience import path

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "walk_turns.csv"
PASSES = 3
"""Forward passes that are timed, before the training and after it."""


class Stopwatch(TrainerCallback):
    """Times every update, the optimizer's step with it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.seconds, self.started = now, [], 0.0

    def on_step_begin(self, *args, **kwargs) -> None:
        self.started = self.now()

    def on_step_end(self, *args, **kwargs) -> None:
        self.seconds.append(self.now() - self.started)


def clock(device: str) -> Callable[[], float]:
    """Seconds of the processor, or of the clock once the GPU has done what it was given."""
    if device == "cpu":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return now


def forward_passes(trainer: MotionGRPOTrainer, options: argparse.Namespace) -> dict[str, Callable[[], Tensor]]:
    """A forward pass of as many samples as a rollout has, in both ways."""
    denoiser, device = trainer.denoiser, trainer.args.device
    numbers = list(range(options.conditions))
    truth = trainer.conditions(numbers)
    rows = torch.arange(options.conditions, device=device).repeat_interleave(options.num_generations)
    cond, mask = denoiser.condition(truth.head), truth.mask
    latents = torch.randn(len(rows), trainer.args.window, denoiser.state_layout.dim, device=device)
    levels = torch.full((len(rows),), 500, device=device)
    return {
        "plain": lambda: denoiser(latents, levels, cond[rows], mask[rows]).sample,
        "shared": lambda: trainer.policy(latents, 500, cond, mask, rows),
    }


def measure(device: str, options: argparse.Namespace) -> None:
    """Trains for some iterations and prints what they cost."""
    now = clock(device)
    pipeline = EgoMotionPipeline.from_pretrained(options.checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    motion = pipeline(load_trajectory(EXAMPLE), generator=torch.Generator().manual_seed(0)).motion
    count = options.conditions * (options.iterations + 1)
    walks = [Clip(f"walk{i}", "example", replace(motion, contacts=motion.contacts.round())) for i in range(count)]
    samples = options.conditions * options.num_generations
    stopwatch = Stopwatch(now)
    with tempfile.TemporaryDirectory() as folder:
        args = MotionGRPOConfig(
            folder,
            use_cpu=device == "cpu",
            bf16=options.bf16,
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            max_steps=options.iterations + 1,
            num_generations=options.num_generations,
            per_device_train_batch_size=samples // options.passes,
            gradient_accumulation_steps=options.passes,
            num_sampling_steps=options.num_sampling_steps,
            sde_window_size=options.sde_window_size,
            last_step_std=options.last_step_std,
            credit=options.credit,
            exploration=options.exploration,
            rewards=options.rewards,
            perceptual_model=options.perceptual_model,
        )
        trainer = MotionGRPOTrainer(pipeline, args, MotionWindows(walks, args.window, seed=0), callbacks=[stopwatch])
        trainer.now = now
        trainer.remove_callback(PrinterCallback)
        seconds: dict[str, list[float]] = {"plain": [], "shared": []}

        def time_passes() -> None:
            precision = torch.autocast(device, torch.bfloat16) if options.bf16 else contextlib.nullcontext()
            with torch.no_grad(), precision:
                for name, forward in forward_passes(trainer, options).items():
                    forward()
                    for _ in range(PASSES):
                        started = now()
                        forward()
                        seconds[name].append(now() - started)

        time_passes()
        trainer.train()
        time_passes()
    # The first iteration warms up.
    logged = [entry for entry in trainer.state.log_history if entry["step"] > 1]
    rollout, rewards = (
        statistics.median(entry[name] for entry in logged if name in entry)
        for name in ("rollout_seconds", "reward_seconds")
    )
    whole = statistics.median(stopwatch.seconds[1:])
    n, trained = options.num_sampling_steps, len(path(args, trainer.rollout_scheduler, 0)[2])
    if device == "cpu":
        peak, kind = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, "of the process"
    else:
        peak, kind = torch.cuda.max_memory_allocated() / 1024**3, "of tensors"
    print(
        f"{device}{' bfloat16' if options.bf16 else ''}: {options.conditions} conditions x {options.num_generations}, "
        f"n = {n}, {trained} trained, {options.passes} passes an update\n"
        f"  iteration {whole:.3f} s = rollout {rollout:.3f} + rewards {rewards:.3f} + update "
        f"{whole - rollout - rewards:.3f}; peak memory {peak:.2f} GB {kind}"
    )
    for name, times in seconds.items():
        one = statistics.median(times)
        ratio = whole / ((n + 3 * trained) * one)
        print(f"  ratio to {n} + 3 x {trained} forward passes, {name}, of {one:.3f} s each: {ratio:.2f}")


def main() -> None:
    """Measures on the CPU, and on a GPU where there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="base")
    parser.add_argument("--num_sampling_steps", type=int, default=4)
    parser.add_argument("--sde_window_size", type=int, help="0 with --last_step_std: the last step alone explores")
    parser.add_argument("--last_step_std", type=float, default=0.0)
    parser.add_argument("--conditions", type=int, default=2)
    parser.add_argument("--num_generations", type=int, default=16)
    parser.add_argument("--passes", type=int, default=1, help="forward passes that an update is divided into")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--credit", default="sequence")
    parser.add_argument("--exploration", default="white")
    parser.add_argument("--rewards", nargs="+", default=["rotation", "position", "aligned_position", "velocity"])
    parser.add_argument("--perceptual_model", help="for the reward visual")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for device in options.devices:
        measure(device, options)


if __name__ == "__main__":
    main()
