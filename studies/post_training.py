"""What each way of post-training is worth: the tables of docs/post_training.md.

    python studies/post_training.py run --dataset DATA --rows reward_gradient --base paper_base --seed 0 --minutes 10
    python studies/post_training.py run --dataset DATA --rows ft,ft_kinematics,dpo,grpo --split val --seed 0
    python studies/post_training.py write

Each row starts from the base, trains for the minutes given, is evaluated as it then is, and adds a line to the JSONL:
settings, commit, digests of data and weights, seed, updates, and the change of every metric from the base with a 95%
interval over clips. Minutes are those of one core (processor time, starting and reading the data included, one thread);
on a GPU they are minutes of the clock. ``--updates`` makes the rows equal in updates instead. A row that was run is not
run again. Settings are chosen on ``val``; ``id_test`` and ``test`` are scored once, at the end.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from records import read_records

from motion_grpo import EgoMotionPipeline
from motion_grpo.cards.models import card_settings, without_places
from motion_grpo.files import write_between, write_text
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.provenance import state_dict_digest
from motion_grpo.runs import RUN_FILE, newest_checkpoint
from motion_grpo.training import DenoisingConfig, MotionDPOConfig, MotionGRPOConfig, RewardGradientConfig

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "docs/results/post_training.jsonl", ROOT / "docs/post_training.md"
START, END = "<!-- rows: by studies/post_training.py -->", "<!-- end of rows -->"
CONFIGS = {
    "pretrain": DenoisingConfig, "dpo": MotionDPOConfig, "grpo": MotionGRPOConfig,
    "reward_gradient": RewardGradientConfig,
}  # fmt: skip
METRICS = {
    "mpjpe": "MPJPE (mm)", "pa_mpjpe": "PA (mm)", "mpjre": "MPJRE (deg)", "mpjve": "MPJVE (mm/s)",
    "jitter": "jitter (100 m/s³)", "ground_penetration": "GP (m)", "foot_skating": "FS (m)",
    "foot_skating_egoallo": "FS, EgoAllo's (m)",
}  # fmt: skip


class Row(NamedTuple):
    """One way of post-training."""

    title: str
    script: str
    config: str
    arguments: tuple[str, ...] = ()


PAPER = (
    "--bf16", "False", "--per_device_train_batch_size", "128", "--gradient_accumulation_steps", "1", "--rewards",
    "rotation_l1", "position", "aligned_position", "velocity", "--learning_rate", "1e-5", "--warmup_steps", "0",
)  # fmt: skip
"""8 conditions x 16 in place of 64 x 16, and without the visual reward, for one core."""
ROWS = {
    "ft": Row("FT: EgoAllo's loss", "pretrain", "finetune_egoallo.yaml"),
    "ft_kinematics": Row("FT: losses through forward kinematics", "pretrain", "finetune_kinematics.yaml"),
    "dpo": Row("DPO, best against worst", "dpo", "dpo.yaml"),
    "dpo_truth": Row("DPO, truth against worst", "dpo", "dpo.yaml", ("--winner", "truth")),
    "grpo_paper": Row("GRPO, the paper's (8 x 16, no visual reward)", "grpo", "grpo_paper.yaml", PAPER),
    "grpo_authors": Row(
        "GRPO, the authors' code (16 x 16, 4 updates a rollout)", "grpo", "grpo_authors.yaml",
        ("--steps_per_generation", "4"),
    ),
    "grpo": Row("GRPO, credit `joint`, the last step explores", "grpo", "grpo_paper_base.yaml"),
    "grpo_small": Row("GRPO, credit `frame`, the last step explores", "grpo", "grpo_small.yaml"),
    "reward_gradient": Row("exact gradient, the last step", "reward_gradient", "reward_gradient.yaml"),
    "reward_gradient_chain": Row(
        "exact gradient, through all 3 steps", "reward_gradient", "reward_gradient.yaml", ("--backprop_steps", "3")
    ),
    "reward_gradient_steps": Row(
        "exact gradient, each of 3 steps for itself", "reward_gradient", "reward_gradient.yaml",
        ("--backprop_steps", "3", "--backprop", "steps"),
    ),
    "truth_free": Row(
        "exact gradient, rewards that need no truth", "reward_gradient", "reward_gradient_truth_free.yaml"
    ),
}  # fmt: skip
app = typer.Typer(add_completion=False, no_args_is_help=True)


# ---- rows


@app.command()
def run(
    dataset: Annotated[list[Path], typer.Option(exists=True, help="Data set of `motion-grpo data`, or packs.")],
    rows: Annotated[str, typer.Option(help=f"With commas between: {', '.join(ROWS)}.")],
    base: Annotated[str, typer.Option(help="Pipeline to start from.")] = "paper_base",
    seed: int = 0,
    minutes: float = 10.0,
    updates: Annotated[int | None, typer.Option(help="So many, however long they take.")] = None,
    split: Annotated[str, typer.Option(help="To evaluate on, with commas between.")] = "val",
    samples: Annotated[int, typer.Option(help="Of each clip.")] = 3,
    limit: Annotated[int | None, typer.Option(help="Only so many clips a split.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    work: Annotated[Path, typer.Option(help="Where checkpoints and whole results go.")] = Path("runs/post_training"),
    out: Annotated[Path, typer.Option(help="The JSONL.")] = KEPT,
) -> None:
    """Train and evaluate rows, one after the other."""
    names = rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise typer.BadParameter(f"there is no row {unknown[0]}; there are {', '.join(ROWS)}.")
    work, data = work.resolve() / Path(base).name, [str(path.resolve()) for path in dataset]
    options = ["--split", split, "--seeds", str(samples), *(["--limit", str(limit)] if limit else [])]
    budget = f"{updates}_updates" if updates else f"{minutes:g}_minutes_{device}"
    _evaluate(base, data, work / "base", options, device)
    for name in names:
        folder = work / name / budget / f"seed{seed}"
        key = {"row": name, "base": Path(base).name, "seed": seed, "budget": budget, "split": split}
        if any(key.items() <= line.items() for line in read_records(out)):
            print(f"{name} is in {out} already.")
            continue
        if not (folder / "pipeline" / "model_index.json").is_file():
            _train(ROWS[name], base, data, seed, folder, minutes=minutes, updates=updates, device=device)
        _evaluate(str(folder / "pipeline"), data, folder, options, device)
        line = key | _facts(ROWS[name], base, folder) | {"changes": _changes(work / "base", folder)}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, "".join(json.dumps(entry) + "\n" for entry in [*read_records(out), line]))


def _train(
    row: Row,
    base: str,
    data: list[str],
    seed: int,
    folder: Path,
    *,
    minutes: float,
    updates: int | None,
    device: str,
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    preset = str(Path("configs") / row.config)
    command = [sys.executable, f"trainers/{row.script}.py", "--config", preset, *row.arguments]
    command += ["--model_name_or_path", base, "--dataset_name", *data, "--output_dir", str(folder / "run")]
    command += ["--seed", str(seed), "--eval_strategy", "no", "--save_steps", "20", "--save_total_limit", "2"]
    command += ["--logging_steps", "5", "--use_cpu", str(device == "cpu"), "--disable_tqdm", "True"]
    command += ["--max_steps", str(updates or 1_000_000)]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT) as process:
        while process.poll() is None:
            time.sleep(0.5)
            spent = _processor_seconds(process.pid) if device == "cpu" else time.monotonic() - started
            if updates is None and spent > 60 * minutes:
                process.send_signal(signal.SIGTERM)  # writes a checkpoint after the present update
                process.wait()
    if process.returncode not in (0, 128 + signal.SIGTERM) or (checkpoint := newest_checkpoint(folder / "run")) is None:
        raise RuntimeError(f"The training in {folder} ended with status {process.returncode}; see what it printed.")
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text())
    log = [entry for entry in state["log_history"] if "loss" in entry]
    facts = {"updates": state["global_step"], "seconds": round(spent), "clock": round(time.monotonic() - started)}
    facts["skipped_updates"] = max((entry.get("skipped_updates", 0) for entry in log), default=0)
    pipeline = EgoMotionPipeline.from_pretrained(base)
    averaged = Path(checkpoint) / "ema"
    pipeline.denoiser = EgoMotionDenoiser.from_pretrained(averaged if averaged.is_dir() else checkpoint)
    pipeline.save_pretrained(folder / "pipeline")
    write_text(folder / "trained.json", json.dumps(facts) + "\n")


def _processor_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:  # it has just ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _evaluate(checkpoint: str, data: list[str], folder: Path, options: Sequence[str], device: str) -> None:
    """Clips of the first data set. A run that is there is gone on with."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        str(Path(sys.executable).with_name("motion-grpo")),
        "evaluate",
        checkpoint,
        "--dataset",
        data[0],
        *options,
    ]
    shown = {} if device != "cpu" else {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([*command, "--output", str(folder / "evaluation")], check=True, env=os.environ | shown)


def _facts(row: Row, base: str, folder: Path) -> dict[str, Any]:
    recorded = without_places(json.loads((folder / "run" / RUN_FILE).read_text()))
    return {
        **json.loads((folder / "trained.json").read_text()),
        "config": row.config,
        "arguments": list(row.arguments),
        "settings": card_settings(CONFIGS[row.script], recorded["settings"]),
        "recordings": recorded["recordings"],
        "code": recorded["code"],
        "base_sha256": state_dict_digest(EgoMotionPipeline.from_pretrained(base).denoiser),
    }


def _changes(before: Path, after: Path) -> dict[str, dict[str, dict[str, float]]]:
    """By split and metric: the base's mean, the row's, and the change in per cent with its interval over clips."""
    old, new = (_clips(folder / "evaluation") for folder in (before, after))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split in dict.fromkeys(split for split, *_ in new):
        keys = [key for key in new if key[0] == split]
        draws = np.random.default_rng(0).integers(0, len(keys), (2000, len(keys)))
        found[split] = {}
        for metric in (*METRICS, "spread"):
            a, b = (np.array([_mean(clips[key], metric) for key in keys]) for clips in (old, new))
            spread = 100 * (b[draws].mean(1) / a[draws].mean(1) - 1)
            lo, hi = np.percentile(spread, [2.5, 97.5])
            values = {"base": a.mean(), "row": b.mean(), "change": 100 * (b.mean() / a.mean() - 1), "lo": lo, "hi": hi}
            found[split][metric] = {name: round(float(value), 4) for name, value in values.items()}
    return found


def _mean(clip: Mapping[str, Any], metric: str) -> float:
    return clip["spread"]["all"] if metric == "spread" else float(np.mean(clip["metrics"][metric]))


def _clips(evaluation: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = map(json.loads, (evaluation / "clips.jsonl").read_text().splitlines())
    return {(row["split"], row["source"], row["clip"]): row for row in rows if row["system"] == "model"}


# ---- the page


@app.command()
def write(out: Path = KEPT, page: Path = PAGE) -> None:
    """Make the tables of docs/post_training.md."""
    write_between(page, START, f"\n{tables(read_records(out))}\n", END)


def tables(lines: Iterable[Mapping[str, Any]]) -> str:
    """One table for each base, budget and split."""
    lines = list(lines)
    places = dict.fromkeys((line["base"], line["budget"], split) for line in lines for split in line["changes"])
    return "\n\n".join(_table(lines, *place) for place in places) or "No row has been run yet."


def _table(lines: list[Mapping[str, Any]], base: str, budget: str, split: str) -> str:
    lines = [line for line in lines if (line["base"], line["budget"]) == (base, budget) and split in line["changes"]]
    head = f"{base}, {budget.replace('_', ' ')}, {split}"
    names = [*METRICS.values(), "spread (mm)"]
    text = [f"| {head} | runs x updates | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    first = lines[0]["changes"][split]
    text.append(f"| the base | | {' | '.join(format(found['base'], '.3g') for found in first.values())} |")
    for name, row in ROWS.items():
        runs = [line for line in lines if line["row"] == name]
        if runs:
            updates = f"{len(runs)} x {round(np.mean([line['updates'] for line in runs]))}"
            cells = [_change([line["changes"][split][metric] for line in runs]) for metric in first]
            text.append(f"| {row.title} | {updates} | {' | '.join(cells)} |")
    return "\n".join(text)


def _change(found: Sequence[Mapping[str, float]]) -> str:
    """Of several runs the mean, and the lowest and highest; of one its interval over clips."""
    means = [change["change"] for change in found]
    lo, hi = (min(means), max(means)) if len(found) > 1 else (found[0]["lo"], found[0]["hi"])
    return f"{np.mean(means):+.1f}% [{lo:+.1f}, {hi:+.1f}]"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    app()
