"""The networks. Weights are safetensors; nothing is unpickled."""

from motion_grpo.models.denoiser import EgoMotionDenoiser, EgoMotionDenoiserOutput
from motion_grpo.models.perceptual import MotionPerceptualModel, MotionPerceptualModelOutput, perceptual_inputs

__all__ = [
    "EgoMotionDenoiser",
    "EgoMotionDenoiserOutput",
    "MotionPerceptualModel",
    "MotionPerceptualModelOutput",
    "perceptual_inputs",
]
