# /// script
# requires-python = ">=3.11"
# dependencies = ["motion-grpo[train]"]
#
# [tool.uv.sources]
# motion-grpo = { path = "..", editable = true }
# ///
"""Trains the denoiser on recorded motion, from new weights or from those of a pipeline (fine-tuning).

    accelerate launch trainers/pretrain.py --config configs/pretrain_small.yaml --dataset_name DIR --output_dir runs/a
    accelerate launch trainers/pretrain.py --config configs/pretrain_egoallo.yaml --dataset_name DIR --output_dir runs/b
    accelerate launch trainers/pretrain.py --config configs/finetune_kinematics.yaml --model_name_or_path paper_base ...

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
    num_inference_steps: int | None = field(
        default=None, metadata={"help": "Sampling steps of the saved pipeline; those of what is fine-tuned, or 30."}
    )
    eta: float | None = field(
        default=None, metadata={"help": "Stochasticity of the saved pipeline; that of what is fine-tuned, or 0."}
    )
    timestep_spacing: str | None = field(
        default=None, metadata={"help": "quadratic, leading or trailing; that of what is fine-tuned, or quadratic."}
    )
    neck_low_pass: float | None = field(
        default=None,
        metadata={"help": "Frames; how steady the saved pipeline holds the neck under a quick head; likewise, or 0."},
    )

    def __post_init__(self) -> None:
        self.model_config = mapping("model_config", self.model_config or {})
        if self.model_config and self.model_name_or_path is not None:
            raise ValueError(
                f"model_config is for new weights, but {self.model_name_or_path} is fine-tuned as it is; leave one of "
                "model_config and model_name_or_path out."
            )


def main() -> None:
    """Parses, builds, trains, saves."""
    types = (DataArguments, ModelArguments, RunArguments, DenoisingConfig)
    data, model_args, run, args = parse(types, WITHOUT_EFFECT_DENOISING, __doc__)
    prepare(run, args)
    set_seed(args.seed)
    if model_args.model_name_or_path is None:
        pipeline = EgoMotionPipeline(EgoMotionDenoiser(**model_args.model_config), EgoMotionSDEScheduler(eta=0.0), 30)
    else:
        pipeline = EgoMotionPipeline.from_pretrained(model_args.model_name_or_path)
    steps, neck = pipeline.config.num_inference_steps, pipeline.config.neck_low_pass
    told = {name: value for name in ("eta", "timestep_spacing") if (value := vars(model_args)[name]) is not None}
    trainer = DenoisingTrainer(
        pipeline.denoiser,
        args,
        train_windows(data, args.window, args.seed),
        val_clips(data) if args.eval_strategy != "no" else None,
        skeleton=skeleton(data),
        sampler=EgoMotionSDEScheduler.from_config(pipeline.scheduler.config, **told),
        num_inference_steps=model_args.num_inference_steps or steps,
        neck_low_pass=neck if model_args.neck_low_pass is None else model_args.neck_low_pass,
    )
    if model_args.model_name_or_path is None:
        trainer.fit_condition_statistics()
    train(trainer, data, model_args, run)


if __name__ == "__main__":
    main()
