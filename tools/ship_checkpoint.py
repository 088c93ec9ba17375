# /// script
# requires-python = ">=3.11"
# dependencies = ["motion-grpo[train]"]
#
# [tool.uv.sources]
# motion-grpo = { path = "..", editable = true }
# ///
"""Turns a training run into a checkpoint folder for the package or the Hub: small weights, curves, facts, card.

    python tools/ship_checkpoint.py --run runs/base --output src/motion_grpo/checkpoints/base \\
        --training_config configs/pretrain_small.yaml --dataset DIR --hours 0.9 --machine "one CPU core" \\
        --command "accelerate launch trainers/pretrain.py ..." --summary "..."
    motion-grpo evaluate base --dataset DIR --output src/motion_grpo/checkpoints/base/evaluation ...
    python tools/ship_checkpoint.py --rebuild src/motion_grpo/checkpoints/base

The three steps are the whole way from a run to a checkpoint that ships: weights, an evaluation of just these weights
(whole clips, with the baselines ``mean_pose,nearest,upright,smoothed``), and the card that quotes it. A run tells its
settings, software, sources, steps and the wall time of all its sessions itself (``run.json``, ``sessions.jsonl``,
``training_log.json``); the command, the summary and the machine only a person knows.

``--kind grpo``, ``reward_gradient`` and ``dpo`` ship a run of the trainer of that name (add ``--base_evaluation``, the
``results.json`` of what it started from, evaluated in the same way), ``--kind perceptual`` one of
trainers/perceptual.py (evaluated by ``motion-grpo evaluate-critic``). What is said here is remembered in the folder's
``facts.json``: a second ``--run`` needs to name only what changes, and ``--rebuild`` nothing. Cards are made by
motion_grpo.cards, which refuses evaluations of other weights. ``--rebuild`` of ``base`` writes the results in
README.md, with the data and the number of clips that they stand on, that of ``perceptual`` those in docs/perceptual.md.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import TrainingArguments
from trl import TrlParser

from motion_grpo import EgoMotionPipeline, Skeleton
from motion_grpo.cards import write_checkpoint_card
from motion_grpo.cards.models import (
    FACTS_FILE,
    KINDS,
    NOT_EVALUATED,
    POST_TRAINED,
    batch_of,
    card_settings,
    draw_curves,
    remember_facts,
    shown,
    told_of_run,
)
from motion_grpo.cards.sources import training_data
from motion_grpo.files import write_between, write_text
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.runs import LOG_FILE, RUN_FILE, read_sessions, training_seconds
from motion_grpo.training import (
    DenoisingConfig,
    MotionDPOConfig,
    MotionGRPOConfig,
    PerceptualConfig,
    RewardGradientConfig,
)

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- results: written by tools/ship_checkpoint.py -->", "<!-- end of results -->"
SHOWN = (("mpjpe", "mm"), ("pa_mpjpe", "mm"), ("mpjve", "mm/s"), ("mpjre", "deg"), ("jitter", "100 m/s^3"))
SPLITS = {"id_test": "unseen takes (id_test)", "test": "unseen styles, contents and people (test)"}
SYSTEMS = {
    "model": "**model**",
    "smoothed": "model, smoothed over time",
    "nearest": "nearest neighbor in the training set",
    "mean_pose": "mean pose",
    "upright": "upright body frozen under the head",
}
CONFIGS: dict[str, type[TrainingArguments]] = {
    "pipeline": DenoisingConfig,
    "grpo": MotionGRPOConfig,
    "reward_gradient": RewardGradientConfig,
    "dpo": MotionDPOConfig,
    "perceptual": PerceptualConfig,
}
LARGEST_MB = 15
_ASKED = ("command", "summary", "hours", "machine", "license", "limits", "evaluation_note", "base_model")


@dataclass
class ShipArguments:
    """What to ship, and the facts that only a person knows."""

    run: Path | None = field(default=None, metadata={"help": "Output folder of a script of trainers/."})
    output: Path | None = field(default=None, metadata={"help": "Checkpoint folder to write."})
    rebuild: Path | None = field(default=None, metadata={"help": "Checkpoint folder to make the card of anew."})
    kind: str = field(default="pipeline", metadata={"help": f"One of {', '.join(KINDS)}."})
    precision: str = field(default="fp16", metadata={"help": "fp16 or fp32, of the weights' file."})
    training_config: Path | None = field(default=None, metadata={"help": "YAML that the command names."})
    dataset: str | None = field(default=None, metadata={"help": "What it was trained on, where it lies now."})
    base_evaluation: Path | None = field(
        default=None, metadata={"help": "After post-training: results.json of the base model."}
    )
    command: str | None = field(default=None, metadata={"help": "The command that trained it."})
    summary: str | None = field(default=None, metadata={"help": "One paragraph for the top of the card."})
    hours: float | None = field(
        default=None, metadata={"help": "Wall time of the training; what the run itself tells by default."}
    )
    machine: str | None = field(default=None, metadata={"help": "What it was trained on."})
    license: str | None = field(default=None, metadata={"help": "Of the weights, as the Hub spells it."})
    limits: str | None = field(default=None, metadata={"help": "What this model in particular cannot do."})
    evaluation_note: str | None = field(default=None, metadata={"help": "What one has to know of the evaluation."})
    base_model: str | None = field(default=None, metadata={"help": "After post-training: what it started from."})


def main() -> None:
    """Writes weights, curves, configuration and facts, then the card."""
    (args,) = TrlParser((ShipArguments,)).parse_args_and_config()
    if args.rebuild is not None:
        rebuild(args.rebuild)
    elif args.run is None or args.output is None:
        raise ValueError("Say --run and --output to ship a training run, or --rebuild to make a card anew.")
    else:
        ship(args)


def ship(args: ShipArguments) -> None:
    """Copies what a run has left into a checkpoint folder, remembers the facts, and builds the card."""
    if args.kind not in CONFIGS:
        raise ValueError(f"--kind is {args.kind!r}; it must be one of {', '.join(CONFIGS)}.")
    if args.precision not in ("fp16", "fp32"):
        raise ValueError(f"--precision is {args.precision!r}; it must be fp16 or fp32.")
    output = args.output
    output.mkdir(parents=True, exist_ok=True)
    _save_weights(args)
    log = json.loads((args.run / LOG_FILE).read_text())
    draw_curves(args.kind, log, output)
    if args.training_config is not None:
        shutil.copyfile(args.training_config, output / "training_config.yaml")
    if args.base_evaluation is not None:
        (output / "evaluation").mkdir(exist_ok=True)
        shutil.copyfile(args.base_evaluation, output / "evaluation" / "base_results.json")
    remembered = json.loads((output / FACTS_FILE).read_text()) if (output / FACTS_FILE).is_file() else {}
    facts = {"limits": None, "evaluation_note": None, **remembered, "kind": args.kind, **_facts_of_run(args, log)}
    facts |= {name: value for name in _ASKED if (value := asdict(args)[name]) is not None}
    remember_facts(output, facts)
    rebuild(output)


def rebuild(folder: Path) -> None:
    """Makes the card of a checkpoint folder anew, and the tables elsewhere that quote its evaluation."""
    path = folder / FACTS_FILE
    facts = json.loads(path.read_text()) if path.is_file() else {}
    evaluated = (folder / "evaluation" / "results.json").is_file()
    facts.pop("evaluation", None)
    if not evaluated:
        facts["evaluation"] = NOT_EVALUATED
    if facts.get("kind"):
        remember_facts(folder, facts)
    write_checkpoint_card(folder)
    if not evaluated:
        return
    results = json.loads((folder / "evaluation" / "results.json").read_text())
    if folder.resolve().name == "base":
        limits = f"\n\n**Limits.** {facts['limits']}" if facts.get("limits") else ""
        insert(ROOT / "README.md", readme_table(results) + limits)
    if facts["kind"] == "perceptual" and folder.resolve().name == "perceptual":
        insert(ROOT / "docs" / "perceptual.md", critic_tables(folder / "evaluation"))


def insert(path: Path, text: str) -> None:
    """Puts a text between the two marks in a document.

    Raises:
        ValueError: the marks are not there.
    """
    write_between(path, START, text, END)


def readme_table(results: dict) -> str:
    """The main numbers of the default checkpoint, and on which data and how many clips they stand."""
    settings = results["settings"]
    fps = settings["fps"]
    sizes = [
        f"`{split}`: {of['clips']} clips, {of['frames'] / fps / 60:.1f} minutes"
        for split, of in results["splits"].items()
        if split in SPLITS
    ]
    digest = settings.get("dataset_sha256", settings.get("dataset_revision", ""))[:12]
    lines = [
        f"Checkpoint `base` on {settings['dataset']} ({digest}), {settings.get('mode', 'whole clips')}; "
        f"{'; '.join(sizes)}. {len(settings['seeds'])} samples a clip, {settings['num_inference_steps']} sampling "
        f"steps, eta {settings['eta']:g}.",
        "",
        "| | | " + " | ".join(f"{name}<br>{unit}" for name, unit in SHOWN) + " |",
        "|---|---|" + "---|" * len(SHOWN),
    ]
    for split, title in SPLITS.items():
        systems = results["splits"][split]["systems"]
        for system in (name for name in SYSTEMS if name in systems):
            metrics = systems[system]["metrics"]
            values = " | ".join(f"{metrics[name]['mean']:.3g}" for name, _ in SHOWN)
            lines.append(f"| {title} | {SYSTEMS[system]} | {values} |")
    return "\n".join(lines)


def critic_tables(evaluation: Path) -> str:
    """Table 4, correlations, cost and the plot of the shipped perceptual model."""
    picture = Path("..") / (evaluation / "severity.png").resolve().relative_to(ROOT)
    return f"{(evaluation / 'results.md').read_text().strip()}\n\n![Score by severity of each artefact]({picture})"


def _save_weights(args: ShipArguments) -> None:
    dtype = torch.float16 if args.precision == "fp16" else torch.float32
    if args.kind == "perceptual":
        MotionPerceptualModel.from_pretrained(args.run / "model").to(dtype).save_pretrained(args.output)
        described = [args.output / "config.json"]
    else:
        pipeline = EgoMotionPipeline.from_pretrained(args.run / "pipeline")
        pipeline.denoiser.to(dtype)
        pipeline.save_pretrained(args.output)
        described = [args.output / "model_index.json", args.output / "denoiser" / "config.json"]
    for path in described:
        # diffusers notes the folder that a model was loaded from, which does not belong into a published file.
        settings = json.loads(path.read_text())
        settings.pop("_name_or_path", None)
        write_text(path, json.dumps(settings, indent=2) + "\n")
    size = sum(path.stat().st_size for path in args.output.rglob("*.safetensors")) / 1e6
    if size > LARGEST_MB:
        raise ValueError(f"The weights take {size:.1f} MB; what ships with the package takes {LARGEST_MB} MB at most.")


def _facts_of_run(args: ShipArguments, log: list[dict]) -> dict[str, Any]:
    recorded, sessions = json.loads((args.run / RUN_FILE).read_text()), read_sessions(args.run)
    told = told_of_run(recorded, sessions)
    config = args.training_config or args.output / "training_config.yaml"
    values = yaml.safe_load(config.read_text()) | recorded["settings"]
    settings = card_settings(CONFIGS[args.kind], values)
    size = values["per_device_train_batch_size"] * values.get("gradient_accumulation_steps", 1)
    facts = {
        "body": Skeleton.from_smplh(told["smplh"]).name if told.get("smplh") else Skeleton.default().name,
        "steps": max(entry["step"] for entry in log if "step" in entry),
        "batch": batch_of(args.kind, size * recorded["num_processes"], settings),
        "frames": settings["window"],
        "seed": values["seed"],
        "settings": settings,
        "versions": recorded["versions"],
    }
    if args.dataset is not None:
        facts["data"] = training_data(args.dataset, told.get("sources"))
    if (seconds := training_seconds(sessions, log, running=False)) is not None:
        facts["hours"] = float(f"{seconds / 3600:.2g}")
    if args.kind == "perceptual":
        facts["policies"] = [shown(policy) for policy in told["policies"]]
    if args.kind in POST_TRAINED:
        facts["base_model"] = shown(told["model_name_or_path"])
    return facts


if __name__ == "__main__":
    main()
