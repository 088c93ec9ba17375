"""Cards of models: README.md for the Hub, from the facts of a checkpoint folder or of a training run.

A checkpoint folder holds its facts: weights and configurations, ``facts.json`` (what only a person or the run knows),
``training_config.yaml``, ``evaluation/``. :func:`write_checkpoint_card` makes the card of them, again and again the
same. :func:`write_run_card` is for trainers. Both refuse to build a card that lacks a fact, and evaluations of other
weights. Templates lie in hub_cards/; cards of data sets are written by
:func:`~motion_grpo.cards.write_dataset_card`.
"""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import TrainingArguments

from motion_grpo.body import Skeleton
from motion_grpo.cards.results import (
    Evaluation,
    before_and_after,
    model_index,
    read_critic_evaluation,
    read_pipeline_evaluation,
    write_entries,
)
from motion_grpo.cards.sources import hub_license, training_data
from motion_grpo.cards.templates import DataFacts, SourceFacts, is_hub_id, model_card
from motion_grpo.files import write_text
from motion_grpo.metrics import METRIC_UNITS
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.provenance import code_version, dataset_facts
from motion_grpo.runs import RUN_FILE, add_session, read_sessions, training_seconds
from motion_grpo.viz.curves import logged_curves, plot_grpo_run, plot_training_log

