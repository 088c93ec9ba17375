"""The networks. Weights are safetensors; nothing is unpickled."""

from motion_grpo.models.denoiser import EgoMotionDenoiser
from motion_grpo.models.egoallo import load_egoallo

__all__ = ["EgoMotionDenoiser", "load_egoallo"]
