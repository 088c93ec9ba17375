"""What avatars call SMPL-H's joints, and the T-pose in which they stand at rest (VRM, Unity's humanoid)."""

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body.joints import JOINT_NAMES, NUM_JOINTS, PARENTS
from motion_grpo.geometry.rotations import rotation_between

_TRUNK = {
    "pelvis": "hips", "spine1": "spine", "spine2": "chest", "spine3": "upperChest", "neck": "neck", "head": "head",
}  # fmt: skip
_SIDE = {
    "collar": "Shoulder", "shoulder": "UpperArm", "elbow": "LowerArm", "wrist": "Hand",
    "hip": "UpperLeg", "knee": "LowerLeg", "ankle": "Foot", "foot": "Toes",
}  # fmt: skip
_FINGERS = {"index": "Index", "middle": "Middle", "ring": "Ring", "pinky": "Little"}
_KNUCKLES, _THUMB = ("Proximal", "Intermediate", "Distal"), ("Metacarpal", "Proximal", "Distal")
# VRM's T-pose has straight arms to the sides and straight legs down; SMPL's rest pose has them nearly so.
_STRAIGHT = {
    "L": (("shoulder", "elbow", (1.0, 0.0, 0.0)), ("elbow", "wrist", (1.0, 0.0, 0.0))),
    "R": (("shoulder", "elbow", (-1.0, 0.0, 0.0)), ("elbow", "wrist", (-1.0, 0.0, 0.0))),
}
_DOWN = (("hip", "knee", (0.0, -1.0, 0.0)), ("knee", "ankle", (0.0, -1.0, 0.0)))


def vrm_bones() -> dict[str, str]:
    """VRM's name of every SMPL-H joint."""
    names = dict(_TRUNK)
    for side, word in (("L", "left"), ("R", "right")):
        names |= {f"{side}_{joint}": f"{word}{bone}" for joint, bone in _SIDE.items()}
        for finger, bone in _FINGERS.items():
            names |= {f"{side}_{finger}{k + 1}": f"{word}{bone}{part}" for k, part in enumerate(_KNUCKLES)}
        names |= {f"{side}_thumb{k + 1}": f"{word}Thumb{part}" for k, part in enumerate(_THUMB)}
    return names


def t_pose(rest: Float[Tensor, "52 3"]) -> Float[Tensor, "52 3 3"]:
    """Rotations relative to the parent that straighten arms and legs of SMPL's rest pose; feet stay flat."""
    world = torch.eye(3).repeat(NUM_JOINTS, 1, 1)
    for side, arm in _STRAIGHT.items():
        for joint, child, direction in (*arm, *_DOWN):
            upper, lower = (JOINT_NAMES.index(f"{side}_{name}") for name in (joint, child))
            world[upper] = rotation_between(rest[lower] - rest[upper], torch.tensor(direction))
    local = world.clone()
    for joint in range(1, NUM_JOINTS):
        local[joint] = world[PARENTS[joint]].mT @ world[joint]
    return local
