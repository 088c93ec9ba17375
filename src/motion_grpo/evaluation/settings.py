"""Everything that the numbers of an evaluation depend on, as ``settings.json`` and ``results.json`` state it."""

from pathlib import Path
from typing import Any

import diffusers
import torch

import motion_grpo
from motion_grpo.body import Skeleton
from motion_grpo.evaluation.baselines import SIGMA_FRAMES
from motion_grpo.evaluation.clips import PipelineSystem
from motion_grpo.evaluation.recorded import RecordedMotions
from motion_grpo.evaluation.runs import EvaluationSet
from motion_grpo.motion import FPS
from motion_grpo.provenance import dataset_facts, sha256_of, weights_digest


def settings_of(recordings: EvaluationSet, system: PipelineSystem | RecordedMotions, name: str) -> dict[str, Any]:
    """The settings of an evaluation.

    Args:
        recordings: what is scored against.
        system: what is evaluated.
        name: the checkpoint as it was asked for, or whose motions the recorded ones are.
    """
    of_system = _of_pipeline(system, name) if isinstance(system, PipelineSystem) else _of_files(system, name)
    return of_system | _of_recordings(recordings)


def _of_files(system: RecordedMotions, name: str) -> dict[str, Any]:
    unknown = dict.fromkeys(("num_inference_steps", "eta", "guidance"), "as recorded")
    folder = system.folder
    return {
        "system": name, "motions": folder.resolve().name, "motions_sha256": sha256_of(folder.rglob("*.npz")), **unknown
    }  # fmt: skip


def _of_pipeline(system: PipelineSystem, checkpoint: str) -> dict[str, Any]:
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
        "neck_low_pass": pipeline.config.get("neck_low_pass", 0.0),
        "seeds": list(system.seeds),
        "device": pipeline.device.type,
    }


def _of_recordings(recordings: EvaluationSet) -> dict[str, Any]:
    window = recordings.window
    part, parts = ("clip", "clips") if window is None else ("window", "windows")
    mode = "whole clips" if window is None else f"windows of {window} frames that do not overlap"
    return {
        **dataset_facts(recordings.dataset),
        "mode": mode,
        "window": window,
        "fps": FPS,
        "joints": "22: SMPL-H root and body joints, no fingers (MPJRE: the 21 body joints)",
        "alignment": "none, world frame (PA metrics: similarity alignment of every frame)",
        "betas": "predicted",
        "body_of_prediction": (recordings.skeleton or Skeleton.default()).name,
        "condition": f"true central pupil frame of the {'whole clip' if window is None else 'window alone'}",
        "floor": "of the recording: the clip stands on its own floor_height",
        "sums": f"metrics in meters are sums over a {part}",
        "mean": f"over {parts}, each the mean of its samples and counted once{' however long it is' * (not window)}",
        "interval": f"95%, percentile bootstrap over clips with all their samples{' and windows' * bool(window)}, 2000 "
        "resamples, seed 0",
        "smoothing": f"Gaussian over time, sigma {SIGMA_FRAMES} frames",
        "versions": {module.__name__: module.__version__ for module in (motion_grpo, torch, diffusers)},
    }
