"""Forward kinematics of the SMPL-H tree, batched over everything but the levels of the tree."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body.joints import HEAD, LEVELS, PARENTS


class PosedBody(NamedTuple):
    """World pose of every joint."""

    rotmats: Float[Tensor, "*batch joints 3 3"]
    """R_world_joint."""
    joints: Float[Tensor, "*batch joints 3"]
    """Joint positions in meters; joint 0 is the pelvis."""


def forward_kinematics(
    rest_joints: Float[Tensor, "*#batch joints 3"],
    local_rotmats: Float[Tensor, "*#batch joints 3 3"],
    root_position: Float[Tensor, "*#batch 3"],
) -> PosedBody:
    """Poses the skeleton (SMPL, Loper et al. 2015, Eq. 3-4, joints only).

    Args:
        rest_joints: joints of the shaped body in the rest pose, meters; 22 (no hands) or 52 of them.
        local_rotmats: rotation of every joint relative to its parent; entry 0 is R_world_root.
        root_position: world position of the pelvis joint, meters (not SMPL's ``trans``).
    """
    num_joints = rest_joints.shape[-2]
    batch = torch.broadcast_shapes(rest_joints.shape[:-2], local_rotmats.shape[:-3], root_position.shape[:-1])
    parents = torch.tensor(PARENTS[1:num_joints], device=rest_joints.device)
    bones = rest_joints[..., 1:, :] - rest_joints[..., parents, :]
    bones = bones.expand(*batch, num_joints - 1, 3)
    local_rotmats = local_rotmats.expand(*batch, num_joints, 3, 3)

    # One entry a joint, filled level by level. Lists and one stack at the end: no in-place writes under autograd.
    rotmats: list[Tensor] = [local_rotmats[..., 0, :, :]] * num_joints
    joints: list[Tensor] = [root_position.expand(*batch, 3)] * num_joints
    for level in LEVELS:
        level = [joint for joint in level if joint < num_joints]
        if not level:
            continue
        R_parent = torch.stack([rotmats[PARENTS[joint]] for joint in level], dim=-3)
        p_parent = torch.stack([joints[PARENTS[joint]] for joint in level], dim=-2)
        R = R_parent @ local_rotmats[..., level, :, :]
        p = p_parent + (R_parent @ bones[..., [joint - 1 for joint in level], :, None]).squeeze(-1)
        for index, joint in enumerate(level):
            rotmats[joint] = R[..., index, :, :]
            joints[joint] = p[..., index, :]
    return PosedBody(torch.stack(rotmats, dim=-3), torch.stack(joints, dim=-2))


def place_by_head(
    rest_joints: Float[Tensor, "*#batch joints 3"],
    cpf_offset: Float[Tensor, "*#batch 3"],
    local_rotmats: Float[Tensor, "*#batch joints-1 3 3"],
    R_world_cpf: Float[Tensor, "*#batch 3 3"],
    p_world_cpf: Float[Tensor, "*#batch 3"],
) -> PosedBody:
    """Poses the body and moves it as a whole until its central pupil frame is the given one.

    The CPF's rotation is the head joint's, its position the head joint plus ``cpf_offset`` in the head frame (EgoAllo,
    Sec. 3.2: the root is found last, from the head).

    Args:
        rest_joints: joints of the shaped body in the rest pose, meters; 22 or 52 of them.
        cpf_offset: eyes relative to the head joint, in the head frame, meters.
        local_rotmats: rotation of every joint but the root relative to its parent.
        R_world_cpf: orientation of the CPF (x left, y up, z forward) in the z-up world.
        p_world_cpf: position of the CPF in the world, meters.
    """
    identity = torch.eye(3, dtype=local_rotmats.dtype, device=local_rotmats.device)
    identity = identity.expand(*local_rotmats.shape[:-3], 1, 3, 3)
    body = forward_kinematics(rest_joints, torch.cat([identity, local_rotmats], dim=-3), torch.zeros_like(p_world_cpf))
    R_root_head = body.rotmats[..., HEAD, :, :]
    p_root_cpf = body.joints[..., HEAD, :] + (R_root_head @ cpf_offset[..., None]).squeeze(-1)
    R_world_root = R_world_cpf @ R_root_head.mT
    p_world_root = p_world_cpf - (R_world_root @ p_root_cpf[..., None]).squeeze(-1)
    joints = body.joints @ R_world_root.mT + p_world_root[..., None, :]
    return PosedBody(R_world_root[..., None, :, :] @ body.rotmats, joints)


def cpf_of(
    body: PosedBody, cpf_offset: Float[Tensor, "*#batch 3"]
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """Rotation and position (meters) of the central pupil frame of a posed body, in the world."""
    R_world_head = body.rotmats[..., HEAD, :, :]
    return R_world_head, body.joints[..., HEAD, :] + (R_world_head @ cpf_offset[..., None]).squeeze(-1)
