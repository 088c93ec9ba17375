"""What the scripts of post-training start from."""

from dataclasses import dataclass, field

from motion_grpo.cli.train.dataset_arguments import DataArguments, skeleton

from motion_grpo import EgoMotionPipeline


@dataclass
class ModelArguments:
    """What to post-train."""

    model_name_or_path: str = field(
        default="base", metadata={"help": "Pipeline to start from: a folder, a Hub id or a shipped checkpoint."}
    )


def base_pipeline(model: ModelArguments, data: DataArguments) -> EgoMotionPipeline:
    """The pipeline, with the body that the data set's betas refer to."""
    pipeline = EgoMotionPipeline.from_pretrained(model.model_name_or_path)
    pipeline.skeleton = skeleton(data) or pipeline.skeleton
    return pipeline
