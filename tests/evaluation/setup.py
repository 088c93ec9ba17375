"""What tests of evaluations share."""

from dataclasses import replace

import torch

from motion_grpo.data import Clip


def raised(clip: Clip, height: float) -> Clip:
    """The same clip in a world whose floor is that high."""
    up = torch.tensor([0.0, 0.0, height])
    motion = replace(clip.motion, root_positions=clip.motion.root_positions + up, floor_height=height)
    return replace(clip, motion=motion)
