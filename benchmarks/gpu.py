"""What one GPU does at full size, in one call of a few minutes: sampling, an iteration of GRPO, a step of training.

    python benchmarks/gpu.py [--seconds 200] [--output gpu.json] [--grpo configs/grpo_paper.yaml] [--tiny]
    python benchmarks/gpu.py --page    # writes the tables of docs/performance.md from docs/results/performance

Weights are random and the motion is made up: no checkpoint and no data set are needed. Every row stands alone: one that
fails says why and the next one runs; what has been measured is in the table and in the JSON file at once. ``--tiny``
shrinks everything, to try it on a CPU. ``difference`` is the largest one of the sampled states to the first row of the
same batch. A GRPO iteration is held against the denoiser's forward and backward passes, bare, of the same shapes.
"""

import argparse
import gc
import importlib.metadata
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import roma
import torch
import yaml
from torch import Tensor
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

import motion_grpo
from motion_grpo import EgoMotionPipeline
from motion_grpo.body import Skeleton
from motion_grpo.data import Clip, MotionWindows
from motion_grpo.files import write_between
from motion_grpo.inference.rollout import predict_clean, transitions
from motion_grpo.models import EgoMotionDenoiser, MotionPerceptualModel
from motion_grpo.motion import FPS, Motion, with_contacts
from motion_grpo.rewards import build_rewards
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training import DenoisingConfig, DenoisingTrainer, MotionGRPOConfig, MotionGRPOTrainer
from motion_grpo.training.grpo.experience import path
from motion_grpo.trajectory import HeadTrajectory
from motion_grpo.trajectory.head_poses import HeadPoses

ROOT = Path(__file__).resolve().parents[1]
CONFIGS, KEPT, PAGE = ROOT / "configs", ROOT / "docs/results/performance", ROOT / "docs/performance.md"
START, END = "<!-- gpu: written by benchmarks/gpu.py -->", "<!-- end of gpu -->"
PRESETS = [CONFIGS / "grpo_paper.yaml", CONFIGS / "grpo_authors.yaml"]
TINY = {"d_latent": 32, "d_feedforward": 32, "d_noise_emb": 16, "num_encoder_layers": 1, "num_decoder_layers": 1}
CRITIC = "checkpoints/perceptual/config.json"
TINY_CRITIC = {"d_latent": 16, "num_blocks": 1, "num_heads": 2}
ONCE = {"noise_conditioning": "film", "noise_in_encoder": False}
"""A network whose encoder runs once a window."""
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
# (precision, compiled blocks, CUDA graph of the whole loop, changes of the network)
PLAIN = [("float32", False, False, {}), ("bf16", False, False, {})]
GRAPHS = [("float32", False, True, {}), ("bf16", False, True, {})]
COMPILED = [("bf16", True, False, {}), ("bf16", True, True, {}), ("tf32", True, True, {}), ("bf16", True, True, ONCE)]


