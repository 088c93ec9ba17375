"""A recorded clip: a motion with ground contacts, and the operations that make more training data of it."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import MIRROR, NUM_BODY_AND_ROOT
from motion_grpo.geometry.resampling import Between
from motion_grpo.motion import Motion
from motion_grpo.motion.contacts import with_contacts

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


def resample(motion: Motion, fps: float, speed: float = 1.0) -> Motion:
    """The motion at another frame rate (slerp and linear interpolation by time), played ``speed`` times as fast.

    Contacts are labeled anew, since they depend on the speed.
    """
    time = (motion.timestamps - motion.timestamps[0]) / speed
    new_time = torch.arange(int(float(time[-1]) * fps + 1e-6) + 1, dtype=torch.float64) / fps
    between = Between.of(time, new_time)
    return with_contacts(
        replace(
            motion,
            root_rotmats=between.rotations(motion.root_rotmats),
            body_rotmats=between.rotations(motion.body_rotmats),
            hand_rotmats=None if motion.hand_rotmats is None else between.rotations(motion.hand_rotmats),
            root_positions=between.points(motion.root_positions),
            contacts=motion.contacts[between.left],
            timestamps=new_time,
        )
    )


def mirror(
    rotmats: Float[Tensor, "*batch joints 3 3"], positions: Float[Tensor, "*batch 3"]
) -> tuple[Float[Tensor, "*batch joints 3 3"], Float[Tensor, "*batch 3"]]:
    """The motion as seen in a mirror: left and right change places.

    Args:
        rotmats: R_world_root and the local rotations, SMPL-H order, 22 or 52 joints.
        positions: of the root, meters; the mirror is the world's plane x = 0.
    """
    joints = rotmats.shape[-3]
    M = _REFLECT.to(rotmats)
    return M @ rotmats[..., [j for j in MIRROR if j < joints], :, :] @ M, positions @ M


def mirrored_clip(clip: Clip) -> Clip:
    """The clip as seen in a mirror, with ``@mirrored`` behind its id; fingers are mirrored too."""
    motion, hands = clip.motion, clip.motion.hand_rotmats
    rotmats = [motion.root_rotmats[:, None], motion.body_rotmats] + ([] if hands is None else [hands])
    turned, positions = mirror(torch.cat(rotmats, dim=1), motion.root_positions)
    changed = replace(
        motion,
        root_rotmats=turned[:, 0],
        body_rotmats=turned[:, 1:22],
        hand_rotmats=None if hands is None else turned[:, 22:],
        root_positions=positions,
        contacts=mirror_contacts(motion.contacts),
    )
    return replace(clip, id=f"{clip.id}@mirrored", motion=changed)


def mirror_contacts(contacts: Float[Tensor, "*batch 21"]) -> Float[Tensor, "*batch 21"]:
    """Contacts of the mirrored motion."""
    return contacts[..., [j - 1 for j in MIRROR[1:NUM_BODY_AND_ROOT]]]


class ClipError(ValueError):
    """This file or clip is left out, for a reason that is no fault: too short, on a skip list, ..."""
