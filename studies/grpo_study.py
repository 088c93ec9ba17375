"""The experiments of docs/grpo.md: what post-training does to a base, beside what the same time does otherwise.

    python studies/grpo_study.py row base --base paper_base --dataset DATA               # what it starts from
    python studies/grpo_study.py row frame --base paper_base --seed 0 --dataset DATA     # trains, evaluates
    python studies/grpo_study.py diversity --base paper_base --dataset DATA              # Table 3
    python studies/grpo_study.py write                                                   # tables and figure

Every row trains for ten minutes of the clock (some for forty) on one core, starting and reading the data included, and
is evaluated as it then is: no score chooses among the checkpoints of a run. Settings of rows were revised between
scorings (docs/grpo.md). Start two at a time on two cores. What is kept is a line of ``docs/results/grpo.jsonl`` for
each base, row and seed: what was asked for (``facts``), what the run resolved it to, by which code and on which data
(``run``), ``log``, ``results``, and the ``change`` from the base with its interval. What a finished run was is never
written again. ``write`` makes the tables and the figure of docs/grpo.md from it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from records import keep_record, read_records

from motion_grpo import EgoMotionPipeline
from motion_grpo.cards.models import without_places
from motion_grpo.files import write_between, write_text
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.runs import LOG_FILE, RUN_FILE, newest_checkpoint
from motion_grpo.viz.figures import COLORS, new_figure, save_figure, style_axes

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE, FIGURE = ROOT / "docs/results/grpo.jsonl", ROOT / "docs/grpo.md", ROOT / "docs/images/grpo_rewards.png"
SETTINGS, SMALL = "configs/grpo_paper_base.yaml", "configs/grpo_small.yaml"
BASES = {"paper_base": "configs/pretrain_paper_base.yaml", "base": "configs/pretrain_small.yaml"}
SCALAR = ["--credit", "sequence", "--per_device_train_batch_size", "1024", "--ema_decay", "0.98"]
EVERY = ["--sde_window_size", "2", "--per_device_train_batch_size", "128", "--ema_decay", "0.98"]
"""Every step explores. These rows were trained before the states that a group shares were computed once for all."""
SCALAR_EVERY = [*EVERY, "--credit", "sequence", "--exploration_components", "8", "--learning_rate", "5e-6"]
BETAS = ["--train_betas", "True"]
SMALL_64 = ["--window", "64", "--group_std_floor", "1e-4", "--credit", "joint", *BETAS]
SMALL_EVERY = [*SMALL_64, "--sde_window_size", "4", "--per_device_train_batch_size", "128", "--ema_decay", "0.98"]
SMALL_EVERY += ["--exploration", "smooth", "--last_step_std", "0.01", "--learning_rate", "1e-5"]
SMALL_SCALAR = ["--credit", "sequence", "--per_device_train_batch_size", "512", "--reward_weights", "1", "1", "1", "1"]
SMALL_SCALAR += ["--rewards", "rotation", "position", "aligned_position", "velocity"]
JOINT_EVERY = [*EVERY, "--learning_rate", "3e-5"]
QUARTER = ["--reward_weights", "0.5", "1", "1", "1", "0.25", "1"]
VISUAL = ["--rewards", "visual", "rotation", "position", "aligned_position", "velocity"]
VISUAL += ["--perceptual_model", "perceptual"]
SKATING = ["--rewards", "rotation", "position", "aligned_position", "velocity", "ground_penetration", "foot_skating"]
PERLIN = ["--head_noise", "0.1"]
UNTRAINED = ["--credit", "sequence", "--learning_rate", "0", "--save_strategy", "no"]


class Row(NamedTuple):
    """What is done to a base in how many minutes."""

    title: str
    arguments: list[str]
    minutes: float = 10.0
    config: str = SETTINGS


FINETUNE = ["--learning_rate", "1e-4", "--ema_decay", "0.99"]
ROWS: dict[str, Row] = {
    "finetune": Row("plain fine-tuning", FINETUNE),
    "vanilla": Row("vanilla GRPO", SCALAR),
    "visual": Row("vanilla + visual", [*SCALAR, *VISUAL]),
    "perlin": Row("vanilla + visual + Perlin noise", [*SCALAR, *VISUAL, *PERLIN]),
    "frame": Row("credit `frame`", ["--credit", "frame"]),
    "joint": Row("credit `joint`", []),
    "joint_visual": Row("credit `joint` + visual", VISUAL),
    "joint_perlin": Row("credit `joint` + visual + Perlin noise", [*VISUAL, *PERLIN]),
    "vanilla_small": Row("vanilla GRPO", [*SMALL_SCALAR, *BETAS], config=SMALL),
    "vanilla_fixed": Row("the same, betas not trained", SMALL_SCALAR, config=SMALL),
    "frame_contact": Row("credit `frame` + penetration, contact", [], config=SMALL),
    "frame_betas": Row("the same, betas trained", BETAS, config=SMALL),
    "frame_quarter": Row("the same, penetration at a quarter", [*BETAS, *QUARTER], config=SMALL),
    "joint_contact_64": Row("credit `joint` + penetration, contact, windows of 64 frames", SMALL_64, config=SMALL),
    "finetune_40": Row("plain fine-tuning, 40 minutes", FINETUNE, minutes=40.0),
    "paper": Row("vanilla GRPO, all steps but the last explore", [*SCALAR_EVERY, "--last_step_std", "0"]),
    "vanilla_every": Row("every step explores: vanilla GRPO", SCALAR_EVERY),
    "visual_every": Row("every step: vanilla + visual", [*SCALAR_EVERY, *VISUAL]),
    "perlin_every": Row("every step: vanilla + visual + Perlin noise", [*SCALAR_EVERY, *VISUAL, *PERLIN]),
    "frame_every": Row("every step: credit `frame`", [*EVERY, "--credit", "frame", "--learning_rate", "1e-5"]),
    "joint_every": Row("every step: credit `joint`", JOINT_EVERY),
    "joint_perlin_every": Row("every step: `joint` + visual + Perlin noise", [*JOINT_EVERY, *VISUAL, *PERLIN]),
    "joint_skating_every": Row("every step: `joint` + penetration, skating", [*SMALL_EVERY, *SKATING], config=SMALL),
    "joint_contact_every": Row("every step: `joint` + penetration, contact", SMALL_EVERY, config=SMALL),
    "vanilla_every_40": Row("every step: vanilla GRPO, 40 minutes", SCALAR_EVERY, minutes=40.0),
}
METRICS = {
    "mpjpe": ("MPJPE", "mm"), "pa_mpjpe": ("PA", "mm"), "mpjve": ("MPJVE", "mm/s"), "mpjre": ("MPJRE", "deg"),
    "jitter": ("jitter", "100 m/s³"), "ground_penetration": ("GP", "m"), "foot_skating": ("FS", "m"),
    "foot_skating_egoallo": ("FS, EgoAllo's", "m"),
}  # fmt: skip
CURVES = ("vanilla", "visual", "frame", "joint")
"""Rows whose rewards compare: by the same noise on the samples, with a head that nothing perturbs."""
MINUTES = np.linspace(0.5, 9.5, 37)
REWARDS = ("rotation", "position", "aligned_position", "velocity")
Record = Mapping[str, Any]
"""A line of what is kept."""
app = typer.Typer(add_completion=False, no_args_is_help=True)
Base = Annotated[str, typer.Option(help=f"One of {', '.join(BASES)}.")]
Dataset = Annotated[Path, typer.Option(exists=True, help="Data set of `motion-grpo data`, or a pack.")]
Work = Annotated[Path, typer.Option(help="Where checkpoints and whole results go.")]


# ---- a row


@app.command()
def row(
    name: Annotated[str, typer.Argument(help=f"base, or one of {', '.join(ROWS)}.")],
    base: Base,
    dataset: Dataset,
    seed: int = 0,
    samples: int = 3,
    splits: str = "id_test,test",
    work: Work = Path("runs/study"),
) -> None:
    """Train a row of Table 2, evaluate it, keep what is small."""
    folder = work.resolve() / base / name / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = "pipeline"
    if name == "base":
        checkpoint = base
    elif not (folder / checkpoint / "model_index.json").is_file():
        _train(name, base, dataset.resolve(), seed, folder)
    # In the folder, so that the results do not say where this machine keeps it.
    baselines = ["--baselines", "mean_pose,smoothed"] if name == "base" else []
    evaluate = ["evaluate", checkpoint, "--dataset", str(dataset.resolve()), "--seeds", str(samples)]
    evaluate += ["--split", splits, *baselines]
    subprocess.run([_tool(), *evaluate, "--output", "evaluation"], cwd=folder, check=True)
    _keep(folder, base, name, seed)


def _trainer(
    base: str, dataset: Path, output: Path, settings: list[str], script: str = "grpo", config: str = SETTINGS
) -> list[str]:
    command = [sys.executable, f"trainers/{script}.py", "--config", config, "--eval_strategy", "no"]
    command += ["--model_name_or_path", base, "--dataset_name", str(dataset), "--output_dir", str(output)]
    return [*command, *settings]


def _train(name: str, base: str, dataset: Path, seed: int, folder: Path) -> None:
    script, config = ("grpo", ROWS[name].config) if not name.startswith("finetune") else ("pretrain", BASES[base])
    settings = ["--seed", str(seed), "--max_steps", "1000000", "--lr_scheduler_type", "constant_with_warmup"]
    settings += ["--save_steps", "20", "--save_total_limit", "2", "--logging_steps", "5", "--report_to", "none"]
    settings += ROWS[name].arguments
    command = _trainer(base, dataset, folder / "run", settings, script=script, config=config)
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            process.wait(timeout=60 * ROWS[name].minutes)
            raise RuntimeError(f"{name} ended by itself, with status {process.returncode}; see what it printed.")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
        process.wait()
    checkpoint = Path(newest_checkpoint(folder / "run"))
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    facts = {"base": base, "row": name, "seed": seed, "updates": state["global_step"], "config": config}
    facts |= {"minutes": round((time.monotonic() - started) / 60, 2), "arguments": ROWS[name].arguments}
    write_text(folder / LOG_FILE, json.dumps(state["log_history"]) + "\n")
    pipeline = EgoMotionPipeline.from_pretrained(base)
    pipeline.denoiser = EgoMotionDenoiser.from_pretrained(checkpoint / "ema")
    pipeline.save_pretrained(folder / "pipeline")
    write_text(folder / "row.json", json.dumps(facts, indent=1) + "\n")


def _tool() -> str:
    return str(Path(sys.executable).with_name("motion-grpo"))


def _keep(folder: Path, base: str, name: str, seed: int) -> None:
    """Keeps what a run says of itself, without where things lie on this machine."""
    record: dict[str, Any] = {"base": base, "row": name, "seed": seed}
    if name != "base":
        record["facts"] = without_places(_read(folder / "row.json"))
        if (folder / "run" / RUN_FILE).is_file():
            record["run"] = without_places(_read(folder / "run" / RUN_FILE))
        record["log"] = _read(folder / LOG_FILE)
    record["results"] = _read(folder / "evaluation" / "results.json")
    if name != "base":
        reference = _clips(folder.parents[1] / "base" / "seed0" / "evaluation")
        record["change"] = _changes(reference, _clips(folder / "evaluation"))
    keep_record(KEPT, record)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _clips(evaluation: Path) -> dict[tuple[str, str, str], dict[str, list[float]]]:
    rows = map(json.loads, (evaluation / "clips.jsonl").read_text().splitlines())
    return {(row["split"], row["source"], row["clip"]): row["metrics"] for row in rows if row["system"] == "model"}


def _changes(before: Mapping, after: Mapping) -> dict[str, dict[str, dict[str, float]]]:
    """Per cent of the base's mean, with a 95% bootstrap interval over clips, which have the same noise in both."""
    changes: dict[str, dict[str, dict[str, float]]] = {}
    for split in dict.fromkeys(split for split, *_ in after):
        keys = [key for key in after if key[0] == split]
        draws = np.random.default_rng(0).integers(0, len(keys), (2000, len(keys)))
        for metric in METRICS:
            old, new = (np.array([np.mean(x[key][metric]) for key in keys]) for x in (before, after))
            spread = 100 * (new[draws].mean(1) / old[draws].mean(1) - 1)
            lo, hi = np.percentile(spread, [2.5, 97.5])
            change = {"mean": 100 * (new.mean() / old.mean() - 1), "lo": lo, "hi": hi}
            changes.setdefault(split, {})[metric] = {key: round(float(value), 3) for key, value in change.items()}
    return changes


