"""The networks. Weights are safetensors; nothing is unpickled."""

from motion_grpo.models.denoiser import EgoMotionDenoiser
from motion_grpo.models.perceptual import MotionPerceptualModel, perceptual_inputs

__all__ = ["EgoMotionDenoiser", "MotionPerceptualModel", "perceptual_inputs"]
