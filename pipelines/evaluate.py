"""Scores a checkpoint, baselines or any motion files: ``motion-grpo evaluate --dataset DATA --output results``.

Several processes share the clips: ``accelerate launch pipelines/evaluate.py ...`` with GPUs, without (where accelerate
starts only one) ``torchrun --nproc_per_node 8 pipelines/evaluate.py ...``. An interrupted run goes on where it stopped.
The output folder holds ``results.json`` and ``results.md`` (means, intervals, by source and by content),
``clips.jsonl`` (clips and samples), ``settings.json`` (what the numbers depend on, written once) and ``sessions.jsonl``
(when the command was run, and by which code).
"""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import diffusers
import torch
import typer
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from motion_grpo.cli.sampling_options import Eta, GuidanceFloor, GuidanceInner, Steps, Temperature, guidance_settings
from rich.console import Console
from rich.progress import track

import motion_grpo
from motion_grpo import EgoMotionPipeline, GuidanceConfig, Motion, Skeleton, evaluation
from motion_grpo.data import Clip, is_mocap_pack, load_motions
from motion_grpo.evaluation import (
    MIN_FRAMES,
    ClipScores,
    ClipWindow,
    PipelineSystem,
    RecordedMotions,
    System,
    clip_name,
    read_clips,
    windows_of,
)
from motion_grpo.evaluation.report import markdown, show
from motion_grpo.files import write_text
from motion_grpo.motion import FPS
from motion_grpo.provenance import code_version, dataset_facts, sha256_of, weights_digest

BASELINES = ("mean_pose", "nearest", "upright", "smoothed", "ground_truth")
SIGMA_FRAMES = 2.0
MODEL, NOT_STATED = "model", "(not stated)"
Key = tuple[str, str, str, str]  # split, system, source, clip