# ---- Table 3


@app.command()
def diversity(base: Base, dataset: Dataset, work: Work = Path("runs/study")) -> None:
    """Measure the spread within groups of the untrained base under Perlin noise."""
    found: dict[str, list[float]] = {}
    for noise in (0.0, 0.05, 0.1):
        for kind in ("shared", "per_sample") if noise else ("shared",):
            folder = work.resolve() / base / "diversity" / f"{kind}_{noise}"
            settings = [*UNTRAINED, "--window", "128", "--num_sampling_steps", "10", "--max_steps", "6"]
            settings += ["--sde_window_size", "9", "--last_step_std", "0", "--timestep_fraction", "0.1"]
            settings += ["--per_device_train_batch_size", "128"]
            settings += ["--head_noise", str(noise), "--head_noise_per_sample", str(kind == "per_sample")]
            subprocess.run(_trainer(base, dataset.resolve(), folder, settings), cwd=ROOT, check=True)
            log = json.loads((folder / LOG_FILE).read_text())
            found[f"{kind} {noise}"] = [entry["diversity"] for entry in log if "diversity" in entry]
    keep_record(KEPT, {"base": base, "row": "diversity", "seed": 0, "diversity": found})


# ---- the page


@app.command()
def write() -> None:
    """Make the tables and the figure of docs/grpo.md from what is kept."""
    kept = read_records(KEPT)
    of = {base: [record for record in kept if record["base"] == base] for base in BASES}
    bases = [base for base in BASES if of[base]]
    fill("results", "\n\n".join(_table(base, of[base], split) for base in bases for split in ("id_test", "test")))
    fill("diversity", _diversity_table([record for base in bases for record in _rows(of[base], "diversity")]))
    _draw(of[bases[0]])