class Bench:
    """Runs rows one by one within the time, prints each and keeps the file up to date."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.started = options, time.perf_counter()
        self.device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
        self.is_gpu = self.device.type == "cuda"
        if not self.is_gpu:
            torch.set_num_threads(1)
        self.rows: list[dict[str, Any]] = []
        self.references: dict[int, Tensor] = {}
        name = torch.cuda.get_device_name() if self.is_gpu else "CPU"
        self.machine = {"device": name, "python": sys.version.split()[0], "cuda": torch.version.cuda} | {
            package: importlib.metadata.version(package) for package in ("torch", "transformers", "accelerate", "trl")
        }
        print(" ".join(f"{key} {value}" for key, value in self.machine.items() if value), flush=True)

    def now(self) -> float:
        """Seconds since the start, once the GPU has done what it was given."""
        if self.is_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - self.started

    def row(self, name: str, measure: Callable[[], dict[str, Any]], needs: float = 0.0) -> None:
        """One row; ``needs`` are the seconds that it takes about, and without which it is left out."""
        left = self.options.seconds - self.now()
        begun = time.perf_counter()
        row: dict[str, Any] = {"name": name}
        if left < needs:
            row["error"] = f"left out: {left:.0f} s are left and it needs {needs:.0f}"
        else:
            try:
                if self.is_gpu:
                    torch.cuda.reset_peak_memory_stats()
                row |= measure()
                row["peak_memory_gb"] = self.memory()
            except Exception as error:  # whatever it is, the other rows are worth having
                row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            torch.set_float32_matmul_precision("highest")
            gc.collect()
            if self.is_gpu:
                torch.cuda.empty_cache()
        row["row_seconds"] = round(time.perf_counter() - begun, 1)
        self.rows.append(row)
        print(in_words(row), flush=True)
        if self.options.output:
            text = json.dumps({"machine": self.machine, "rows": self.rows}, indent=1)
            Path(self.options.output).write_text(text + "\n", encoding="utf-8")

    def memory(self) -> float:
        """Most that the row held: of tensors on a GPU, of the process else."""
        if self.is_gpu:
            return round(torch.cuda.max_memory_allocated() / 2**30, 2)
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)

    def timed(self, work: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
        """Median of the seconds that it takes."""
        seconds = []
        for _ in range(warm_up + repeats):
            started = self.now()
            work()
            seconds.append(self.now() - started)
        return statistics.median(seconds[warm_up:])


def in_words(row: dict[str, Any]) -> str:
    """A line of the table."""
    if "error" in row:
        return f"{row['name']:62} {row['error']}"
    numbers = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()]
    return f"{row['name']:62} " + ", ".join(numbers[1:])


# ---- what is measured on


def network(bench: Bench, changes: dict[str, Any] | None = None) -> EgoMotionDenoiser:
    """The denoiser of configs/pretrain_egoallo.yaml, new weights."""
    settings = preset(CONFIGS / "pretrain_egoallo.yaml")["model_config"]
    torch.manual_seed(0)
    denoiser = EgoMotionDenoiser(**settings | (TINY if bench.options.tiny else {}) | (changes or {}))
    return denoiser.to(bench.device).eval()


def preset(file: str | Path) -> dict[str, Any]:
    """The settings of a training preset."""
    return yaml.safe_load(Path(file).read_text(encoding="utf-8"))


def walk(frames: int) -> HeadTrajectory:
    """A head on a circle, looking ahead."""
    angle = torch.arange(frames, dtype=torch.float64) / FPS
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    left, forward = (-angle.cos(), -angle.sin(), zero), (-angle.sin(), angle.cos(), zero)
    place = (2 * angle.cos(), 2 * angle.sin(), 1.6 + 0.03 * (9 * angle).sin())
    columns = [torch.stack(axis, -1) for axis in (left, (zero, zero, one), forward, place)]
    poses = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    poses[:, :3] = torch.stack(columns, -1)
    return HeadTrajectory.from_matrices(poses.numpy(), fps=FPS, floor_height=0.0)


def clips(count: int, frames: int) -> list[Clip]:
    """Bodies that swing their joints as they drift about, each in its own way."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(frames, dtype=torch.float64) / FPS
    upright = roma.rotvec_to_rotmat(torch.tensor([torch.pi / 2, 0.0, 0.0]))
    height = -float(Skeleton.default().rest_joints(torch.zeros(16))[10:12, 1].mean()) + 0.02
    made = []
    for number in range(count):
        swing, phase = torch.randn(2, 21, 3, generator=generator)
        turn = torch.stack([0 * time, 0 * time, 0.3 * time + number], 1).float()
        motion = Motion(
            root_rotmats=roma.rotvec_to_rotmat(turn) @ upright,
            root_positions=torch.stack([0.3 * time, 0.2 * time.sin(), torch.full_like(time, height)], 1).float(),
            body_rotmats=roma.rotvec_to_rotmat(0.15 * swing * torch.sin(3 * time.float()[:, None, None] + phase)),
            betas=torch.zeros(16),
            contacts=torch.zeros(frames, 21),
            timestamps=time,
        )
        made.append(Clip(f"made{number}", "made", with_contacts(motion)))
    return made


# ---- sampling


