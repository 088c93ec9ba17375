# /// script
# requires-python = ">=3.11"
# dependencies = ["motion-grpo[train]"]
#
# [tool.uv.sources]
# motion-grpo = { path = "..", editable = true }
# ///
r"""Trains the perceptual model against what a base policy makes up.

    accelerate launch trainers/perceptual.py --config configs/perceptual_small.yaml --dataset_name DIR \
        --output_dir runs/critic
    accelerate launch trainers/perceptual.py --config configs/perceptual_paper.yaml --dataset_name DIR \
        --policies me/ego-motion --output_dir runs/critic

``--negatives gt_noise --noise_scale 0.05`` is the baseline of Table 4. Add ``--resume`` to go on from the newest
checkpoint in the output folder, and ``--push_to_hub --hub_model_id me/x`` for
``MotionPerceptualModel.from_pretrained("me/x")`` to load what was trained. With ``--hub_strategy checkpoint``
checkpoints are pushed too, and ``--resume`` goes on from there where the output folder has none.
"""

from dataclasses import dataclass, field

from accelerate.utils import set_seed
from motion_grpo.cli.train.dataset_arguments import DataArguments, skeleton, train_windows, val_clips
from motion_grpo.cli.train.runs import RunArguments, parse, prepare, train

from motion_grpo import EgoMotionPipeline
from motion_grpo.data import MotionWindows
from motion_grpo.models import MotionPerceptualModel
from motion_grpo.training import PerceptualConfig, PerceptualTrainer
from motion_grpo.training.settings import WITHOUT_EFFECT_PERCEPTUAL, mapping


@dataclass
class ModelArguments:
    """The perceptual model, and whom it learns to tell from recordings."""

    model_config: dict | str | None = field(
        default_factory=dict,
        metadata={"help": "Arguments of MotionPerceptualModel; on the command line '{\"d_latent\": 64}'."},
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Perceptual model to train on; new weights if unset."}
    )
    policies: list[str] = field(
        default_factory=lambda: ["base"],
        metadata={"help": "Pipelines of the frozen base policies: folders, Hub ids or names of shipped ones."},
    )

    def __post_init__(self) -> None:
        self.model_config = mapping("model_config", self.model_config or {})


def main() -> None:
    """Parses, builds, trains, saves."""
    types = (DataArguments, ModelArguments, RunArguments, PerceptualConfig)
    data, model_args, run, args = parse(types, WITHOUT_EFFECT_PERCEPTUAL, __doc__)
    prepare(run, args)
    set_seed(args.seed)
    body = skeleton(data)
    policies = [EgoMotionPipeline.from_pretrained(name) for name in model_args.policies]
    for policy in policies:
        policy.skeleton = body or policy.skeleton
    if model_args.model_name_or_path is None:
        model = MotionPerceptualModel(**model_args.model_config)
    else:
        model = MotionPerceptualModel.from_pretrained(model_args.model_name_or_path)
    trainer = PerceptualTrainer(
        model,
        args,
        train_windows(data, args.window, args.seed),
        MotionWindows(val_clips(data), args.window, random=False) if args.eval_strategy != "no" else None,
        policies=policies,
        skeleton=body,
    )
    if model_args.model_name_or_path is None:
        trainer.fit_input_statistics()
    train(trainer, data, model_args, run)


if __name__ == "__main__":
    main()
