"""VRMA: the motion without a body, for avatars in VRM (VRMC_vrm_animation 1.0, VRM Consortium, 2023)."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import JOINT_NAMES
from motion_grpo.body.avatar import t_pose, vrm_bones
from motion_grpo.body.skeleton import SOLE_UNDER_TOE
from motion_grpo.io.y_up import to_y_up
from motion_grpo.motion import Motion
from motion_grpo.viz.gltf import GltfFile

_EXTENSION = "VRMC_vrm_animation"


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


def _hips_at_rest(rest: Float[Tensor, "52 3"]) -> Float[Tensor, "3"]:
    """The pelvis of the straightened body over its soles, meters."""
    hip, knee, ankle, foot = (JOINT_NAMES.index(f"L_{name}") for name in ("hip", "knee", "ankle", "foot"))
    leg = (rest[knee] - rest[hip]).norm() + (rest[ankle] - rest[knee]).norm() + rest[ankle, 1] - rest[foot, 1]
    return torch.stack([torch.zeros(()), rest[0, 1] - rest[hip, 1] + leg + SOLE_UNDER_TOE, torch.zeros(())])