def sampling_loop(bench: Bench, denoiser: EgoMotionDenoiser, batch: int) -> Callable[[], Tensor]:
    """30 deterministic steps of a batch of windows, as training and evaluation sample them."""
    frames, steps = (16, 3) if bench.options.tiny else (128, 30)
    head = walk(frames)
    cond = denoiser.condition(head_poses(head, bench.device)).expand(batch, -1, -1).contiguous()
    schedule = transitions(EgoMotionSDEScheduler(eta=0.0), steps, eta=0.0)
    layout = denoiser.state_layout
    start = torch.randn(batch, frames, layout.dim, generator=torch.Generator().manual_seed(0)).to(bench.device)
    mask = torch.ones(batch, frames, dtype=torch.bool, device=bench.device)
    once = not denoiser.config.noise_in_encoder

    @torch.no_grad()
    def sample() -> Tensor:
        encoded = denoiser.encode(cond, None, mask) if once else None
        latents = start
        for step in schedule:
            latents = step.mean(predict_clean(denoiser, layout, latents, step.level, cond, mask, encoded), latents)
        return latents

    return sample


def head_poses(trajectory: HeadTrajectory, device: torch.device) -> HeadPoses:
    """What the network is told of a trajectory."""
    return HeadPoses.from_world(trajectory.R_world_cpf.to(device), trajectory.p_world_cpf.to(device))


