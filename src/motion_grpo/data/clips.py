"""A recorded clip: a motion with ground contacts, and the operations that make more training data of it."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import MIRROR, Skeleton
from motion_grpo.motion import Motion
from motion_grpo.rotations import interpolate_rotations

# EgoAllo's labels (after HuMoR): a joint rests on the ground when it is slower than 5 mm a frame at 120 fps and low.
CONTACT_SPEED = 0.6
"""m/s."""
CONTACT_HEIGHT: dict[int, float] = {4: 0.08, 5: 0.08, 7: 0.08, 8: 0.08, 10: 0.04, 11: 0.04, 20: 0.08, 21: 0.08}
"""Metres above the floor, by SMPL-H joint: knees, ankles, toe bases, wrists. Other joints never touch the ground."""

_REFLECT = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))


@dataclass(frozen=True)
class Clip:
    """One recorded motion and where it comes from."""

    id: str
    source: str
    """Data set."""
    motion: Motion
    """Floor at z = 0."""
    subject: str = ""
    """Who moves; empty where unknown."""
    content: str = ""
    """What is done: walk, dance, ...; empty where unknown."""
    split: str = ""
    license: str = ""
    """Terms of the recording."""
    gender: str = "neutral"
    """Of the body model that the betas refer to."""


def label_contacts(joints: Float[Tensor, "frames joints 3"], fps: float) -> Float[Tensor, "frames 21"]:
    """1 where a body joint rests on the floor at z = 0 (EgoAllo's preprocessing, thresholds in m/s and not per frame).

    Args:
        joints: world positions, metres, SMPL-H order with the root first.
        fps: frames per second.

    Raises:
        ValueError: a single frame, which has no speed.
    """
    if len(joints) < 2:
        raise ValueError(f"Contacts need a speed, so at least two frames; there are {len(joints)}.")
    speed = (joints[1:] - joints[:-1]).norm(dim=-1) * fps
    speed = torch.cat([speed[:1], speed])
    contacts = torch.zeros(len(joints), 21)
    for joint, height in CONTACT_HEIGHT.items():
        contacts[:, joint - 1] = ((speed[:, joint] < CONTACT_SPEED) & (joints[:, joint, 2] < height)).float()
    return contacts


def with_contacts(motion: Motion) -> Motion:
    """The motion with contacts labelled anew, against its own floor."""
    above_floor = motion.joints - torch.tensor([0.0, 0.0, motion.floor_height])
    return replace(motion, contacts=label_contacts(above_floor, motion.fps))


def resample(motion: Motion, fps: float, speed: float = 1.0) -> Motion:
    """The motion at another frame rate (slerp and linear interpolation by time), played ``speed`` times as fast.

    Contacts are labelled anew, since they depend on the speed.
    """
    time = (motion.timestamps - motion.timestamps[0]) / speed
    new_time = torch.arange(int(float(time[-1]) * fps + 1e-6) + 1, dtype=torch.float64) / fps
    right = torch.searchsorted(time, new_time, right=True).clamp(1, len(time) - 1)
    left = right - 1
    weight = ((new_time - time[left]) / (time[right] - time[left])).float()

    def rotations(R: Tensor) -> Tensor:
        return interpolate_rotations(R[left], R[right], weight.view(-1, *[1] * (R.ndim - 3)))

    return with_contacts(
        replace(
            motion,
            root_rotmats=rotations(motion.root_rotmats),
            body_rotmats=rotations(motion.body_rotmats),
            hand_rotmats=None if motion.hand_rotmats is None else rotations(motion.hand_rotmats),
            root_positions=torch.lerp(motion.root_positions[left], motion.root_positions[right], weight[:, None]),
            contacts=motion.contacts[left],
            timestamps=new_time,
        )
    )


def mirror(
    rotmats: Float[Tensor, "*batch joints 3 3"], positions: Float[Tensor, "*batch 3"]
) -> tuple[Float[Tensor, "*batch joints 3 3"], Float[Tensor, "*batch 3"]]:
    """The motion as seen in a mirror: left and right change places.

    Args:
        rotmats: R_world_root and the local rotations, SMPL-H order, 22 or 52 joints.
        positions: of the root, metres; the mirror is the world's plane x = 0.
    """
    joints = rotmats.shape[-3]
    M = _REFLECT.to(rotmats)
    return M @ rotmats[..., [j for j in MIRROR if j < joints], :, :] @ M, positions @ M


def mirror_contacts(contacts: Float[Tensor, "*batch 21"]) -> Float[Tensor, "*batch 21"]:
    """Contacts of the mirrored motion."""
    return contacts[..., [j - 1 for j in MIRROR[1:22]]]


def leg_length(skeleton: Skeleton, betas: Float[Tensor, "*batch 16"]) -> Float[Tensor, "*batch"]:
    """Pelvis over sole in the rest pose, metres: the scale by which a body of another size travels."""
    rest = skeleton.rest_joints(betas)
    sole_under_toe = 0.018
    return rest[..., 0, 1] - rest[..., 10:12, 1].mean(-1) + sole_under_toe
