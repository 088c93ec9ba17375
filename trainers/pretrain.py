# /// script
# requires-python = ">=3.11"
# dependencies = ["motion-grpo[train]"]
#
# [tool.uv.sources]
# motion-grpo = { path = "..", editable = true }
# ///
"""Trains the denoiser on recorded motion.

    accelerate launch trainers/pretrain.py --config configs/pretrain_small.yaml --dataset_name DIR --output_dir runs/a
    accelerate launch trainers/pretrain.py --config configs/pretrain_egoallo.yaml --dataset_name DIR --output_dir runs/b

A folder that holds another run is left alone: add ``--resume`` to go on from its newest checkpoint, ``--overwrite`` to
begin anew. Add ``--push_to_hub --hub_model_id me/x`` for
``EgoMotionPipeline.from_pretrained("me/x")`` to load what was trained. With ``--hub_strategy checkpoint`` checkpoints
are pushed too, and ``--resume`` goes on from there where the output folder has none.
"""

from dataclasses import dataclass, field

from accelerate.utils import set_seed
from motion_grpo.cli.train.dataset_arguments import DataArguments, skeleton, train_windows, val_clips
from motion_grpo.cli.train.runs import RunArguments, parse, prepare, train

from motion_grpo import EgoMotionPipeline
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.training import DenoisingConfig, DenoisingTrainer
from motion_grpo.training.settings import WITHOUT_EFFECT_DENOISING, mapping


@dataclass
class ModelArguments:
    """The denoiser, and how it samples once it is trained."""

    model_config: dict | str | None = field(
        default_factory=dict,
        metadata={"help": "Arguments of EgoMotionDenoiser; on the command line '{\"d_latent\": 64}'."},
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Pipeline to fine-tune; new weights if unset."}
    )
    num_inference_steps: int = field(
        default=30, metadata={"help": "Sampling steps that the saved pipeline defaults to."}
    )
    eta: float = field(default=0.0, metadata={"help": "Stochasticity that the saved pipeline defaults to."})
    timestep_spacing: str = field(default="quadratic", metadata={"help": "quadratic, leading or trailing."})
    neck_low_pass: float = field(
        default=0.0, metadata={"help": "Frames; how steady the saved pipeline holds the neck under a quick head."}
    )

    def __post_init__(self) -> None:
        self.model_config = mapping("model_config", self.model_config or {})


def main() -> None:
    """Parses, builds, trains, saves."""
    types = (DataArguments, ModelArguments, RunArguments, DenoisingConfig)
    data, model_args, run, args = parse(types, WITHOUT_EFFECT_DENOISING, __doc__)
    prepare(run, args)
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
        sampler=EgoMotionSDEScheduler(timestep_spacing=model_args.timestep_spacing, eta=model_args.eta),
        num_inference_steps=model_args.num_inference_steps,
        neck_low_pass=model_args.neck_low_pass,
    )
    if model_args.model_name_or_path is None:
        trainer.fit_condition_statistics()
    train(trainer, data, model_args, run)


if __name__ == "__main__":
    main()