def graphed(sample: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same, recorded as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            sample()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = sample()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def measure_sampling(
    bench: Bench, batch: int, precision: str, compiled: bool, graph: bool, changes: dict[str, Any]
) -> dict[str, Any]:
    """Milliseconds of one batch of windows."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    denoiser = network(bench, changes).to(DTYPES[precision])
    sample = sampling_loop(bench, denoiser, batch)
    if compiled:
        torch.compiler.reset()
        denoiser.compile_repeated_blocks()
    if graph:
        sample = graphed(sample)
    latents = sample().clone()
    seconds = bench.timed(sample, 2 if bench.options.tiny else 10 if batch == 1 else 3)
    result = {"ms": 1e3 * seconds, "ms_per_window": 1e3 * seconds / batch}
    if not changes:
        reference = bench.references.setdefault(batch, latents)
        result["difference"] = float((latents - reference).abs().max())
    return result


def measure_pipeline(bench: Bench) -> dict[str, Any]:
    """Milliseconds of a call as a user makes it, from poses to a motion."""
    tiny = bench.options.tiny
    pipe = EgoMotionPipeline(network(bench), EgoMotionSDEScheduler(eta=0.0), 3 if tiny else 30, 16 if tiny else 128, 4)
    pipe.set_progress_bar_config(disable=True)
    head = walk(16 if tiny else 128)
    return {"ms": 1e3 * bench.timed(lambda: pipe(head, generator=torch.Generator().manual_seed(0)), 2 if tiny else 5)}


# ---- training


class Stopwatch(TrainerCallback):
    """Seconds of every update."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.seconds, self.begun = now, [], 0.0

    def on_step_begin(self, *args, **kwargs) -> None:
        self.begun = self.now()

    def on_step_end(self, *args, **kwargs) -> None:
        self.seconds.append(self.now() - self.begun)


def settings(bench: Bench, kind: type, file: str | Path, folder: str, **changes: Any) -> Any:
    """The trainer's settings of a preset, for a few silent updates."""
    known = {field.name: field.type for field in fields(kind)}
    told = {name: value for name, value in preset(file).items() if name in known}
    quiet = dict(report_to="none", disable_tqdm=True, logging_steps=1, save_strategy="no", eval_strategy="no")
    told |= quiet | {"use_cpu": not bench.is_gpu, "output_dir": folder} | changes
    if bench.options.tiny:
        told |= {"bf16": False, "window": 16, "per_device_train_batch_size": 4}
        if kind is MotionGRPOConfig:
            passes = 4 if "steps_per_generation" in told else 2
            told |= {"num_generations": 2, "gradient_accumulation_steps": 1 if passes == 4 else 2}
            told |= {"steps_per_generation": passes}
    told.pop("eval_steps", None)
    # YAML's whole numbers, where a trainer says float.
    return kind(**{name: float(value) if known[name] in (float, "float") else value for name, value in told.items()})


def measure_grpo(bench: Bench, file: str | Path) -> dict[str, Any]:
    """Seconds of an iteration, a rollout with all of its updates, beside those of its network arithmetic."""
    tiny = bench.options.tiny
    with tempfile.TemporaryDirectory() as folder:
        args = settings(bench, MotionGRPOConfig, file, folder)
        updates = args.steps_per_generation * args.num_iterations // args.gradient_accumulation_steps
        args.max_steps = updates * (2 if tiny or updates > 1 else 3)
        pipe = EgoMotionPipeline(network(bench), EgoMotionSDEScheduler(eta=0.0), 30, args.window, args.window // 4)
        settings_of_critic = json.loads((Path(motion_grpo.__file__).parent / CRITIC).read_text(encoding="utf-8"))
        critic = MotionPerceptualModel.from_config(settings_of_critic | (TINY_CRITIC if tiny else {}))
        rewards = build_rewards(args.rewards, perceptual_model=critic.to(bench.device))
        windows = MotionWindows(clips(args.conditions_per_generation, args.window + 2), args.window, seed=0)
        stopwatch = Stopwatch(bench.now)
        trainer = MotionGRPOTrainer(pipe, args, windows, rewards=rewards, callbacks=[stopwatch])
        silence(trainer)
        trainer.train()
        bare = arithmetic(bench, trainer)
    # The first iteration warms up.
    iterations = [sum(stopwatch.seconds[i : i + updates]) for i in range(updates, len(stopwatch.seconds), updates)]
    logged = [entry for entry in trainer.state.log_history if entry["step"] > updates]
    parts = {
        f"{name}_s": statistics.median(entry[f"{name}_seconds"] for entry in logged if f"{name}_seconds" in entry)
        for name in ("rollout", "reward", "update")
    }
    whole = statistics.median(iterations)
    return {"iteration_s": whole, "updates": updates, "arithmetic_s": bare, "ratio": whole / bare} | parts


def arithmetic(bench: Bench, trainer: MotionGRPOTrainer) -> float:
    """Seconds of the bare passes that an iteration consists of, each shape measured alone."""
    args = trainer.args
    steps, explored, trained = path(args, trainer.rollout_scheduler, 0)
    # Up to the first step that explores, the members of a group share a state, unless each has a head of its own.
    group = 1 if args.head_noise_per_sample else args.num_generations
    shared = explored[0] + 1
    seconds = 0.0
    for samples, chosen, passes, backward in (
        (args.conditions_per_generation * args.num_generations, range(len(steps)), 1, False),
        (args.per_device_train_batch_size, trained, trainer.passes_per_rollout, True),
    ):
        conditions = max(1, samples // group)
        for states, count in (
            (conditions, sum(number < shared for number in chosen)),
            (samples, sum(number >= shared for number in chosen)),
        ):
            if count:
                one = bench.timed(bare_pass(bench, trainer, states, conditions, backward), 2)
                seconds += one * count * passes
    return seconds


def bare_pass(
    bench: Bench, trainer: MotionGRPOTrainer, states: int, conditions: int, backward: bool
) -> Callable[[], None]:
    """The head encoded once a condition, the states denoised, and the gradient if asked for."""
    frames, device, denoiser = trainer.args.window, bench.device, trainer.denoiser
    rows = torch.arange(states, device=device) * conditions // states
    cond = denoiser.condition(head_poses(walk(frames), device)).expand(conditions, -1, -1).contiguous()
    mask = torch.ones(states, frames, dtype=torch.bool, device=device)
    latents = torch.randn(states, frames, denoiser.state_layout.dim, device=device)
    levels = torch.full((states,), 500, device=device)

    def work() -> None:
        denoiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=trainer.args.bf16), torch.set_grad_enabled(backward):
            encoded = denoiser.encode(cond, levels[:conditions], mask[:conditions])
            x0 = denoiser(latents, levels, cond[rows], mask, encoded[rows], return_dict=False)[0]
        if backward:
            x0.backward(torch.ones_like(x0))

    return work


def measure_training(bench: Bench, file: str | Path) -> dict[str, Any]:
    """Seconds of an update of pre-training, of a batch that the loader has yet to gather."""
    tiny = bench.options.tiny
    with tempfile.TemporaryDirectory() as folder:
        args = settings(bench, DenoisingConfig, file, folder, bf16=bench.is_gpu, max_steps=3 if tiny else 8)
        windows = MotionWindows(clips(16 if tiny else 512, args.window + 2), args.window, seed=0)
        stopwatch = Stopwatch(bench.now)
        trainer = DenoisingTrainer(network(bench), args, windows, callbacks=[stopwatch])
        silence(trainer)
        trainer.train()
    seconds = statistics.median(stopwatch.seconds[2:])
    return {"step_s": seconds, "windows_per_s": args.per_device_train_batch_size / seconds}


def silence(trainer: Any) -> None:
    """Nothing but the table is printed."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


def run_all(bench: Bench) -> None:
    """Every row, what is wanted most first."""
    options = bench.options
    first, *others = options.batches
    sampling_rows(bench, first, PLAIN + GRAPHS)
    bench.row("a call of the pipeline, float32", lambda: measure_pipeline(bench))
    grpo_rows(bench, options.grpo[:1], 0 if options.tiny else 15)
    bench.row(
        f"pre-training, a step of {Path(options.pretrain).name}", lambda: measure_training(bench, options.pretrain), 10
    )
    sampling_rows(bench, first, COMPILED)
    for batch in others:
        sampling_rows(bench, batch, PLAIN + COMPILED)
    grpo_rows(bench, options.grpo[1:], 0 if options.tiny else 90)  # the authors' 16 updates a rollout take their time


def grpo_rows(bench: Bench, files: list[Path], needs: float) -> None:
    """A row for each preset."""
    for file in files:
        bench.row(f"GRPO, an iteration of {Path(file).name}", lambda file=file: measure_grpo(bench, file), needs)


def sampling_rows(bench: Bench, batch: int, kinds: list[tuple[str, bool, bool, dict[str, Any]]]) -> None:
    """Sampling of a batch in several ways; those that need a GPU are left out on a CPU."""
    for precision, compiled, graph, changes in kinds:
        if not bench.is_gpu and (graph or compiled or precision == "tf32"):
            continue
        words = [precision, "compiled" * compiled, "CUDA graph" * graph, "encoder once a window" * bool(changes)]
        name = f"sampling, batch {batch}, {', '.join(filter(None, words))}"
        bench.row(
            name,
            lambda p=precision, c=compiled, g=graph, n=changes: measure_sampling(bench, batch, p, c, g, n),
            0 if bench.options.tiny else 20 if compiled else 8,
        )


def tables(kept: Path) -> str:
    """A table for each machine that was measured, of the files that ``--output`` wrote."""
    text = []
    for file in sorted(kept.glob("*.json")):
        results = json.loads(file.read_text(encoding="utf-8"))
        machine = dict(results["machine"])
        versions = ", ".join(f"{name} {version}" for name, version in machine.items() if name != "device")
        text += [f"**{machine['device']}** ({versions}; commit {results['commit'][:7]}).", ""]
        text += ["| | time | memory, GB | |", "|---|---|---|---|"]
        text += [markdown(row) for row in results["rows"] if "error" not in row] + [""]
        left_out = sum("error" in row for row in results["rows"])
        text += [f"{left_out} rows were left out: the time was up.", ""] if left_out else []
    return "\n".join(text).rstrip()


def markdown(row: dict[str, Any]) -> str:
    """A row of a table."""
    if "ms" in row:
        seconds, note = row["ms"] / 1e3, f"differs by {row['difference']:.1g}" if row.get("difference") else ""
    elif "ratio" in row:
        seconds, note = row["iteration_s"], f"{row['ratio']:.2f} times its arithmetic ({row['arithmetic_s']:.1f} s)"
    else:
        seconds, note = row["step_s"], f"{row['windows_per_s']:.0f} windows a second"
    time = f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"
    return f"| {row['name']} | {time} | {row['peak_memory_gb']:.2f} | {note} |"


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measures row by row; the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=200.0, help="rows that would take longer are left out")
    parser.add_argument("--output", help="JSON file")
    parser.add_argument(
        "--grpo", nargs="*", default=[file for file in PRESETS if file.exists()], help="presets of GRPO"
    )
    parser.add_argument("--pretrain", default=CONFIGS / "pretrain_egoallo.yaml", help="preset of pre-training")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 256], help="windows sampled at once")
    parser.add_argument("--tiny", action="store_true", help="a network and batches that a CPU runs in seconds")
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    parser.add_argument("--page", action="store_true", help="measure nothing, write docs/performance.md")
    options = parser.parse_args(arguments)
    if options.page:
        write_between(PAGE, START, tables(KEPT), END)
        return []
    bench = Bench(options)
    run_all(bench)
    failed = sum("error" in row for row in bench.rows)
    print(f"{len(bench.rows)} rows in {bench.now():.0f} s, {failed} of them without a number", flush=True)
    return bench.rows


if __name__ == "__main__":
    main()
