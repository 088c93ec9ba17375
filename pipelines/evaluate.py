"""Scores a checkpoint, baselines or any motion files: ``motion-grpo evaluate --dataset DATA --output results``.

Several processes share the clips: ``accelerate launch pipelines/evaluate.py ...`` with GPUs, without (where accelerate
starts only one) ``torchrun --nproc_per_node 8 pipelines/evaluate.py ...``. An interrupted run goes on where it stopped.
What the output folder holds: :mod:`motion_grpo.evaluation.runs`.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import torch
import typer
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from motion_grpo.cli.evaluation_options import Dataset, Limit, Split, listed
from motion_grpo.cli.sampling_options import Eta, GuidanceFloor, GuidanceInner, Steps, Temperature, guidance_settings
from rich.console import Console

from motion_grpo import EgoMotionPipeline, GuidanceConfig, Skeleton
from motion_grpo.evaluation import MIN_FRAMES, PipelineSystem, RecordedMotions
from motion_grpo.evaluation.report import show
from motion_grpo.evaluation.runs import BASELINES, EvaluationRun, EvaluationSet, check_baselines
from motion_grpo.evaluation.settings import settings_of

MODEL = "model"


def evaluate(
    dataset: Dataset,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results; a run there is resumed.")],
    checkpoint: Annotated[str, typer.Argument(help="Folder, Hub id, or the name of a shipped checkpoint.")] = "base",
    split: Split = "id_test,test",
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
    limit: Limit = None,
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
    check_baselines(chosen, dataset)
    _check_recorded(metrics_only, name, guidance, save_motions)
    settings_of_guidance = _guidance(guidance, guidance_inner, guidance_floor)
    skeleton = Skeleton.from_smplh(smplh) if smplh else None
    recordings = EvaluationSet.read(dataset, splits, skeleton, limit, window)
    if metrics_only is None:
        pipeline = EgoMotionPipeline.from_pretrained(checkpoint).to(state.device)
        pipeline.skeleton = skeleton or pipeline.skeleton
        system = PipelineSystem(pipeline, range(seeds), steps, eta, temperature, settings_of_guidance)
        shown, source = MODEL, checkpoint
    else:
        system = RecordedMotions(metrics_only, recordings.all_clips, skeleton)
        shown, source = name or "recorded", name or "not stated"
    settings = settings_of(recordings, system, source) if state.is_main_process else {}
    folders = tuple(save_motions / f"seed{seed}" for seed in range(seeds)) if save_motions else ()
    run = EvaluationRun(output, recordings, system, shown, tuple(chosen), folders)
    if (results := run.run(settings, state)) is not None:
        console = Console()
        show(console, results)
        written = f"{output / 'results.json'}, results.md, clips.jsonl"
        console.print(f"{state.num_processes} process(es) wrote {written}", markup=False)


def _guidance(mode: str | None, inner: bool, floor: bool) -> GuidanceConfig | str | None:
    settings = guidance_settings(mode, inner, floor)
    if isinstance(settings, GuidanceConfig) and settings.uses_hands:
        raise ValueError(f"--guidance is {mode}: the clips of a data set say nothing of seen hands; use no_hands.")
    return settings


def _check_recorded(
    metrics_only: Path | None, name: str | None, guidance: str | None, save_motions: Path | None
) -> None:
    """Refuses options that do not go together with motions from files, or not without."""
    if metrics_only is None:
        if name is not None:
            raise ValueError(
                f"--name {name} names the system whose motions --metrics-only scores; give both or neither."
            )
        return
    if save_motions:
        raise ValueError("--metrics-only draws no motions that --save-motions could save; leave out one of the two.")
    if guidance is not None:
        raise ValueError(
            "--guidance optimizes what a checkpoint draws, and --metrics-only draws nothing; leave one out."
        )
    if name is not None and (not name.strip() or "|" in name or name in (MODEL, *BASELINES)):
        raise ValueError(f"--name is {name!r}; choose one that is not empty, without |, and not a baseline's or model.")


if __name__ == "__main__":
    try:
        typer.run(evaluate)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate: {error}")
