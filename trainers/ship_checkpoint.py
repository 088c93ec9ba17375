"""Turns a training run into a checkpoint folder for the package or the Hub: fp16 weights, curves, card.

    python trainers/ship_checkpoint.py --run runs/base --output src/motion_grpo/checkpoints/base \\
        --command "accelerate launch trainers/pretrain.py ..." --summary "..."
    motion-grpo evaluate base --dataset DIR --output src/motion_grpo/checkpoints/base/evaluation ...

The card quotes ``evaluation/results.md`` of the output folder: run the second command, then the first one again.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import torch
import yaml
from trl import TrlParser

from motion_grpo import EgoMotionPipeline
from motion_grpo.files import write_text

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- results: written by trainers/ship_checkpoint.py -->", "<!-- end of results -->"
SHOWN = (("mpjpe", "mm"), ("pa_mpjpe", "mm"), ("mpjve", "mm/s"), ("mpjre", "deg"), ("jitter", "100 m/s^3"))
SPLITS = {"id_test": "unseen takes (id_test)", "test": "unseen styles, contents and people (test)"}
SYSTEMS = {
    "model": "**model**",
    "smoothed": "model, smoothed over time",
    "nearest": "nearest neighbour in the training set",
    "mean_pose": "mean pose",
}


@dataclass
class ShipArguments:
    """What to ship, and the facts that only a person knows."""

    run: Path = field(metadata={"help": "Output folder of trainers/pretrain.py."})
    output: Path = field(metadata={"help": "Checkpoint folder to write."})
    command: str = field(metadata={"help": "The command that trained it."})
    summary: str = field(metadata={"help": "One paragraph for the top of the card."})
    training_config: Path = field(metadata={"help": "YAML that the command names."})
    hours: float = field(metadata={"help": "Wall time of the training."})
    machine: str = field(default="one core of a CPU", metadata={"help": "What it was trained on."})
    licence: str = field(default="cc-by-nc-4.0", metadata={"help": "Licence of the weights."})


def main() -> None:
    """Writes weights, curves and configuration, then the card."""
    (args,) = TrlParser((ShipArguments,)).parse_args_and_config()
    pipeline = EgoMotionPipeline.from_pretrained(args.run / "pipeline")
    parameters = sum(p.numel() for p in pipeline.denoiser.parameters())
    pipeline.denoiser.to(torch.float16)
    pipeline.save_pretrained(args.output)
    for path in (args.output / "model_index.json", args.output / "denoiser" / "config.json"):
        # diffusers notes the folder that a model was loaded from, which is nobody's business.
        settings = json.loads(path.read_text())
        settings.pop("_name_or_path", None)
        write_text(path, json.dumps(settings, indent=2) + "\n")
    shutil.copyfile(args.run / "training_curves.png", args.output / "training_curves.png")
    shutil.copyfile(args.training_config, args.output / "training_config.yaml")
    write_card(args, pipeline, parameters)
    results = args.output / "evaluation" / "results.json"
    if args.output.name == "base" and results.is_file():
        update_readme(json.loads(results.read_text()))


def update_readme(results: dict) -> None:
    """Puts the main numbers of the default checkpoint between the two marks in README.md."""
    lines = [
        "| | | " + " | ".join(f"{name}<br>{unit}" for name, unit in SHOWN) + " |",
        "|---|---|" + "---|" * len(SHOWN),
    ]
    for split, title in SPLITS.items():
        for system, label in SYSTEMS.items():
            metrics = results["splits"][split]["systems"][system]["metrics"]
            values = " | ".join(f"{metrics[name]['mean']:.3g}" for name, _ in SHOWN)
            lines.append(f"| {title} | {label} | {values} |")
    before, _, rest = (ROOT / "README.md").read_text().partition(START)
    after = rest.partition(END)[2]
    write_text(ROOT / "README.md", before + START + "\n" + "\n".join(lines) + "\n" + END + after)


def write_card(args: ShipArguments, pipeline: EgoMotionPipeline, parameters: int) -> None:
    """Fills hub_cards/checkpoint.md.jinja; a fact that is missing is an error."""
    run = json.loads((args.run / "run.json").read_text())
    config = yaml.safe_load(args.training_config.read_text())
    results = args.output / "evaluation" / "results.md"
    weights = args.output / "denoiser" / "diffusion_pytorch_model.safetensors"
    name = args.output.name
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(
        (ROOT / "hub_cards" / "checkpoint.md.jinja").read_text()
    )
    card = template.render(
        name=name,
        load_argument="" if name == "base" else f'"{name}"',
        licence=args.licence,
        summary=args.summary,
        parameters=f"{parameters / 1e6:.2f} M",
        size=f"{weights.stat().st_size / 1e6:.1f} MB",
        steps=pipeline.config.num_inference_steps,
        eta=pipeline.scheduler.config.eta,
        results=results.read_text().strip() if results.is_file() else "Not evaluated yet.",
        command=args.command,
        num_steps=config["max_steps"],
        batch=config["per_device_train_batch_size"],
        window=config["window"],
        seed=config["seed"],
        ema=config["ema_decay"],
        hours=args.hours,
        machine=args.machine,
        torch=run["torch"],
    )
    write_text(args.output / "README.md", card)


if __name__ == "__main__":
    main()
