"""Trains the denoiser on recorded motion.

    accelerate launch trainers/pretrain.py --config configs/pretrain_small.yaml --dataset_name DIR --output_dir runs/a
    accelerate launch trainers/pretrain.py --config configs/pretrain_egoallo.yaml --dataset_name DIR --output_dir runs/b

Add ``--resume`` to go on from the newest checkpoint in the output folder.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dataset_arguments import DataArguments, skeleton, train_windows, val_clips
from transformers import set_seed
from trl import TrlParser

from motion_grpo import EgoMotionPipeline
from motion_grpo.cards import record_run
from motion_grpo.files import write_text
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training import DenoisingConfig, DenoisingTrainer
from motion_grpo.training.saving import newest_checkpoint
from motion_grpo.viz.curves import plot_training_log


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
    record_run(args, data=asdict(data), model=asdict(model_args))
    trainer.train(resume_from_checkpoint=newest_checkpoint(args.output_dir) if model_args.resume else None)

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
        trainer.create_model_card()


if __name__ == "__main__":
    main()
