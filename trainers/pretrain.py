"""Trains the denoiser on recorded motion.

    accelerate launch trainers/pretrain.py --config configs/pretrain_small.yaml --dataset_name DIR --output_dir runs/a
    accelerate launch trainers/pretrain.py --config configs/pretrain_egoallo.yaml --dataset_name DIR --output_dir runs/b

Add ``--resume`` to go on from the newest checkpoint in the output folder.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl import TrlParser

from motion_grpo import EgoMotionPipeline, Skeleton
from motion_grpo.data import Clip, MotionWindows, StreamedWindows, is_mocap_pack, load_clips, load_motions, resample
from motion_grpo.files import write_text
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training import DenoisingConfig, DenoisingTrainer
from motion_grpo.viz.curves import plot_training_log


@dataclass
class DataArguments:
    """Which recordings to train on."""

    dataset_name: str = field(metadata={"help": "Data set of `motion-grpo data` (folder or Hub id), or a pack."})
    sources: list[str] | None = field(
        default=None, metadata={"help": "Only these data sets, e.g. cmu; all by default."}
    )
    speeds: list[float] = field(
        default_factory=lambda: [1.0], metadata={"help": "Every clip is also played this many times as fast."}
    )
    smplh: str | None = field(
        default=None,
        metadata={"help": "SMPL-H model.npz that the data set was imported with; the default body if unset."},
    )
    streaming: bool = field(default=False, metadata={"help": "Read a data set while training; needs max_steps."})
    eval_clips: int = field(default=48, metadata={"help": "Clips of the validation split, evenly spread."})


@dataclass
class ModelArguments:
    """The denoiser, and how it samples once it is trained."""

    model_config: dict = field(default_factory=dict, metadata={"help": "Arguments of EgoMotionDenoiser, in the YAML."})
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Pipeline to fine-tune; new weights if unset."}
    )
    num_inference_steps: int = field(
        default=30, metadata={"help": "Sampling steps that the saved pipeline defaults to."}
    )
    eta: float = field(default=0.0, metadata={"help": "Stochasticity that the saved pipeline defaults to."})
    timestep_spacing: str = field(default="quadratic", metadata={"help": "quadratic, leading or trailing."})
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in output_dir."})


def skeleton(data: DataArguments) -> Skeleton | None:
    """The body that the data set's betas refer to."""
    return Skeleton.from_smplh(data.smplh) if data.smplh else None


def train_windows(data: DataArguments, length: int, seed: int) -> MotionWindows | StreamedWindows:
    """Windows of the train split: of clips in memory at every speed asked for, or of rows that stay on disk."""
    body = skeleton(data)
    original = data.speeds == [1.0]
    if data.streaming:
        if not original:
            raise ValueError("speeds needs the clips in memory; leave it at [1.0] with streaming.")
        rows = load_motions(data.dataset_name, "train", sources=data.sources, streaming=True)
        return StreamedWindows(rows, length, seed=seed, skeleton=body)
    if original and not is_mocap_pack(data.dataset_name):
        rows = load_motions(data.dataset_name, "train", sources=data.sources)
        return MotionWindows(rows, length, seed=seed, skeleton=body)
    clips = load_clips(data.dataset_name, "train", sources=data.sources, skeleton=body)
    faster = [
        replace(clip, id=f"{clip.id}@{speed}", motion=resample(clip.motion, 30.0, speed))
        for speed in data.speeds
        if speed != 1.0
        for clip in clips
    ]
    return MotionWindows(clips + faster, length, seed=seed)


def val_clips(data: DataArguments) -> list[Clip]:
    """Clips to evaluate on."""
    limit = data.eval_clips
    return load_clips(data.dataset_name, "val", sources=data.sources, limit=limit, skeleton=skeleton(data))


def main() -> None:
    """Parses, builds, trains, saves."""
    data, model_args, args = TrlParser((DataArguments, ModelArguments, DenoisingConfig)).parse_args_and_config()
    set_seed(args.seed)
    if model_args.model_name_or_path is None:
        denoiser = EgoMotionDenoiser(**model_args.model_config)
    else:
        denoiser = EgoMotionPipeline.from_pretrained(model_args.model_name_or_path).denoiser
    trainer = DenoisingTrainer(
        denoiser,
        args,
        train_windows(data, args.window, args.seed),
        val_clips(data) if args.eval_strategy != "no" else None,
        skeleton=skeleton(data),
    )
    if model_args.model_name_or_path is None:
        trainer.fit_condition_statistics()
    checkpoint = get_last_checkpoint(args.output_dir) if model_args.resume and Path(args.output_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)

    if trainer.is_world_process_zero():
        output = Path(args.output_dir)
        trainer.ema.copy_to(denoiser.parameters())
        scheduler = EgoMotionSDEScheduler(timestep_spacing=model_args.timestep_spacing, eta=model_args.eta)
        pipeline = EgoMotionPipeline(
            denoiser, scheduler, model_args.num_inference_steps, window=args.window, overlap=args.window // 4
        )
        pipeline.save_pretrained(output / "pipeline")
        write_text(output / "training_log.json", json.dumps(trainer.state.log_history, indent=1))
        plot_training_log(trainer.state.log_history, output / "training_curves.png")
        recorded = {"data": asdict(data), "model": asdict(model_args), "torch": torch.__version__}
        write_text(output / "run.json", json.dumps(recorded, indent=1))


if __name__ == "__main__":
    main()
