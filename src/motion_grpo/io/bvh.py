"""BVH (Biovision Hierarchy): the writer."""

from pathlib import Path

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import HEAD, JOINT_NAMES, NUM_JOINTS, PARENTS
from motion_grpo.body.joints import LEFT_WRIST, RIGHT_WRIST
from motion_grpo.files import write_text
from motion_grpo.io.y_up import to_y_up
from motion_grpo.motion import Motion

UNITS_PER_METRE = 100.0
"""Centimetres, which most programs take a BVH to be in."""
_POSITION, _ROTATION = "Xposition Yposition Zposition", "Zrotation Yrotation Xrotation"
_BODY = 22
_CROWN = 0.18  # metres over the head joint
_TIP = 0.8  # length of the last bone of a finger or a foot as a share of the one before
_MIDDLE_FINGERS = {LEFT_WRIST: JOINT_NAMES.index("L_middle1"), RIGHT_WRIST: JOINT_NAMES.index("R_middle1")}


def write_bvh(motion: Motion, path: Path) -> None:
    """Writes a BVH: y up, centimetres, floor at y = 0; joints are named as in :data:`~motion_grpo.body.JOINT_NAMES`.

    The skeleton has the bones of the motion's own body and stands in SMPL's T-pose, facing +z, where every channel is
    zero. The root has a position and a rotation, every other joint a rotation. Hands that are not known are left out.
    """
    poses = to_y_up(motion)
    count = _BODY if motion.hand_rotmats is None else NUM_JOINTS
    rest = motion.body.rest_joints(motion.betas)
    # Channels stand in the order of the blocks: every joint before its limb, limb after limb.
    angles = roma.rotmat_to_euler("ZYX", poses.local_rotmats[:, _below(0, count)], degrees=True)
    channels = torch.cat([UNITS_PER_METRE * poses.root_positions, angles.flatten(1)], dim=1)
    lines = ["HIERARCHY", *_joint(0, count, rest), "MOTION", f"Frames: {len(motion)}"]
    lines += [f"Frame Time: {1 / motion.fps:.8f}"]
    lines += [" ".join(f"{value:.5f}" for value in row) for row in channels.tolist()]
    write_text(path, "\n".join([*lines, ""]))


def _joint(joint: int, count: int, rest: Float[Tensor, "52 3"]) -> list[str]:
    """The block of a joint and of all below it."""
    # The root's position channels replace its OFFSET in some programs and are added to it in others: a zero suits both.
    offset = rest[joint] - rest[PARENTS[joint]] if joint else torch.zeros(3)
    children = _children(joint, count)
    inside = [_offset(offset), f"CHANNELS {3 if joint else 6} {_ROTATION if joint else f'{_POSITION} {_ROTATION}'}"]
    for child in children:
        inside += _joint(child, count, rest)
    if not children:
        inside += ["End Site", "{", f"  {_offset(_end(joint, rest))}", "}"]
    return [f"{'JOINT' if joint else 'ROOT'} {JOINT_NAMES[joint]}", "{", *(f"  {line}" for line in inside), "}"]


def _children(joint: int, count: int) -> list[int]:
    return [child for child in range(joint + 1, count) if PARENTS[child] == joint]


def _below(joint: int, count: int) -> list[int]:
    """A joint and all below it, in the order of their blocks."""
    return [joint, *(other for child in _children(joint, count) for other in _below(child, count))]


def _end(joint: int, rest: Float[Tensor, "52 3"]) -> Float[Tensor, "3"]:
    """From the last joint of a limb to its end, metres: some programs drop bones without length."""
    if joint == HEAD:
        return torch.tensor([0.0, _CROWN, 0.0])
    if joint in _MIDDLE_FINGERS:
        return rest[_MIDDLE_FINGERS[joint]] - rest[joint]
    bone = rest[joint] - rest[PARENTS[joint]]
    if joint < _BODY:  # a toe base, whose bone comes down from the ankle
        bone = bone * torch.tensor([0.0, 0.0, 1.0])
    return _TIP * bone


def _offset(metres: Float[Tensor, "3"]) -> str:
    return f"OFFSET {' '.join(f'{value:.6f}' for value in (UNITS_PER_METRE * metres).tolist())}"