NOT_EVALUATED = "not evaluated"
"""In place of an evaluation: says on the card that nobody knows how good the model is."""
FACTS_FILE = "facts.json"
CURVES_FILE = "training_curves.png"
POST_TRAINED = ("grpo", "reward_gradient", "dpo")
"""Kinds of runs that start from a pipeline and have a card that compares with it."""
KINDS = {"pipeline": "EgoMotionPipeline", "perceptual": "MotionPerceptualModel"}
KINDS |= dict.fromkeys(POST_TRAINED, "EgoMotionPipeline")
"""What there are cards of, and the class that loads it."""
RESULTS = {kind: "model" if kind == "perceptual" else "pipeline" for kind in KINDS}
"""The folder of the output folder in which a run leaves what it is for."""
_TAGS = {
    kind: ["motion", "egocentric", "smpl-h", "diffusers", "head-trajectory", *own]
    for kind, own in {
        "pipeline": [],
        "grpo": ["grpo", "trl"],
        "reward_gradient": ["reward-gradient"],
        "dpo": ["dpo"],
        "perceptual": ["reward-model"],
    }.items()
}
_EGOEGO_STYLE = (
    "It is conditioned in the style of EgoEgo (J. Li, C. K. Liu, J. Wu, CVPR 2023): on the head's path as seen from "
    "where each window begins, turned to its heading. What is EgoEgo is this conditioning alone; the network, the "
    "diffusion, the data and the body are motion-grpo's, and there is neither EgoEgo's estimate of the head's "
    "path from video nor its optical flow."
)
_PACKAGES = ("motion-grpo", "torch", "diffusers", "transformers", "trl", "accelerate", "huggingface-hub")
_EMBEDDED = Path(__file__).parents[1] / "checkpoints"
_GENERAL_SETTINGS = (
    "max_steps", "num_train_epochs", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay",
    "max_grad_norm", "bf16", "gradient_checkpointing", "num_iterations", "beta", "reward_weights",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of the software that trains, by package."""
    return {package: version(package) for package in _PACKAGES}


def record_run(args: TrainingArguments, **told: Any) -> None:
    """Records in the output folder of a training, before it begins, what it is made of, and its card later.

    ``run.json`` gets the settings, the code's version and commit, and the digest of the data when the run starts, and
    is never written again. Each start and each resumption adds a line to ``sessions.jsonl``: when, on what software, by
    which code, and what differs from ``run.json``.

    Args:
        args: settings.
        told: what the script was told beside them, by section (``data``, ``model``).
    """
    if args.process_index != 0:
        return
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    named = told.get("data", {}).get("dataset_name", [])
    names = [named] if isinstance(named, str) else named  # a script may join several
    now = {
        "settings": args.to_dict(),
        "recordings": [dataset_facts(name) for name in names],
        "num_processes": args.world_size,
        "versions": versions(),
        "code": code_version(),
    }
    now = json.loads(json.dumps(told | now, default=str))
    if not (folder / RUN_FILE).exists():
        write_text(folder / RUN_FILE, json.dumps(now, indent=1))
    started = json.loads((folder / RUN_FILE).read_text())
    if started["recordings"] != now["recordings"]:
        warnings.warn(
            f"The data are not those that the run in {folder} started with ({now['recordings']} now, "
            f"{started['recordings']} then): go on with those, or train into another folder.",
            stacklevel=2,
        )
    parts = [*told, "settings"]
    changed = {part: {k: v for k, v in now[part].items() if started.get(part, {}).get(k) != v} for part in parts}
    session = {name: now[name] for name in ("recordings", "num_processes", "versions", "code")}
    add_session(folder, session | {"changed": {part: values for part, values in changed.items() if values}})


def told_of_run(run: Mapping[str, Any], sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run's script was told about its data and models: at the start, and what its latest session changed."""
    changed = sessions[-1]["changed"] if sessions else {}
    return {
        name: value for part in ("data", "model") for of in (run, changed) for name, value in of.get(part, {}).items()
    }


def write_checkpoint_card(folder: str | Path) -> Path:
    """Writes README.md of a checkpoint folder, and ``.eval_results/`` where it was evaluated on a data set of the Hub.

    Args:
        folder: weights, configurations, ``facts.json``, and ``evaluation/`` with ``results.json`` and ``results.md``
            unless the facts say that there is none.

    Raises:
        FileNotFoundError: a file that the card is made of is not there.
        ValueError: a fact is missing, or the evaluation is of other weights; the message says which.
    """
    folder = Path(folder)
    path = folder / FACTS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {FACTS_FILE}, in which the facts of its card are remembered.")
    facts = json.loads(path.read_text())
    kind = facts.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"{path} says that kind is {kind!r}; it must be one of {', '.join(KINDS)}.")
    name = folder.resolve().name
    if "data" in facts:
        data = facts["data"]
        facts["data"] = DataFacts(data["name"], tuple(SourceFacts(**source) for source in data["sources"]))
    weights = folder if kind == "perceptual" else folder / "denoiser"
    facts |= {"name": name, "load": load_lines(kind, _argument(kind, name)), "network": None, "validation": None}
    facts |= _weights_facts(weights) | _sampling_facts(folder, kind)
    for fact, file in (("curves", CURVES_FILE), ("training_config", "training_config.yaml")):
        if (folder / file).is_file():
            facts[fact] = file
    evaluation = None
    if facts.get("evaluation") != NOT_EVALUATED:
        evaluation = _read_evaluation(kind, folder / "evaluation", weights)
        facts["evaluation"] = _tables(folder / "evaluation")
    if kind in POST_TRAINED:
        facts["base_evaluation"] = None
        if evaluation is not None:
            base = read_pipeline_evaluation(folder / "evaluation" / "base_results.json", None)
            facts["base_evaluation"] = before_and_after(base, evaluation)
    return _write(folder, kind, facts, evaluation)