def _rows(records: Sequence[Record], row: str) -> list[Record]:
    """The runs of a row, by their seeds."""
    return [record for record in records if record["row"] == row]


def _table(base: str, records: Sequence[Record], split: str) -> str:
    names = [f"{title} ({unit})" for title, unit in METRICS.values()]
    lines = [f"| {base}, {split} | runs x updates | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    untrained = _rows(records, "base")[0]["results"]["splits"][split]["systems"]
    lines.append(f"| the base | | {' | '.join(_value(untrained['model'], metric) for metric in METRICS)} |")
    for name, setting in ROWS.items():
        runs = [run for run in _rows(records, name) if split in run["change"]]
        if runs:
            updates = f"{len(runs)} x {round(np.mean([run['facts']['updates'] for run in runs]))}"
            cells = [_change([run["change"][split][metric] for run in runs]) for metric in METRICS]
            lines.append(f"| {setting.title} | {updates} | {' | '.join(cells)} |")
    for name, title in (("smoothed", "the base, smoothed"), ("mean_pose", "mean pose")):
        cells = [_percent(_mean(untrained[name], m) / _mean(untrained["model"], m) * 100 - 100) for m in METRICS]
        lines.append(f"| {title} | | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(system: Mapping[str, Any], metric: str) -> float:
    return system["metrics"][metric]["mean"]


def _value(system: Mapping[str, Any], metric: str) -> str:
    return f"{_mean(system, metric):.3g}" if _mean(system, metric) < 1000 else f"{_mean(system, metric):.0f}"


def _change(found: Sequence[Mapping[str, float]]) -> str:
    """Of several runs the mean, and the lowest and highest; of one its interval over clips."""
    means = [change["mean"] for change in found]
    lo, hi = (min(means), max(means)) if len(found) > 1 else (found[0]["lo"], found[0]["hi"])
    return f"{_percent(np.mean(means))} [{lo:+.1f}, {hi:+.1f}]"


def _percent(value: float) -> str:
    return f"{value:+.1f}%"


def _diversity_table(records: Sequence[Record]) -> str:
    lines = []
    for record in records:
        found = record["diversity"]
        cells = [_spread(np.array(values), np.array(found["shared 0.0"])) for values in found.values()]
        if not lines:
            names = ["0" if name == "shared 0.0" else name.replace("_", " ") for name in found]
            lines = [f"| lambda (m) | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
        lines.append(f"| {record['base']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: np.ndarray, none: np.ndarray) -> str:
    """Mean, its ratio to that without noise, and the ratio's 95% bootstrap interval over updates."""
    draws = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    lo, hi = np.percentile(values[draws].mean(1) / none[draws].mean(1), [2.5, 97.5])
    ratio = f"x{values.mean() / none.mean():.2f}"
    return f"{values.mean():.2f} ({ratio} [{lo:.2f}, {hi:.2f}])" if lo < hi else f"{values.mean():.2f}"


def fill(name: str, text: str, program: str = "grpo_study") -> None:
    """Puts what a program of this folder has found into docs/grpo.md."""
    write_between(PAGE, f"<!-- {name}: by studies/{program}.py -->", f"\n{text}\n", f"<!-- end of {name} -->")


def _draw(records: Sequence[Record]) -> None:
    """Figure 2: how the rewards rise; of several runs the mean, and a band from the lowest to the highest."""
    figure = new_figure(400)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, len(REWARDS))
    names = [name for name in CURVES if _rows(records, name)]
    for name, color in zip(names, cycle(COLORS), strict=False):
        earned = np.array([_earned(run) for run in _rows(records, name)])
        mean, lo, hi = earned.mean(axis=0), earned.min(axis=0), earned.max(axis=0)
        for number, panel in enumerate(panels):
            panel.plot(MINUTES, mean[:, number], color=color, label=name)
            panel.fill_between(MINUTES, lo[:, number], hi[:, number], color=color, alpha=0.2, linewidth=0)
    for panel, reward in zip(panels, REWARDS, strict=True):
        style_axes(panel, reward.replace("_", " "), "minutes")
    panels[0].set_ylabel("reward")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    save_figure(figure, FIGURE)


def _earned(run: Record) -> np.ndarray:
    """A run's `REWARDS` around each of `MINUTES`: every update has conditions of its own, some easier than others."""
    facts = run["facts"]
    log = [entry for entry in run["log"] if "reward" in entry and "loss" in entry]
    minutes = np.array([entry["step"] for entry in log]) * facts["minutes"] / facts["updates"]
    weights = np.exp(-0.5 * ((MINUTES[:, None] - minutes) / 0.4) ** 2)
    rewards = [[entry[f"rewards/{reward}/mean"] for reward in REWARDS] for entry in log]
    return weights @ rewards / weights.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    app()
