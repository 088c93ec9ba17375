"""Scores a checkpoint, baselines or anybody's motion files: ``motion-grpo evaluate --dataset DATA --output results``.

Several processes share the clips: ``accelerate launch pipelines/evaluate.py ...`` with GPUs, without (where accelerate
starts only one) ``torchrun --nproc_per_node 8 pipelines/evaluate.py ...``. An interrupted run goes on where it stopped.
The output folder holds ``results.json`` and ``results.md`` (means, intervals), ``clips.jsonl`` (clips and samples) and
``settings.json`` (what the numbers depend on).
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import datasets
import diffusers
import torch
import typer
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

import motion_grpo
from motion_grpo import EgoMotionPipeline, Motion, Skeleton, evaluation
from motion_grpo.data import Clip, is_mocap_pack, load_clips, load_motions, resample
from motion_grpo.evaluation import MIN_FRAMES, ClipScores, PipelineSystem, RecordedMotions, System
from motion_grpo.files import write_text
from motion_grpo.motion import FPS

BASELINES = ("mean_pose", "nearest", "smoothed", "ground_truth")
SIGMA_FRAMES = 2.0
Key = tuple[str, str, str]  # split, system, clip


def evaluate(
    dataset: Annotated[str, typer.Option(help="Data set of `motion-grpo data` (folder or Hub id), or a pack.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results; a run there is resumed.")],
    checkpoint: Annotated[str, typer.Argument(help="Folder, Hub id, or the name of a shipped checkpoint.")] = "base",
    split: Annotated[str, typer.Option(help="One or more, with commas between.")] = "id_test,test",
    seeds: Annotated[int, typer.Option(min=1, help="Samples a clip.")] = 5,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps; the checkpoint's own by default.")] = None,
    eta: Annotated[float | None, typer.Option(min=0, help="Stochasticity; the checkpoint's own by default.")] = None,
    baselines: Annotated[str, typer.Option(help=f"To compare with: {','.join(BASELINES)}.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many clips a split, evenly spread.")] = None,
    save_motions: Annotated[Path | None, typer.Option(help="Folder to save the motions in: seedN/CLIP.npz.")] = None,
    metrics_only: Annotated[
        Path | None, typer.Option(help="Score the motions in this folder (CLIP.npz, AMASS layout), no checkpoint.")
    ] = None,
    smplh: Annotated[
        Path | None, typer.Option(help="SMPL-H model.npz that predicted betas, and rows of another body, refer to.")
    ] = None,
) -> None:
    """Score recovered motion against recordings."""
    # Unless told so on a machine without GPU, accelerate takes each of torchrun's processes for the only one.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=timedelta(days=1))
    splits, chosen = listed(split, "--split"), listed(baselines, "--baselines") if baselines else []
    if unknown := set(chosen) - set(BASELINES):
        raise ValueError(f"--baselines names {', '.join(sorted(unknown))}; there are {', '.join(BASELINES)}.")
    if {"mean_pose", "nearest"} & set(chosen):
        _check_train(dataset)
    if save_motions and metrics_only:
        raise ValueError("--metrics-only draws no motions that --save-motions could save; leave out one of the two.")
    skeleton = Skeleton.from_smplh(smplh) if smplh else None
    clips = {name: _read_clips(dataset, name, skeleton, limit) for name in splits}
    if metrics_only is None:
        pipeline = EgoMotionPipeline.from_pretrained(checkpoint).to(state.device)
        pipeline.skeleton = skeleton or pipeline.skeleton
        main, system = "model", PipelineSystem(pipeline, range(seeds), steps, eta)
    else:
        main, system = "recorded", RecordedMotions(metrics_only, chain.from_iterable(clips.values()), skeleton)

    settings: dict[str, Any] = {}
    if state.is_main_process:
        settings = _system_settings(checkpoint, system, metrics_only) | _common_settings(dataset, skeleton)
        _prepare(output, settings)
    state.wait_for_everyone()
    records, order = _read_records(output), [main, *chosen]
    files: dict[str, list[Path]] = {}
    if save_motions:
        folders = [save_motions / f"seed{seed}" for seed in range(seeds)]
        files = {c.id: [folder / f"{c.id}.npz" for folder in folders] for c in chain.from_iterable(clips.values())}
    todo = []
    for group, members in clips.items():
        for clip in members:
            unsaved = not all(path.exists() for path in files.get(clip.id, []))
            missing = [n for n in order if (group, n, clip.id) not in records or (n == main and unsaved)]
            if missing:
                todo.append((group, clip, missing))
    state.wait_for_everyone()  # All have to see the same, before anybody writes.
    with state.split_between_processes(todo) as share:
        systems = _build(main, system, {name for *_, missing in share for name in missing}, dataset, skeleton)
        shard = output / f"clips.{state.process_index:03d}.jsonl"
        progress = track(share, "clips", console=Console(stderr=True), disable=not state.is_main_process)
        for group, clip, missing in progress:
            for name in missing:
                scores = evaluation.evaluate_clip(systems[name], clip)
                if name == main:
                    _save(systems[main](clip), files.get(clip.id, []))
                with shard.open("a") as file:
                    file.write(_line(group, name, scores))
    state.wait_for_everyone()
    if state.is_main_process:
        records = _merge(output)
        summaries = {name: _summary(name, members, order, records) for name, members in clips.items()}
        results = {"settings": settings, "limit": limit, "splits": summaries}
        write_text(output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        write_text(output / "results.md", _markdown(results))
        _print(results, output, state.num_processes)
    state.wait_for_everyone()


def _build(main: str, system: System, needed: set[str], dataset: str, skeleton: Skeleton | None) -> dict[str, System]:
    # What the latest clip gave is kept: it is scored, smoothed and saved.
    latest = lru_cache(maxsize=1)(system)
    smoothed = evaluation.smoothed(latest, SIGMA_FRAMES)
    systems = {main: latest, "smoothed": smoothed, "ground_truth": evaluation.ground_truth}
    if {"mean_pose", "nearest"} & needed:
        train = _read_clips(dataset, "train", skeleton)
        systems["mean_pose"] = evaluation.mean_pose(train)
        if "nearest" in needed:
            systems["nearest"] = evaluation.NearestNeighbour(train)
    return systems


def listed(names: str, option: str) -> list[str]:
    """The names that an option gives with commas between."""
    found = [name.strip() for name in names.split(",")]
    if not all(found) or len(set(found)) != len(found):
        raise ValueError(f"{option} is {names!r}; give different names with commas between.")
    return found


def _check_train(dataset: str) -> None:
    if is_mocap_pack(dataset) and not any(Path(dataset).glob("*_train.parquet")):
        raise FileNotFoundError(f"{dataset} holds no *_train.parquet, which mean_pose and nearest are made from.")
    if not is_mocap_pack(dataset):
        load_motions(dataset, "train")


def _read_clips(dataset: str, split: str, skeleton: Skeleton | None, limit: int | None = None) -> list[Clip]:
    if skeleton is not None and (
        is_mocap_pack(dataset) or skeleton.name not in load_motions(dataset, split)["skeleton"]
    ):
        skeleton = None  # it is the predictions' body, not the recordings'
    clips = load_clips(dataset, split, skeleton=skeleton)
    if not clips:
        raise ValueError(f"The split {split} of {dataset} holds heads and no bodies to score against.")
    count = min(limit or len(clips), len(clips))
    clips = [clips[i * len(clips) // count] for i in range(count)]
    # A clip that is too short goes through, to be named by the check that refuses it.
    other_rate = lambda clip: len(clip.motion) >= MIN_FRAMES and abs(clip.motion.fps - FPS) > 1e-3  # noqa: E731
    return [replace(c, motion=resample(c.motion, FPS)) if other_rate(c) else c for c in clips]


def _system_settings(checkpoint: str, system: PipelineSystem | RecordedMotions, folder: Path | None) -> dict[str, Any]:
    """With those of `_common_settings`, everything that the numbers depend on."""
    if folder is not None:
        unknown = dict.fromkeys(("num_inference_steps", "eta", "guidance"), "as recorded")
        return {"motions": folder.resolve().name, "motions_sha256": _sha256(folder.rglob("*.npz")), **unknown}
    pipeline, scheduler = system.pipeline, system.pipeline.scheduler
    return {
        "checkpoint": checkpoint,
        "weights_sha256": _sha256(Path(pipeline.denoiser.config._name_or_path).glob("*.safetensors")),
        "num_inference_steps": system.num_inference_steps or pipeline.config.num_inference_steps,
        "eta": scheduler.config.get("eta") if system.eta is None else system.eta,
        "guidance": "none",
        "scheduler": type(scheduler).__name__,
        "timestep_spacing": scheduler.config.get("timestep_spacing"),
        "window_frames": pipeline.config.window,
        "overlap_frames": pipeline.config.overlap,
        "stitching": pipeline.config.stitching,
        "seeds": list(system.seeds),
        "device": pipeline.device.type,
    }


def dataset_settings(dataset: str) -> dict[str, str]:
    """What tells a data set from others, without where it lies."""
    folder = Path(dataset)
    if folder.is_dir():
        files = folder.glob("*.parquet" if is_mocap_pack(folder) else "*/*.parquet")
        return {"dataset": folder.resolve().name, "dataset_sha256": _sha256(files)}
    return {"dataset": dataset, "dataset_revision": str(datasets.load_dataset_builder(dataset).hash)}


def _common_settings(dataset: str, skeleton: Skeleton | None) -> dict[str, Any]:
    return {
        **dataset_settings(dataset),
        "fps": FPS,
        "joints": "22: SMPL-H root and body joints, no fingers (MPJRE: the 21 body joints)",
        "alignment": "none, world frame (PA metrics: similarity alignment of every frame)",
        "betas": "predicted",
        "body_of_prediction": (skeleton or Skeleton.default()).name,
        "condition": "true central pupil frame of the whole clip, floor at z = 0",
        "sums": "metrics in metres are sums over a clip",
        "mean": "over clips, each the mean of its samples and counted once however long it is",
        "interval": "95%, percentile bootstrap over clips with all their samples, 2000 resamples, seed 0",
        "smoothing": f"Gaussian over time, sigma {SIGMA_FRAMES} frames",
        "versions": {module.__name__: module.__version__ for module in (motion_grpo, torch, diffusers)},
    }


def _sha256(files: Iterable[Path]) -> str:
    """Of the contents of one file, or of several in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _prepare(output: Path, settings: dict[str, Any]) -> None:
    """Refuses a folder of other settings, and cuts off lines that an interrupted run has left unfinished."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "settings.json"
    if path.exists():
        there = json.loads(path.read_text())
        differing = [key for key in {**there, **settings} if there.get(key) != settings.get(key)]
        if differing:
            changes = "; ".join(f"{key} {there.get(key)} there, {settings.get(key)} now" for key in differing)
            raise ValueError(f"{output} holds results of other settings ({changes}); choose another --output.")
    write_text(path, json.dumps(settings, indent=1) + "\n")
    for shard in output.glob("clips*.jsonl"):
        text = shard.read_text()
        if text and not text.endswith("\n"):
            write_text(shard, text[: text.rfind("\n") + 1])


def _line(split: str, system: str, scores: ClipScores) -> str:
    return json.dumps({"split": split, "system": system, **asdict(scores)}) + "\n"


def _read_records(output: Path) -> dict[Key, ClipScores]:
    records = {}
    for shard in sorted(output.glob("clips*.jsonl")):
        for number, line in enumerate(shard.read_text().splitlines(), 1):
            try:
                row = json.loads(line)
                key = row.pop("split"), row.pop("system"), row["clip"]
                records[key] = ClipScores(**row)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{shard}, line {number}, is no result of this command; delete the line.") from error
    return records


def _merge(output: Path) -> dict[Key, ClipScores]:
    """Puts what all processes and earlier runs have recorded into one file, sorted."""
    records = dict(sorted(_read_records(output).items()))
    write_text(
        output / "clips.jsonl", "".join(_line(split, system, row) for (split, system, _), row in records.items())
    )
    for shard in output.glob("clips.*.jsonl"):
        shard.unlink()
    return records


def _save(motions: list[Motion], paths: list[Path]) -> None:
    for motion, path in zip(motions, paths, strict=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        motion.save(path)


def _summary(split: str, clips: list[Clip], order: list[str], records: dict[Key, ClipScores]) -> dict[str, Any]:
    systems = {}
    for name in order:
        scores = [records[split, name, clip.id] for clip in clips]
        metrics = {metric: asdict(estimate) for metric, estimate in evaluation.summarize(scores).items()}
        systems[name] = {"samples_per_clip": len(scores[0].metrics["mpjpe"]), "metrics": metrics}
    return {"clips": len(clips), "frames": sum(len(clip.motion) for clip in clips), "systems": systems}


def _rows(systems: dict[str, Any]) -> Iterator[list[str]]:
    """Metric, unit, and what each system scores."""
    for metric, first in next(iter(systems.values()))["metrics"].items():
        estimates = [system["metrics"][metric] for system in systems.values()]
        rounded = [[round(estimate[key], 4) for key in ("mean", "lo", "hi")] for estimate in estimates]
        yield [metric, first["unit"], *(f"{mean:.4g} [{lo:.4g}, {hi:.4g}]" for mean, lo, hi in rounded)]


def _heading(split: str, summary: dict[str, Any], settings: dict[str, Any]) -> str:
    samples = ", ".join(f"{system['samples_per_clip']} {name}" for name, system in summary["systems"].items())
    return (
        f"{split}: {summary['clips']} clips, {summary['frames']} frames at {settings['fps']:g} fps; 22 joints (no "
        f"fingers), world frame, not aligned; steps {settings['num_inference_steps']}, eta {settings['eta']}, guidance "
        f"{settings['guidance']}. Samples a clip: {samples}. Mean over clips [95% interval]; in m: sum over a clip."
    )


def _markdown(results: dict[str, Any]) -> str:
    lines = []
    for split, summary in results["splits"].items():
        columns = ["metric", "unit", *summary["systems"]]
        table = [columns, ["---"] * len(columns), *_rows(summary["systems"])]
        lines += [_heading(split, summary, results["settings"]), "", *(f"| {' | '.join(row)} |" for row in table), ""]
    return "\n".join([*lines, *(f"- {key}: {value}" for key, value in results["settings"].items()), ""])


def _print(results: dict[str, Any], output: Path, processes: int) -> None:
    console = Console()
    for split, summary in results["splits"].items():
        table = Table(Column("metric", no_wrap=True), "unit", *summary["systems"])
        for row in _rows(summary["systems"]):
            table.add_row(*(escape(cell.replace(" [", "\n[")) for cell in row))
        console.print(_heading(split, summary, results["settings"]), markup=False, highlight=False)
        console.print(table)
    console.print(f"{processes} process(es) wrote {output / 'results.json'}, results.md, clips.jsonl", markup=False)


if __name__ == "__main__":
    try:
        typer.run(evaluate)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate: {error}")
