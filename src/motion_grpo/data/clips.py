"""A recorded clip: a motion with ground contacts, and the operations that make more training data of it."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import MIRROR
from motion_grpo.motion import Motion
from motion_grpo.rotations import interpolate_rotations

TOE_HEIGHT = 0.01
"""Metres from the floor up to the toe joint of a standing foot, in all data: EgoAllo's floor, inside the sole."""
# EgoAllo's labels (after HuMoR): a joint rests on the ground when it is slower than 5 mm a frame at 120 fps and low.
CONTACT_SPEED = 0.6
"""m/s."""
CONTACT_HEIGHT: dict[int, float] = {4: 0.08, 5: 0.08, 7: 0.08, 8: 0.08, 10: 0.04, 11: 0.04, 20: 0.08, 21: 0.08}
"""Metres over a standing toe joint: knees, ankles, toe bases, wrists. Other joints never rest on the ground."""

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
        joints: world positions, metres, SMPL-H order with the root first.
        fps: frames per second; a still foot that is sampled rarely is no slower.
        floor_height: z of the floor, metres.
    """
    index = list(CONTACT_HEIGHT)
    low = joints[:, index, 2] - (floor_height + TOE_HEIGHT) < torch.tensor(list(CONTACT_HEIGHT.values()))
    contacts = torch.zeros(len(joints), 21)
    contacts[:, [joint - 1 for joint in index]] = (low & (speeds(joints[:, index], fps) < CONTACT_SPEED)).float()
    return contacts


def with_contacts(motion: Motion) -> Motion:
    """The motion with contacts labelled anew, against its own floor."""
    return replace(motion, contacts=label_contacts(motion.joints, motion.fps, motion.floor_height))


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
