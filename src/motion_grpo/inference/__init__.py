"""From a head trajectory to motion."""

from motion_grpo.inference.pipeline import EgoMotionPipeline, EgoMotionPipelineOutput
from motion_grpo.inference.sampling import recover_state, sample_latents

__all__ = ["EgoMotionPipeline", "EgoMotionPipelineOutput", "recover_state", "sample_latents"]
