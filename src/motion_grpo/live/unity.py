"""Unity's world, which VMC and VRChat speak: left-handed, x right, y up, z forward, meters; and its avatars."""

from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import JOINT_NAMES, NUM_BODY_AND_ROOT, PARENTS, Skeleton
from motion_grpo.body.avatar import t_pose, vrm_bones
from motion_grpo.geometry.rotations import matrix_to_wxyz
from motion_grpo.streaming import BodyPose

# The z-up world seen along +x has x forward, y left and z up; the columns are what those are in Unity.
_UNITY_WORLD = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
# SMPL's own axes at rest are x left, y up, z forward.
_MIRROR = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))


class AvatarPose(NamedTuple):
    """A body in Unity's axes as a humanoid avatar takes it: in the T-pose all rotations are the identity."""

    bones: list[str]
    """Unity's ``HumanBodyBones``, in the order of SMPL-H's joints 0 to 21."""
    local_rotmats: Float[Tensor, "22 3 3"]
    """Relative to the parent bone; the hips' in the world."""
    local_positions: Float[Tensor, "22 3"]
    """Relative to the parent bone, meters; the hips' in the world, over the floor."""
    world_rotmats: Float[Tensor, "22 3 3"]
    world_positions: Float[Tensor, "22 3"]


def avatar_pose(pose: BodyPose, skeleton: Skeleton, floor_height: float) -> AvatarPose:
    """The body for an avatar; SMPL's rest pose is straightened into the T-pose that avatars have."""
    rest = skeleton.rest_joints(pose.betas)
    straight = _world_of(t_pose(rest))[:NUM_BODY_AND_ROOT]
    world = unity_rotations(pose.world_rotmats @ straight.mT)
    positions = unity_points(pose.joints, floor_height)
    parents = list(PARENTS[1:NUM_BODY_AND_ROOT])
    local = torch.cat([world[:1], world[parents].mT @ world[1:]])
    steps = positions[1:] - positions[parents]
    offsets = torch.cat([positions[:1], (world[parents].mT @ steps[..., None]).squeeze(-1)])
    return AvatarPose(bone_names(), local, offsets, world, positions)


def unity_points(points: Float[Tensor, "*batch 3"], floor_height: float) -> Float[Tensor, "*batch 3"]:
    """Points of the z-up world in Unity's, over the floor; meters."""
    return (points - points.new_tensor([0.0, 0.0, floor_height])) @ _UNITY_WORLD.mT


def unity_rotations(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotations of joints in Unity's axes: at rest, facing the world's z, they are the identity."""
    return _UNITY_WORLD @ R @ _MIRROR


def xyzw(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unity's quaternions."""
    return matrix_to_wxyz(R).roll(-1, dims=-1)


def euler_degrees(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Unity's Euler angles x, y, z in degrees: R = Ry Rx Rz, the turn about z first."""
    x = torch.asin((-R[..., 1, 2]).clamp(-1, 1))
    y = torch.atan2(R[..., 0, 2], R[..., 2, 2])
    z = torch.atan2(R[..., 1, 0], R[..., 1, 1])
    return torch.rad2deg(torch.stack([x, y, z], dim=-1))


@cache
def bone_names() -> list[str]:
    """Unity's names of SMPL-H's joints 0 to 21: VRM's with a capital letter."""
    names = vrm_bones()
    return [names[joint][0].upper() + names[joint][1:] for joint in JOINT_NAMES[:NUM_BODY_AND_ROOT]]


def _world_of(local: Float[Tensor, "joints 3 3"]) -> Float[Tensor, "joints 3 3"]:
    world = [local[0]]
    for joint in range(1, len(local)):
        world.append(world[PARENTS[joint]] @ local[joint])
    return torch.stack(world)
