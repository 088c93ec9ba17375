"""Compares perceptual models as Table 4 does: ``motion-grpo evaluate-critic ours=PATH --dataset DATA -o results``.

The output folder gets ``results.json`` (everything), ``results.md`` (accuracy on pairs of recorded and made-up motion,
how often a recording is preferred to itself off the floor, Spearman correlation with the severity of artefacts, cost)
and ``severity.png``. All models see the same pairs.
"""

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import diffusers
import scipy
import torch
import typer
from motion_grpo.cli.evaluate import listed
from rich.console import Console
from rich.markdown import Markdown

import motion_grpo
from motion_grpo import EgoMotionPipeline
from motion_grpo.evaluation import read_clips
from motion_grpo.evaluation.critic import Pairs, accuracy, make_pairs, noticed, scoring_cost, severity_curves
from motion_grpo.evaluation.statistics import RESAMPLES
from motion_grpo.files import write_text
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.motion import FPS
from motion_grpo.motion.artefacts import SeverityCurve
from motion_grpo.provenance import code_version, dataset_facts, state_dict_digest
from motion_grpo.viz.severity import plot_severity


def evaluate_critic(
    checkpoints: Annotated[
        list[str], typer.Argument(help="Models to compare, each NAME=PATH, or the name of a shipped one.")
    ],
    dataset: Annotated[str, typer.Option(help="Data set of `motion-grpo data` (folder or Hub id), or a pack.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")],
    policy: Annotated[
        list[str], typer.Option(help="Pipeline that makes motion up: a folder, Hub id or shipped name. Repeatable.")
    ] = ["base"],  # noqa: B006  (typer copies it)
    split: Annotated[str, typer.Option(help="One or more, with commas between.")] = "id_test,test",
    seed: Annotated[int, typer.Option(help="Of the pairs and the artefacts.")] = 0,
    window: Annotated[int, typer.Option(min=2, help="Frames of a window.")] = 128,
    min_frames: Annotated[int, typer.Option(min=2, help="Ends of clips that are shorter are left out.")] = 30,
    artefact_windows: Annotated[int, typer.Option(min=2, help="Windows a split that artefacts are put on.")] = 256,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many clips a split, evenly spread.")] = None,
    torch_device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
) -> None:
    """Compare perceptual models: accuracy on pairs, artefacts, cost."""
    models = {
        name: MotionPerceptualModel.from_pretrained(path).to(torch_device) for name, path in _named(checkpoints).items()
    }
    policies = {}
    for path in policy:
        if (name := Path(path).name) in policies:
            raise ValueError(f"--policy names {name} twice; give each policy once, in folders of different names.")
        policies[name] = EgoMotionPipeline.from_pretrained(path).to(torch_device)
    clips = {name: read_clips(dataset, name, limit=limit) for name in listed(split, "--split")}
    output.mkdir(parents=True, exist_ok=True)

    console = Console(stderr=True)
    pairs: dict[str, dict[str, Pairs]] = {}
    for name, pipeline in policies.items():
        pairs[name] = {}
        for part, members in clips.items():
            console.print(f"drawing pairs: {name} on {part}")
            pairs[name][part] = make_pairs(pipeline, members, seed, window, min_frames=min_frames)
    curves: dict[str, dict[str, dict[str, SeverityCurve]]] = {part: {} for part in clips}
    methods: dict[str, dict[str, Any]] = {}
    longest = sorted(next(iter(clips.values())), key=lambda clip: -len(clip.motion))
    for name, model in models.items():
        console.print(f"asking {name}")
        for part, members in clips.items():
            curves[part][name] = severity_curves(
                model, members, seed, window, min_frames=min_frames, max_windows=artefact_windows
            )
        methods[name] = {
            **_model_settings(model),
            "accuracy": {
                which: {part: asdict(accuracy(model, of)) for part, of in parts.items()}
                for which, parts in pairs.items()
            },
            "noticed": {
                part: {
                    fault: asdict(of) for fault, of in noticed(model, members, window, min_frames=min_frames).items()
                }
                for part, members in clips.items()
            },
            "severity": {
                part: {artefact: asdict(curve) for artefact, curve in of[name].items()} for part, of in curves.items()
            },
            "cost": {
                which: asdict(scoring_cost(model, pipeline, longest[:16], window))
                for which, pipeline in policies.items()
            },
        }
    results = {
        "settings": {
            **dataset_facts(dataset),
            "code": code_version(),
            "splits": {part: len(members) for part, members in clips.items()},
            "limit": limit,
            "seed": seed,
            "window": window,
            "min_frames": min_frames,
            "artefact_windows": artefact_windows,
            "fps": FPS,
            "interval": f"95%, percentile bootstrap over clips with all their windows, {RESAMPLES} resamples, seed 0",
            "device": torch_device,
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version()}
            | {m.__name__: m.__version__ for m in (motion_grpo, torch, diffusers, scipy)},
        },
        "policies": {
            name: {
                "state_dict_sha256": state_dict_digest(pipeline.denoiser),
                "pairs": {
                    part: {
                        "windows": len(of.windows),
                        "left_out": of.windows.left_out,
                        "frames": int(of.windows.truth.mask.sum()),
                        "sha256_float16": of.digest,
                        **of.settings,
                    }
                    for part, of in pairs[name].items()
                },
            }
            for name, pipeline in policies.items()
        },
        "methods": methods,
    }
    write_text(output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    text = markdown(results)
    write_text(output / "results.md", text)
    plot_severity(curves, output / "severity.png")
    Console().print(Markdown(text))
    Console().print(f"wrote {output / 'results.json'}, results.md, severity.png", markup=False)


def markdown(results: dict[str, Any]) -> str:
    """The tables of a run's ``results.json``."""
    methods, policies = results["methods"], results["policies"]
    columns = [(policy, split) for policy, of in policies.items() for split in of["pairs"]]
    totals = [policies[policy]["pairs"][split]["windows"] for policy, split in columns]
    lines = [
        "Accuracy, percent [95% interval], and how many pairs were judged wrongly. A pair is a recorded window and one "
        "that the policy made up for the same head.",
        "",
        *_table(
            ["method", *(f"{policy}, {split} ({n} pairs)" for (policy, split), n in zip(columns, totals, strict=True))],
            ([name, *(_accuracy(of["accuracy"][p][s]) for p, s in columns)] for name, of in methods.items()),
        ),
    ]
    faults = [(fault, split) for split, of in next(iter(methods.values()))["noticed"].items() for fault in of]
    lines += [
        "Noticed, percent [95% interval]: windows whose recording scores above itself with body and head lifted by 5 "
        "cm, and above a body 10 cm shorter that hangs from the same head.",
        "",
        *_table(
            ["method", *(f"{fault}, {split}" for fault, split in faults)],
            (
                [name, *(_accuracy(of["noticed"][split][fault]) for fault, split in faults)]
                for name, of in methods.items()
            ),
        ),
    ]
    for split in results["settings"]["splits"]:
        artefacts = list(next(iter(methods.values()))["severity"][split])
        count = next(iter(methods.values()))["severity"][split][artefacts[0]]["windows"]
        lines += [
            f"{split}: Spearman correlation of score and severity, mean over {count} windows [95% interval] (pooled "
            "over windows).",
            "",
            *_table(
                ["artefact", *methods],
                ([a, *(_spearman(of["severity"][split][a]) for of in methods.values())] for a in artefacts),
            ),
        ]
    lines += [
        "Cost of a window: scoring / rollout (share).",
        "",
        *_table(
            ["method", "parameters", *policies],
            (
                [name, f"{of['parameters'] / 1e6:.2f} M", *(_cost(of["cost"][policy]) for policy in policies)]
                for name, of in methods.items()
            ),
        ),
    ]
    return "\n".join([*lines, *(f"- {key}: {value}" for key, value in results["settings"].items()), ""])


def _table(columns: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [*(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *rows]), ""]


def _accuracy(of: dict[str, Any]) -> str:
    return f"{of['percent']:.2f} [{of['lo']:.2f}, {of['hi']:.2f}], {of['wrong']} wrong"


def _spearman(of: dict[str, Any]) -> str:
    return f"{of['spearman']:.3f} [{of['lo']:.3f}, {of['hi']:.3f}] ({of['pooled_spearman']:.3f})"


def _cost(of: dict[str, Any]) -> str:
    return f"{of['scoring_ms']:.2f} / {of['rollout_ms']:.2f} ms ({100 * of['ratio']:.1f}%)"


def _named(checkpoints: list[str]) -> dict[str, str]:
    """Paths by name; a bare path goes by its last part."""
    named: dict[str, str] = {}
    for given in checkpoints:
        name, equals, path = given.partition("=")
        if not equals:
            name, path = Path(given).name, given
        if not name or not path or name in named:
            raise ValueError(f"{given!r} does not name a model as NAME=PATH, or its name was given before.")
        named[name] = path
    return named


def _model_settings(model: MotionPerceptualModel) -> dict[str, Any]:
    shape = ("d_latent", "num_blocks", "num_heads", "mlp_ratio", "frames_per_token", "floor_clearance")
    return {
        "checkpoint": Path(model.config["_name_or_path"]).name,
        "state_dict_sha256": state_dict_digest(model),
        "parameters": model.num_parameters(),
        **{name: model.config[name] for name in shape},
    }


if __name__ == "__main__":
    typer.run(evaluate_critic)
