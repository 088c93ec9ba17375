"""Which joints rest on the ground, and where the floor is under them."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.motion.motion import Motion

TOE_HEIGHT = 0.01
"""Meters from the floor up to the toe joint of a standing foot, in all data: EgoAllo's floor, inside the sole."""
# EgoAllo's labels (after HuMoR): a joint rests on the ground when it is slower than 5 mm a frame at 120 fps and low.
CONTACT_SPEED = 0.6
"""m/s."""
CONTACT_HEIGHT: dict[int, float] = {4: 0.08, 5: 0.08, 7: 0.08, 8: 0.08, 10: 0.04, 11: 0.04, 20: 0.08, 21: 0.08}
"""Meters over a standing toe joint: knees, ankles, toe bases, wrists. Other joints never rest on the ground."""


def speeds(points: Float[Tensor, "frames points 3"], fps: float) -> Float[Tensor, "frames points"]:
    """m/s from each frame to the next; the last frame has the speed of the one before it, a single frame none."""
    step = points.diff(dim=0).norm(dim=-1) * fps
    return torch.cat([step, step[-1:] if len(step) else step.new_zeros(1, points.shape[1])])


def label_contacts(
    joints: Float[Tensor, "frames joints 3"], fps: float, floor_height: float = 0.0
) -> Float[Tensor, "frames 21"]:
    """1 where a body joint rests on the ground: slow in the step to the next frame, and low.

    The labels of EgoAllo's preprocessing, with the thresholds in m/s and not per frame of the source: toes up to 4 cm,
    knees, ankles and wrists up to 8 cm over the toe joint of a standing foot.

    Args:
        joints: world positions, meters, SMPL-H order with the root first.
        fps: frames per second; a still foot that is sampled rarely is no slower.
        floor_height: z of the floor, meters.
    """
    index = list(CONTACT_HEIGHT)
    low = joints[:, index, 2] - (floor_height + TOE_HEIGHT) < torch.tensor(list(CONTACT_HEIGHT.values()))
    contacts = torch.zeros(len(joints), 21)
    contacts[:, [joint - 1 for joint in index]] = (low & (speeds(joints[:, index], fps) < CONTACT_SPEED)).float()
    return contacts


def with_contacts(motion: Motion) -> Motion:
    """The motion with contacts labeled anew, against its own floor."""
    return replace(motion, contacts=label_contacts(motion.joints, motion.fps, motion.floor_height))
