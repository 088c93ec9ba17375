# /// script
# requires-python = ">=3.11"
# dependencies = ["motion-grpo[train]"]
#
# [tool.uv.sources]
# motion-grpo = { path = "..", editable = true }
# ///
r"""Post-trains a pipeline by GRPO on rewards of what it samples (MotionGRPO, Algorithm 1).

    accelerate launch trainers/grpo.py --config configs/grpo_small.yaml --model_name_or_path base --dataset_name DIR \
        --output_dir runs/a

A folder that holds another run is left alone: add ``--resume`` to go on from its newest checkpoint, ``--overwrite`` to
begin anew. Add ``--push_to_hub --hub_model_id me/x`` for
``EgoMotionPipeline.from_pretrained("me/x")`` to load what was trained. With ``--hub_strategy checkpoint`` checkpoints
are pushed too, and ``--resume`` goes on from there where the output folder has none. SIGTERM writes a checkpoint after
the present update and ends the run with status 143.
"""

from motion_grpo.cli.train.dataset_arguments import DataArguments, head_windows, train_windows, val_clips
from motion_grpo.cli.train.runs import RunArguments, parse, prepare, train
from motion_grpo.cli.train.start import ModelArguments, base_pipeline

from motion_grpo.training import MotionGRPOConfig, MotionGRPOTrainer
from motion_grpo.training.settings import WITHOUT_EFFECT_GRPO


def main() -> None:
    """Parses, builds, trains, saves."""
    types = (DataArguments, ModelArguments, RunArguments, MotionGRPOConfig)
    data, model_args, run, args = parse(types, WITHOUT_EFFECT_GRPO, __doc__)
    prepare(run, args)
    pipeline = base_pipeline(model_args, data)
    trainer = MotionGRPOTrainer(
        pipeline,
        args,
        (head_windows if data.heads_only else train_windows)(data, args.window, args.seed),
        val_clips(data) if args.eval_strategy != "no" else None,
    )
    train(trainer, data, model_args, run)


if __name__ == "__main__":
    main()
