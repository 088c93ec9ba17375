# /// script
# requires-python = ">=3.11"
# dependencies = ["motion-grpo[train]"]
#
# [tool.uv.sources]
# motion-grpo = { path = "..", editable = true }
# ///
r"""Post-trains a pipeline by direct preference optimization (Diffusion-DPO) on pairs of its own samples.

    accelerate launch trainers/dpo.py --config configs/dpo.yaml --model_name_or_path base \
        --dataset_name DIR --output_dir runs/a

Pairs are drawn from the pipeline and written to ``output_dir/pairs``; ``--pairs DIR`` reads those of a run before.

A folder that holds another run is left alone: add ``--resume`` to go on from its newest checkpoint, ``--overwrite`` to
begin anew. Add ``--push_to_hub --hub_model_id me/x`` for
``EgoMotionPipeline.from_pretrained("me/x")`` to load what was trained. With ``--hub_strategy checkpoint`` checkpoints
are pushed too, and ``--resume`` goes on from there where the output folder has none. SIGTERM writes a checkpoint after
the present update and ends the run with status 143.
"""

from dataclasses import dataclass, field
from pathlib import Path

from motion_grpo.cli.train import start
from motion_grpo.cli.train.dataset_arguments import DataArguments, train_windows, val_clips
from motion_grpo.cli.train.runs import RunArguments, parse, prepare, train

from motion_grpo import EgoMotionPipeline
from motion_grpo.training import MotionDPOConfig, MotionDPOTrainer, PreferencePairs, draw_pairs
from motion_grpo.training.judging import named_rewards, weights_of
from motion_grpo.training.settings import WITHOUT_EFFECT_POLICY


@dataclass
class ModelArguments(start.ModelArguments):
    """What to post-train, on which pairs."""

    pairs: str | None = field(
        default=None, metadata={"help": "Folder with the pairs of a run before; new ones are drawn if unset."}
    )


def read_or_draw(
    data: DataArguments, given: str | None, pipeline: EgoMotionPipeline, args: MotionDPOConfig
) -> PreferencePairs:
    """The pairs of a run before, or those that this one drew when it began."""
    if given is not None:
        return PreferencePairs.load(given)
    folder = Path(args.output_dir) / "pairs"
    with args.main_process_first(local=False):  # the others read what it wrote
        if not folder.is_dir():
            rewards = named_rewards(args, args.device)
            pairs = draw_pairs(
                pipeline,
                train_windows(data, args.window, args.seed),
                rewards,
                count=args.num_pairs,
                group_size=args.num_generations,
                num_sampling_steps=args.num_sampling_steps,
                seed=args.seed,
                device=args.device,
                winner=args.winner,
                weights=weights_of(rewards, args),
            )
            pairs.save(folder)
    return PreferencePairs.load(folder)


def main() -> None:
    """Parses, builds, trains, saves."""
    types = (DataArguments, ModelArguments, RunArguments, MotionDPOConfig)
    data, model_args, run, args = parse(types, WITHOUT_EFFECT_POLICY, __doc__)
    prepare(run, args)
    pipeline = start.base_pipeline(model_args, data)
    pairs = read_or_draw(data, model_args.pairs, pipeline, args)
    trainer = MotionDPOTrainer(pipeline, args, pairs, val_clips(data) if args.eval_strategy != "no" else None)
    train(trainer, data, model_args, run)


if __name__ == "__main__":
    main()
