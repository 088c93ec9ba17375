"""VRMA: the motion without a body, for avatars in VRM (VRMC_vrm_animation 1.0, VRM Consortium, 2023)."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import JOINT_NAMES, NUM_JOINTS, PARENTS
from motion_grpo.body.skeleton import SOLE_UNDER_TOE
from motion_grpo.geometry.rotations import rotation_between
from motion_grpo.io.y_up import to_y_up
from motion_grpo.motion import Motion
from motion_grpo.viz.gltf import GltfFile

_EXTENSION = "VRMC_vrm_animation"
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


def write_vrma(motion: Motion, path: Path) -> None:
    """Writes a VRMA: y up, meters, floor at y = 0, facing +z at rest; hands only where they are known."""
    rest = motion.body.rest_joints(motion.betas)
    poses = to_y_up(motion)
    file = GltfFile()
    file.add_skeleton(rest, _hips_at_rest(rest), t_pose(rest))
    moving = range(motion.num_known_joints)
    file.add_animation(motion.timestamps - motion.timestamps[0], poses.local_rotmats, poses.root_positions, moving)
    bones = {bone: {"node": JOINT_NAMES.index(joint)} for joint, bone in vrm_bones().items()}
    bones = {bone: node for bone, node in bones.items() if node["node"] in moving}
    file.document.extensionsUsed = [_EXTENSION]
    file.document.extensions = {_EXTENSION: {"specVersion": "1.0", "humanoid": {"humanBones": bones}}}
    file.save(path)


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


def _hips_at_rest(rest: Float[Tensor, "52 3"]) -> Float[Tensor, "3"]:
    """The pelvis of the straightened body over its soles, meters."""
    hip, knee, ankle, foot = (JOINT_NAMES.index(f"L_{name}") for name in ("hip", "knee", "ankle", "foot"))
    leg = (rest[knee] - rest[hip]).norm() + (rest[ankle] - rest[knee]).norm() + rest[ankle, 1] - rest[foot, 1]
    return torch.stack([torch.zeros(()), rest[0, 1] - rest[hip, 1] + leg + SOLE_UNDER_TOE, torch.zeros(())])