def write_run_card(
    kind: str,
    model: ModelMixin,
    args: TrainingArguments,
    log_history: Sequence[Mapping[str, Any]],
    *,
    evaluation: str | Path,
    name: str | None = None,
    dataset: str | None = None,
    base_model: str | None = None,
    policies: Iterable[str] | None = None,
    body: str | None = None,
    license: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
) -> Path:
    """Writes README.md, and the picture of the curves, into the output folder of a training run.

    What is not given is taken from ``run.json`` there, which the scripts of trainers/ write.

    Args:
        kind: one of :data:`KINDS`.
        model: the network that is trained.
        args: settings of the run.
        log_history: of the trainer's state.
        evaluation: :data:`NOT_EVALUATED`, or a folder with the ``results.json`` and ``results.md`` of what the output
            folder holds.
        name: of the model; the last part of ``args.hub_model_id``, or the output folder's name, when None.
        dataset: as for :func:`~motion_grpo.data.load_motions`.
        base_model: that the training started from.
        policies: base policies that a perceptual model learned to tell from recordings.
        body: that betas refer to.
        license: of the weights, as an identifier of the Hub; follows from the data when None.
        sampling: ``num_inference_steps`` and ``eta`` of the pipeline that the run leaves.
        tags: beside the usual ones.

    Raises:
        ValueError: a fact is missing, or the evaluation is of other weights; the message says which.
    """
    folder = Path(args.output_dir)
    run = json.loads((folder / RUN_FILE).read_text()) if (folder / RUN_FILE).is_file() else {}
    sessions = read_sessions(folder)
    told = told_of_run(run, sessions)
    steps = max((int(entry["step"]) for entry in log_history if "step" in entry), default=0)
    name = name or (args.hub_model_id or folder.resolve().name).split("/")[-1]
    base_model = base_model or told.get("model_name_or_path")
    settings = card_settings(type(args), args.to_dict())
    # An adapter is merged into what the run leaves.
    weights = [parameter for part, parameter in model.named_parameters() if ".lora_" not in part]
    size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    facts: dict[str, Any] = {
        "name": name,
        "load": _load_lines_of_run(kind, args, settings, base_model),
        "network": {key: value for key, value in model.config.items() if not key.startswith("_")},
        "parameters": _millions(sum(parameter.numel() for parameter in weights)),
        "precision": str(model.dtype).removeprefix("torch."),
        "size": f"{sum(p.numel() * p.element_size() for p in weights) / 1e6:.1f} MB",
        "command": None,
        "limits": None,
        "evaluation_note": None,
        "training_config": None,
        "hours": _hours(sessions, log_history),
        "machine": _machine(args) + (f" in {len(sessions)} sessions" if len(sessions) > 1 else ""),
        "versions": run.get("versions") or versions(),
        "settings": settings,
        "steps": steps,
        "batch": batch_of(kind, size, settings),
        "frames": vars(args)["window"],
        "seed": args.seed,
        "body": body or Skeleton.default().name,
        "curves": draw_curves(kind, log_history, folder),
        "validation": _latest_evaluation(log_history),
        "num_inference_steps": None,
        "eta": None,
        **(sampling or _sampling_facts(folder, kind)),
    }
    dataset = dataset or told.get("dataset_name")
    if dataset is not None:
        facts["data"] = training_data(dataset, told.get("sources"))
        facts["license"] = license or hub_license(list(facts["data"].sources))
        facts["summary"] = _summary(kind, facts["data"].name, base_model)
        if model.config.get("cond_param") == "canonicalized":
            facts["summary"] += f" {_EGOEGO_STYLE}"
    if base_model is not None:
        facts["base_model"] = shown(base_model)
    policies = list(policies or told.get("policies", []))
    if kind == "perceptual" and (policies or settings["negatives"] != "rollout"):
        facts["policies"] = [shown(policy) for policy in policies]
    read = None
    facts |= {"evaluation": evaluation, "base_evaluation": None}
    if evaluation != NOT_EVALUATED:
        read = _read_evaluation(kind, Path(evaluation), _weights_folder(folder, kind))
        facts["evaluation"] = _tables(Path(evaluation))
    return _write(folder, kind, facts, read, tags, args.hub_model_id)


