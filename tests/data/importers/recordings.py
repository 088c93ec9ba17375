"""Motions whose floor and contacts are known beforehand, sampled at any frame rate."""

import math

import numpy as np
import roma
import torch

from motion_grpo.body import Skeleton
from motion_grpo.data.preprocessing import Recording
from motion_grpo.motion import Motion

UPRIGHT = (math.pi / 2, 0.0, 0.0)
"""Root orientation that turns SMPL's y-up rest pose to stand in a z-up world."""


def toe_below_pelvis() -> float:
    """Meters from the pelvis down to the toe joints of the standing default body: both are equally high."""
    rest = Skeleton.default().rest_joints(torch.zeros(16))
    return float(rest[0, 1] - rest[10:12, 1].mean())


def recording_of(motion: Motion) -> Recording:
    """A motion of the default body without its contacts and times."""
    rotmats = torch.cat([motion.root_rotmats[:, None], motion.body_rotmats], dim=1)
    return Recording(roma.rotmat_to_rotvec(rotmats).numpy(), motion.root_positions.numpy(), motion.betas, motion.fps)


def standing(seconds: float, fps: float, toe_height: float = 0.0, joints: int = 22) -> Recording:
    """Stands still, the toe joints at ``toe_height``."""
    frames = round(seconds * fps)
    rotvecs = np.zeros((frames, joints, 3))
    rotvecs[:, 0] = UPRIGHT
    positions = np.zeros((frames, 3))
    positions[:, 2] = toe_height + toe_below_pelvis()
    return Recording(rotvecs, positions, torch.zeros(16), fps)


def kicking(seconds: float, fps: float, toe_height: float = 0.0) -> Recording:
    """Stands on the right leg; the left one swings by 45 degrees about the hip, once in two seconds."""
    recording = standing(seconds, fps, toe_height)
    time = np.arange(len(recording)) / fps
    recording.rotvecs[:, 1, 0] = -math.pi / 8 * (1 - np.cos(math.pi * time))
    return recording