def evaluate(
    dataset: Annotated[str, typer.Option(help="Data set of `motion-grpo data` (folder or Hub id), or a pack.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results; a run there is resumed.")],
    checkpoint: Annotated[str, typer.Argument(help="Folder, Hub id, or the name of a shipped checkpoint.")] = "base",
    split: Annotated[str, typer.Option(help="One or more, with commas between.")] = "id_test,test",
    seeds: Annotated[
        int, typer.Option("--num-samples", "--seeds", min=1, help="Samples a clip, of the seeds 0, 1, ...")
    ] = 5,
    steps: Steps = None,
    eta: Eta = None,
    guidance: Annotated[
        str | None, typer.Option(help="Optimize each sample: no_hands, or off; the checkpoint's own by default.")
    ] = None,
    guidance_inner: GuidanceInner = False,
    guidance_floor: GuidanceFloor = False,
    temperature: Temperature = 1.0,
    baselines: Annotated[str, typer.Option(help=f"To compare with: {','.join(BASELINES)}.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many clips a split, evenly spread.")] = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=MIN_FRAMES, help="Evaluate windows of so many frames that do not overlap (EgoAllo, the paper: 128)."
        ),
    ] = None,
    save_motions: Annotated[
        Path | None, typer.Option(help="Folder to save the motions in: seedN/SOURCE/CLIP.npz.")
    ] = None,
    metrics_only: Annotated[
        Path | None,
        typer.Option(help="Score the motions in this folder (SOURCE/CLIP.npz, AMASS layout), no checkpoint."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="With --metrics-only: whose motions these are, in the report.")
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
    _check_name(name, metrics_only)
    settings_of_guidance = _guidance(guidance, guidance_inner, guidance_floor, metrics_only)
    skeleton = Skeleton.from_smplh(smplh) if smplh else None
    whole = {part: read_clips(dataset, part, skeleton, limit) for part in splits}
    clips = whole if window is None else _cut(whole, window)
    if metrics_only is None:
        pipeline = EgoMotionPipeline.from_pretrained(checkpoint).to(state.device)
        pipeline.skeleton = skeleton or pipeline.skeleton
        main = MODEL
        system = PipelineSystem(pipeline, range(seeds), steps, eta, temperature, settings_of_guidance)
    else:
        main, system = name or "recorded", RecordedMotions(metrics_only, chain.from_iterable(clips.values()), skeleton)

    settings: dict[str, Any] = {}
    if state.is_main_process:
        settings = _system_settings(checkpoint, system, metrics_only, name)
        settings |= _common_settings(dataset, skeleton, window)
        _prepare(output, settings, state.num_processes)
    state.wait_for_everyone()
    records, order = _read_records(output), [main, *chosen]
    files: dict[str, list[Path]] = {}
    if save_motions:
        folders = [save_motions / f"seed{seed}" for seed in range(seeds)]
        names = _file_names(chain.from_iterable(clips.values()))
        files = {file: [folder / f"{file}.npz" for folder in folders] for file in names}
    todo = []
    for group, members in clips.items():
        for clip in members:
            unsaved = not all(path.exists() for path in files.get(clip_name(clip), []))
            missing = [n for n in order if _key(group, n, clip) not in records or (n == main and unsaved)]
            if missing:
                todo.append((group, clip, missing))
    state.wait_for_everyone()  # All have to see the same, before anybody writes.
    with state.split_between_processes(todo) as share:
        systems = _build(main, system, {which for *_, missing in share for which in missing}, dataset, skeleton)
        shard = output / f"clips.{state.process_index:03d}.jsonl"
        progress = track(share, "clips", console=Console(stderr=True), disable=not state.is_main_process)
        for group, clip, missing in progress:
            for which in missing:
                scores = evaluation.evaluate_clip(systems[which], clip)
                if which == main:
                    _save(systems[main](clip), files.get(clip_name(clip), []))
                with shard.open("a") as file:
                    file.write(_line(group, which, scores))
    state.wait_for_everyone()
    if state.is_main_process:
        records = _merge(output)
        summaries = {part: _summary(part, members, whole[part], order, records) for part, members in clips.items()}
        results = {"settings": settings, "code": _codes(output), "limit": limit, "splits": summaries}
        write_text(output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        write_text(output / "results.md", markdown(results))
        console = Console()
        show(console, results)
        written = f"{output / 'results.json'}, results.md, clips.jsonl"
        console.print(f"{state.num_processes} process(es) wrote {written}", markup=False)
    state.wait_for_everyone()


def _build(main: str, system: System, needed: set[str], dataset: str, skeleton: Skeleton | None) -> dict[str, System]:
    # What the latest clip gave is kept: it is scored, smoothed and saved.
    latest = lru_cache(maxsize=1)(system)
    smoothed = evaluation.smoothed(latest, SIGMA_FRAMES)
    systems = {main: latest, "upright": evaluation.upright, "smoothed": smoothed}
    systems["ground_truth"] = evaluation.ground_truth
    if {"mean_pose", "nearest"} & needed:
        train = read_clips(dataset, "train", skeleton)
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


def _guidance(mode: str | None, inner: bool, floor: bool, metrics_only: Path | None) -> GuidanceConfig | str | None:
    settings = guidance_settings(mode, inner, floor)
    if settings is not None and metrics_only:
        raise ValueError(
            "--guidance optimizes what a checkpoint draws, and --metrics-only draws nothing; leave one out."
        )
    if isinstance(settings, GuidanceConfig) and settings.uses_hands:
        raise ValueError(f"--guidance is {mode}: the clips of a data set say nothing of seen hands; use no_hands.")
    return settings


def _check_train(dataset: str) -> None:
    if is_mocap_pack(dataset) and not any(Path(dataset).glob("*_train.parquet")):
        raise FileNotFoundError(f"{dataset} holds no *_train.parquet, which mean_pose and nearest are made from.")
    if not is_mocap_pack(dataset):
        load_motions(dataset, "train")


def _cut(clips: dict[str, list[Clip]], window: int) -> dict[str, list[Clip]]:
    windows = {name: [part for clip in members for part in windows_of(clip, window)] for name, members in clips.items()}
    for name, members in windows.items():
        if not members:
            longest = max(len(clip.motion) for clip in clips[name])
            raise ValueError(
                f"--window is {window} frames, and no clip of the split {name} has so many (the longest has "
                f"{longest}); choose a shorter window, or leave it out to evaluate whole clips."
            )
    return windows


def _system_settings(
    checkpoint: str, system: PipelineSystem | RecordedMotions, folder: Path | None, name: str | None
) -> dict[str, Any]:
    """With those of `_common_settings`, everything that the numbers depend on."""
    if folder is not None:
        unknown = dict.fromkeys(("num_inference_steps", "eta", "guidance"), "as recorded")
        motions = {"motions": folder.resolve().name, "motions_sha256": sha256_of(folder.rglob("*.npz"))}
        return {"system": name or "not stated"} | motions | unknown
    pipeline, scheduler = system.pipeline, system.pipeline.scheduler
    return {
        "checkpoint": checkpoint,
        "weights_sha256": weights_digest(Path(pipeline.denoiser.config["_name_or_path"])),
        "num_inference_steps": system.num_inference_steps or pipeline.config.num_inference_steps,
        "eta": scheduler.config.get("eta") if system.eta is None else system.eta,
        "temperature": system.temperature,
        "guidance": "none" if system.used_guidance is None else str(system.used_guidance),
        "scheduler": type(scheduler).__name__,
        "timestep_spacing": scheduler.config.get("timestep_spacing"),
        "window_frames": pipeline.config.window,
        "overlap_frames": pipeline.config.overlap,
        "stitching": pipeline.config.stitching,
        "seeds": list(system.seeds),
        "device": pipeline.device.type,
    }


def _common_settings(dataset: str, skeleton: Skeleton | None, window: int | None) -> dict[str, Any]:
    part, parts = ("clip", "clips") if window is None else ("window", "windows")
    mode = "whole clips"
    if window is not None:
        mode = f"windows of {window} frames that do not overlap"
    return {
        **dataset_facts(dataset),
        "mode": mode,
        "window": window,
        "fps": FPS,
        "joints": "22: SMPL-H root and body joints, no fingers (MPJRE: the 21 body joints)",
        "alignment": "none, world frame (PA metrics: similarity alignment of every frame)",
        "betas": "predicted",
        "body_of_prediction": (skeleton or Skeleton.default()).name,
        "condition": f"true central pupil frame of the {'whole clip' if window is None else 'window alone'}",
        "floor": "of the recording: the clip stands on its own floor_height",
        "sums": f"metrics in meters are sums over a {part}",
        "mean": f"over {parts}, each the mean of its samples and counted once{' however long it is' * (not window)}",
        "interval": f"95%, percentile bootstrap over clips with all their samples{' and windows' * bool(window)}, 2000 "
        "resamples, seed 0",
        "smoothing": f"Gaussian over time, sigma {SIGMA_FRAMES} frames",
        "versions": {module.__name__: module.__version__ for module in (motion_grpo, torch, diffusers)},
    }


def _prepare(output: Path, settings: dict[str, Any], processes: int) -> None:
    """Refuses a folder of other settings, and cuts off lines that an interrupted run has left unfinished.

    Settings are written once, when a run starts, with the code that it started with; every session adds a line.
    """
    output.mkdir(parents=True, exist_ok=True)
    path, code = output / "settings.json", code_version()
    if path.exists():
        there = json.loads(path.read_text())
        there.pop("code", None)  # a later session may be of other code, which its line says
        differing = [key for key in {**there, **settings} if there.get(key) != settings.get(key)]
        if differing:
            changes = "; ".join(f"{key} {there.get(key)} there, {settings.get(key)} now" for key in differing)
            raise ValueError(f"{output} holds results of other settings ({changes}); choose another --output.")
    else:
        write_text(path, json.dumps(settings | {"code": code}, indent=1) + "\n")
    sessions = output / "sessions.jsonl"
    session = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "code": code, "num_processes": processes}
    before = sessions.read_text() if sessions.exists() else ""
    write_text(sessions, before + json.dumps(session) + "\n")
    for shard in output.glob("clips*.jsonl"):
        text = shard.read_text()
        if text and not text.endswith("\n"):
            write_text(shard, text[: text.rfind("\n") + 1])


def _codes(output: Path) -> list[dict[str, str]]:
    """The code of all sessions, each once."""
    codes = [json.loads(line)["code"] for line in (output / "sessions.jsonl").read_text().splitlines()]
    return [code for number, code in enumerate(codes) if code not in codes[:number]]


def _key(split: str, system: str, clip: Clip) -> Key:
    return split, system, clip.source, clip.id


def _check_name(name: str | None, metrics_only: Path | None) -> None:
    if name is None:
        return
    if metrics_only is None:
        raise ValueError(f"--name {name} names the system whose motions --metrics-only scores; give both or neither.")
    if not name.strip() or "|" in name or name in (MODEL, *BASELINES):
        raise ValueError(f"--name is {name!r}; choose one that is not empty, without |, and not a baseline's or model.")


def _file_names(clips: Iterable[Clip]) -> list[str]:
    """Relative paths of the clips' motions, without the suffix.

    Raises:
        ValueError: an id that would lead out of the folder, or two clips of one file.
    """
    names = []
    for clip in clips:
        name = clip_name(clip)
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"Clip {clip.id} of {clip.source} would be saved outside of --save-motions; rename it.")
        names.append(name)
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise ValueError(f"Two clips would be saved as {twice}.npz; evaluate their splits one by one.")
    return names