def card_settings(config: type[TrainingArguments], values: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of a training's settings: those that motion-grpo adds to transformers', and a few of these.

    Args:
        config: class of the settings; its defaults stand in for what is not among the values.
        values: settings by name. Of an absolute path the last part alone is shown.
    """
    defaults = {
        field.name: field.default if field.default is not MISSING else field.default_factory()
        for field in fields(config)
        if field.default is not MISSING or field.default_factory is not MISSING
    }
    names = dict.fromkeys([*_GENERAL_SETTINGS, *own_settings(config)])
    chosen = {name: values.get(name, defaults[name]) for name in names if name in defaults}
    return {name: shown(value) if isinstance(value, str) else value for name, value in chosen.items()}


def own_settings(config: type) -> list[str]:
    """Names of the settings that motion-grpo adds to those of transformers and TRL, or gives another default."""
    ours = [kind for kind in reversed(config.__mro__) if kind.__module__.startswith("motion_grpo.")]
    names = dict.fromkeys(name for kind in ours for name in kind.__annotations__)
    return [name for name in names if name != "remove_unused_columns"]


def batch_of(kind: str, size: int, settings: Mapping[str, Any]) -> str:
    """What an optimizer step sees; a batch of GRPO counts samples."""
    if kind == "grpo":
        group = settings["num_generations"]
        return f"{size} samples, {group} for each of {size // group} windows,"
    return f"{size} windows"


def load_lines(kind: str, argument: str) -> str:
    """The lines of Python that load and use a model; ``argument`` is that of ``from_pretrained``."""
    if kind == "perceptual":
        return (
            "from motion_grpo import Motion\nfrom motion_grpo.models import MotionPerceptualModel\n"
            "from motion_grpo.inference.scoring import score_motion\n\n"
            f"model = MotionPerceptualModel.from_pretrained({argument}).eval()\n"
            'print(score_motion(model, Motion.load("motion.npz")).score)'
        )
    return (
        f"from motion_grpo import EgoMotionPipeline\n\npipe = EgoMotionPipeline.from_pretrained({argument})\n"
        'motion = pipe("closed_loop_trajectory.csv").motion\nmotion.save("walk.npz")'
    )


def shown(name: str) -> str:
    """A name as a card may show it: of an absolute path, which is this machine's business, the last part alone."""
    return Path(name).name if Path(name).is_absolute() else name


def without_places(recorded: Any) -> Any:
    """What a run has recorded, as others may see it: :func:`shown` of every text in it."""
    if isinstance(recorded, dict):
        return {name: without_places(value) for name, value in recorded.items()}
    if isinstance(recorded, list):
        return [without_places(value) for value in recorded]
    return shown(recorded) if isinstance(recorded, str) else recorded


def _write(
    folder: Path,
    kind: str,
    facts: dict[str, Any],
    evaluation: Evaluation | None,
    tags: Sequence[str] = (),
    repo_id: str | None = None,
) -> Path:
    card = build_card(kind, facts, evaluation, tags)
    if evaluation is not None:
        write_entries(evaluation, folder, repo_id)
    path = folder / "README.md"
    write_text(path, str(card))
    return path


def _read_evaluation(kind: str, folder: Path, weights: Path) -> Evaluation:
    if kind == "perceptual":
        return read_critic_evaluation(folder / "results.json", MotionPerceptualModel.from_pretrained(weights))
    return read_pipeline_evaluation(folder / "results.json", weights)


def _tables(folder: Path) -> str:
    """What an evaluation says to people, and its picture."""
    text = (folder / "results.md").read_text().strip()
    picture = folder / "severity.png"
    return f"{text}\n\n![Score by severity]({folder.name}/{picture.name})" if picture.is_file() else text


def build_card(
    kind: str, facts: dict[str, Any], evaluation: Evaluation | None = None, tags: Sequence[str] = ()
) -> ModelCard:
    """The card of a model.

    Args:
        kind: one of :data:`KINDS`.
        facts: see :data:`motion_grpo.cards.templates.FACTS`.
        evaluation: for the metadata; the text has it from the facts.
        tags: beside the usual ones.

    Raises:
        ValueError: a fact is missing, or the Hub would refuse the card.
    """
    metadata: dict[str, Any] = {
        "license": facts.get("license"),
        "library_name": "diffusers",
        "pipeline_tag": "other",
        "tags": [*_TAGS[kind], *tags],
    }
    if "data" in facts and is_hub_id(facts["data"].name):
        metadata["datasets"] = [facts["data"].name]
    if is_hub_id(facts.get("base_model")) and not Path(facts["base_model"]).exists():
        metadata |= {"base_model": facts["base_model"], "base_model_relation": "finetune"}
    if evaluation is not None:
        metadata |= {"model_name": facts["name"], "eval_results": model_index(evaluation)}
    return model_card(kind, metadata, facts)


def _argument(kind: str, name: str) -> str:
    """Of ``from_pretrained``, for a checkpoint that ships: the default needs none."""
    return "" if name == ("perceptual" if kind == "perceptual" else "base") else json.dumps(name)


def _load_lines_of_run(kind: str, args: TrainingArguments, settings: Mapping[str, Any], base_model: str | None) -> str:
    """What loads the result of a run, which lies in a folder of the output folder, and on the Hub at the top."""
    name = args.hub_model_id or f"{Path(args.output_dir).resolve().name}/{RESULTS[kind]}"
    load = load_lines(kind, json.dumps(name))
    if settings.get("lora_r") and base_model is not None:
        load += (
            "\n\n# The same from what the training started from, and the adapter alone:\n"
            f"pipe = EgoMotionPipeline.from_pretrained({json.dumps(shown(base_model))})\n"
            f"pipe.load_lora_weights({json.dumps(name)})"
        )
    return load


def _weights_folder(folder: Path, kind: str) -> Path:
    for place in (folder / "denoiser", folder / "pipeline" / "denoiser"):
        if kind != "perceptual" and place.is_dir():
            return place
    return folder / "model" if (folder / "model").is_dir() else folder


def _weights_facts(folder: Path) -> dict[str, str]:
    count, size, types = 0, 0, set()
    for path in sorted(folder.glob("*.safetensors")):
        size += path.stat().st_size
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (no dict)
                tensor = file.get_slice(name)
                if not name.endswith(("_mean", "_std")):  # statistics of the input, not learned
                    count += torch.Size(tensor.get_shape()).numel()
                    types.add({"F16": "fp16", "F32": "fp32", "BF16": "bf16"}.get(tensor.get_dtype(), "mixed"))
    if not count:
        raise FileNotFoundError(f"{folder} holds no safetensors.")
    return {"parameters": _millions(count), "size": f"{size / 1e6:.1f} MB", "precision": "/".join(sorted(types))}


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _sampling_facts(folder: Path, kind: str) -> dict[str, Any]:
    if kind == "perceptual" or not (folder / "model_index.json").is_file():
        return {}
    steps = json.loads((folder / "model_index.json").read_text())["num_inference_steps"]
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    return {"num_inference_steps": steps, "eta": scheduler.get("eta", "of its own")}


def draw_curves(kind: str, log_history: Sequence[Mapping[str, Any]], folder: Path) -> str | None:
    """Draws the curves of a run into a folder; the file's name, or None before anything was logged."""
    log = [dict(entry) for entry in log_history]
    curves = logged_curves(log)
    if not curves:
        return None
    is_rewarded = kind in POST_TRAINED and any(name.startswith("reward") for name in curves)
    (plot_grpo_run if is_rewarded else plot_training_log)(log, folder / CURVES_FILE)
    return CURVES_FILE


def _latest_evaluation(log_history: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    latest = next((e for e in reversed(log_history) if any(name.startswith("eval_") for name in e)), None)
    if latest is None:
        return None
    values = {name.removeprefix("eval_"): value for name, value in latest.items() if name.startswith("eval_")}
    timing = ("runtime", "samples_per_second", "steps_per_second")
    metrics = [
        f"{name} {value:.4g}{' ' + METRIC_UNITS[name] if name in METRIC_UNITS else ''}"
        for name, value in values.items()
        if not name.endswith(timing)
    ]
    return {"step": latest["step"], "metrics": metrics}


def _hours(sessions: Sequence[Mapping[str, Any]], log_history: Sequence[Mapping[str, Any]]) -> str | None:
    seconds = training_seconds(sessions, log_history, running=True)
    return None if seconds is None else f"{seconds / 3600:.2g}"


def _machine(args: TrainingArguments) -> str:
    device = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else args.device.type.upper()
    return f"{args.world_size} x {device}" if args.world_size > 1 else f"one {device}"


def _summary(kind: str, data: str, base_model: str | None) -> str:
    if kind == "perceptual":
        return f"A perceptual model of motion-grpo, trained on {data} to tell recorded from made-up motion."
    what = "A denoiser of motion-grpo: SMPL-H body motion from head poses"
    if kind in POST_TRAINED:
        return f"{what}, post-trained on {data}."
    return f"{what}, {f'fine-tuned from {shown(base_model)}' if base_model else 'trained'} on {data}."


def remember_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes ``facts.json`` of a checkpoint folder, with the sources of its data spelled out."""
    stated = {name: asdict(value) if isinstance(value, DataFacts) else value for name, value in facts.items()}
    write_text(folder / FACTS_FILE, json.dumps(stated, indent=1) + "\n")
