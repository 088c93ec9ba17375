# /// script
# requires-python = ">=3.11"
# dependencies = ["motion-grpo[train]"]
#
# [tool.uv.sources]
# motion-grpo = { path = "..", editable = true }
# ///
"""Post-trains a pipeline by GRPO on rewards of what it samples (MotionGRPO, Algorithm 1).

    accelerate launch trainers/grpo.py --config configs/grpo_small.yaml --model_name_or_path base --dataset_name DIR \\
        --output_dir runs/a

Add ``--resume`` to go on from the newest checkpoint in the output folder, and ``--push_to_hub --hub_model_id me/x`` for
``EgoMotionPipeline.from_pretrained("me/x")`` to load what was trained. With ``--hub_strategy checkpoint`` checkpoints
are pushed too, and ``--resume`` goes on from there where the output folder has none. SIGTERM writes a checkpoint after
the present update and ends the run with status 143.
"""

import sys
from dataclasses import asdict, dataclass, field

from motion_grpo.cli.train.command_line import TrainingParser
from motion_grpo.cli.train.dataset_arguments import DataArguments, skeleton, train_windows, val_clips

from motion_grpo import EgoMotionPipeline
from motion_grpo.cards import record_run
from motion_grpo.training import MotionGRPOConfig, MotionGRPOTrainer


@dataclass
class ModelArguments:
    """What to post-train."""

    model_name_or_path: str = field(
        default="base", metadata={"help": "Pipeline to start from: a folder, a Hub id or a shipped checkpoint."}
    )
    resume: bool = field(
        default=False,
        metadata={"help": "Go on from the newest checkpoint in output_dir, else from what the run has pushed."},
    )


def main() -> None:
    """Parses, builds, trains, saves."""
    data, model_args, args = TrainingParser((DataArguments, ModelArguments, MotionGRPOConfig)).parse_args_and_config()
    pipeline = EgoMotionPipeline.from_pretrained(model_args.model_name_or_path)
    pipeline.skeleton = skeleton(data) or pipeline.skeleton
    trainer = MotionGRPOTrainer(
        pipeline,
        args,
        train_windows(data, args.window, args.seed),
        val_clips(data) if args.eval_strategy != "no" else None,
    )
    record_run(args, data=asdict(data), model=asdict(model_args))
    checkpoint = trainer.checkpoint_to_resume() if model_args.resume else args.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=checkpoint)

    if trainer.terminated.requested:
        trainer.save_log()
        sys.exit(143)
    trainer.save_run()
    if args.push_to_hub:
        trainer.push_to_hub()


if __name__ == "__main__":
    main()