def _line(split: str, system: str, scores: ClipScores) -> str:
    return json.dumps({"split": split, "system": system, **asdict(scores)}) + "\n"


def _read_records(output: Path) -> dict[Key, ClipScores]:
    records = {}
    for shard in sorted(output.glob("clips*.jsonl")):
        for number, line in enumerate(shard.read_text().splitlines(), 1):
            try:
                row = json.loads(line)
                key = row.pop("split"), row.pop("system"), row["source"], row["clip"]
                records[key] = ClipScores(**row)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{shard}, line {number}, is no result of this command; delete the line.") from error
    return records


def _merge(output: Path) -> dict[Key, ClipScores]:
    """Puts what all processes and earlier runs have recorded into one file, sorted."""
    records = dict(sorted(_read_records(output).items()))
    write_text(
        output / "clips.jsonl", "".join(_line(split, system, row) for (split, system, *_), row in records.items())
    )
    for shard in output.glob("clips.*.jsonl"):
        shard.unlink()
    return records


def _save(motions: list[Motion], paths: list[Path]) -> None:
    for motion, path in zip(motions, paths, strict=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        motion.save(path)


def _summary(
    split: str, clips: list[Clip], whole: list[Clip], order: list[str], records: dict[Key, ClipScores]
) -> dict[str, Any]:
    """Of the clips of a split, or of their windows: sizes, every system, and the same by source and by content."""

    def of(members: list[Clip]) -> dict[str, Any]:
        systems, clusters = {}, [_whole(clip) for clip in members]
        for name in order:
            scores = [records[_key(split, name, clip)] for clip in members]
            metrics = {m: asdict(estimate) for m, estimate in evaluation.summarize(scores, clusters).items()}
            systems[name] = {"samples_per_clip": len(scores[0].metrics["mpjpe"]), "metrics": metrics}
        size = {"clips": len(set(clusters)), "frames": sum(len(clip.motion) for clip in members)}
        if isinstance(members[0], ClipWindow):
            size["windows"] = len(members)
        return size | {"systems": systems}

    summary, clusters = of(clips), [_whole(clip) for clip in clips]
    for name, system in summary["systems"].items():
        samples = evaluation.summarize_samples([records[_key(split, name, clip)] for clip in clips], clusters)
        system["samples"] = None if samples is None else asdict(samples)
    if isinstance(clips[0], ClipWindow):
        summary["frames_left_out"] = sum(len(clip.motion) for clip in whole) - summary["frames"]
        summary["clips_left_out"] = len(whole) - summary["clips"]
    summary["by"] = {}
    labels: dict[str, Callable[[Clip], str]] = {
        "source": lambda c: c.source,
        "content": lambda c: c.content or NOT_STATED,
    }
    for kind, label in labels.items():
        names = sorted({label(clip) for clip in clips})
        if len(names) > 1 or (kind == "content" and names != [NOT_STATED]):
            summary["by"][kind] = {name: of([clip for clip in clips if label(clip) == name]) for name in names}
    return summary


def _whole(clip: Clip) -> tuple[str, str]:
    """Of a window the clip that it was cut from, which its other windows are much like."""
    return clip.source, clip.clip_id if isinstance(clip, ClipWindow) else clip.id


if __name__ == "__main__":
    try:
        typer.run(evaluate)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate: {error}")
