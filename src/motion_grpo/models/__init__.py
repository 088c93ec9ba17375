"""The networks. Weights are safetensors; nothing is unpickled."""

from motion_grpo.models.denoiser import EgoMotionDenoiser

__all__ = ["EgoMotionDenoiser"]
