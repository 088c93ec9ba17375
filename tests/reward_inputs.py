"""What tests of rewards share."""

import roma
import torch
from torch import Tensor

from motion_grpo.body import HEAD
from motion_grpo.rewards import (
    RewardInputs,
)
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import moving_motion

FPS = 30.0


def inputs_of(rotmats: Tensor, joints: Tensor, true_rotmats: Tensor, true_joints: Tensor) -> RewardInputs:
    """With a head that is where the head joint is, and every frame counting."""
    R_world_cpf = torch.eye(3).repeat(*joints.shape[:2], 1, 1)
    return RewardInputs(
        body_rotmats=rotmats,
        joints=joints,
        contacts=torch.zeros(*joints.shape[:2], 21),
        head=HeadPoses.from_world(R_world_cpf, true_joints[:, :, HEAD]),
        mask=torch.ones(joints.shape[:2], dtype=torch.bool),
        fps=FPS,
        true_body_rotmats=true_rotmats,
        true_joints=true_joints,
        true_contacts=torch.ones(*joints.shape[:2], 21),
    )


def inputs(seed: int = 0, samples: int = 3, frames: int = 20) -> RewardInputs:
    """Moving bodies, and the same bodies in poses some way off."""
    motions = [moving_motion(frames, k) for k in range(samples)]
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(samples, *shape, generator=generator)

    true_rotmats = torch.stack([motion.body_rotmats for motion in motions])
    true_joints = torch.stack([motion.joints[:, :22] for motion in motions])
    rotmats = true_rotmats @ roma.rotvec_to_rotmat(0.2 * draw(1, 21, 3) + 0.05 * draw(frames, 21, 3))
    offsets = 0.015 * draw(1, 22, 3) + 0.005 * draw(frames, 22, 3)  # bones keep their length to 5 cm
    return inputs_of(rotmats, true_joints + offsets, true_rotmats, true_joints)


def still(frames: int = 6, samples: int = 1) -> RewardInputs:
    """A perfect motion: every joint rests, half of them at x = 0.2, half at -0.2, 1 m above the floor."""
    joints = torch.tensor([0.0, 0.0, 1.0]).repeat(samples, frames, 22, 1)
    joints[:, :, ::2, 0], joints[:, :, 1::2, 0] = 0.2, -0.2
    rotmats = torch.eye(3).repeat(samples, frames, 21, 1, 1)
    return inputs_of(rotmats, joints, rotmats, joints)
