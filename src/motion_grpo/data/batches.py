"""From windows of recorded motion to what a training step needs: augmentation, head poses, clean state."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motion_grpo.body import NUM_BODY_AND_ROOT, NUM_HAND_JOINTS, Skeleton, cpf_of, forward_kinematics
from motion_grpo.data.clips import mirror, mirror_contacts
from motion_grpo.geometry.rotations import wxyz_to_matrix
from motion_grpo.motion import MotionState
from motion_grpo.trajectory.head_poses import HeadPoses

BODY_SIZES = (-3.5, 3.5)
"""betas[0] of the smallest and largest body that :class:`Augmentation` makes: 1.37 and 2.07 m on the default one."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a window that leave it a real motion."""

    mirror: float = 0.5
    """Probability of exchanging left and right."""
    body_size: float = 0.0
    """Probability of giving the motion to a body of another stature (travel scaled with the legs)."""
    body_size_std: float = 1.0
    """Standard deviation of the change of betas[0]; 1 is about 0.1 m of stature. The result is kept within
    :data:`BODY_SIZES`."""


class TrainingBatch(NamedTuple):
    """Ground truth of a batch of windows."""

    state: MotionState
    head: HeadPoses
    joints: Float[Tensor, "batch frames 22 3"]
    """World positions above a floor at z = 0, meters."""
    rotmats: Float[Tensor, "batch frames 22 3 3"]
    """R_world_root, then local rotations."""
    world_rotmats: Float[Tensor, "batch frames 22 3 3"]
    """R_world_joint."""
    mask: Bool[Tensor, "batch frames"]
    starts: Bool[Tensor, " batch"]
    """Windows that begin with their clip: no step leads to their first frame."""


class HeadBatch(NamedTuple):
    """A batch of windows of heads whose bodies nobody recorded."""

    head: HeadPoses
    mask: Bool[Tensor, "batch frames"]
    starts: Bool[Tensor, " batch"]
    """As in :class:`TrainingBatch`."""


def head_batch(windows: dict[str, Tensor]) -> HeadBatch:
    """Head poses of a collated batch of :class:`~motion_grpo.data.HeadWindows`; steps as in :func:`training_batch`."""
    R, p = windows["R_world_cpf"], windows["p_world_cpf"]
    starts = ~windows["has_previous"]
    head = HeadPoses.from_world(R, p).window(1, R.shape[1])
    return HeadBatch(head.without_previous(starts), windows["mask"], starts)


def training_batch(
    windows: dict[str, Tensor], skeleton: Skeleton, include_hands: bool, augmentation: Augmentation | None = None
) -> TrainingBatch:
    """Head poses and clean state of a collated batch of :class:`~motion_grpo.data.MotionWindows`.

    The first frame of a window is conditioned on the step that led to it where the clip has an earlier frame, and on
    the step that follows where it has not, as the pipeline does at the start of a trajectory.
    """
    rotmats, positions, contacts = _rotmats(windows), windows["root_positions"], windows["contacts"]
    betas = windows["betas"]
    if augmentation is not None:
        rotmats, positions, contacts, betas = _augment(rotmats, positions, contacts, betas, skeleton, augmentation)
    frames = rotmats.shape[1]
    betas = betas[:, None].expand(-1, frames, -1)
    rest_joints = skeleton.rest_joints(betas[:, :1])[..., :NUM_BODY_AND_ROOT, :]
    body = forward_kinematics(rest_joints, rotmats, positions)
    R_world_cpf, p_world_cpf = cpf_of(body, skeleton.cpf_offset(betas))
    head = HeadPoses.from_world(R_world_cpf, p_world_cpf).window(1, frames)
    starts = ~windows["has_previous"]
    hands = None
    if include_hands:
        hands = torch.eye(3, device=rotmats.device).expand(*rotmats.shape[:1], frames - 1, NUM_HAND_JOINTS, 3, 3)
    return TrainingBatch(
        state=MotionState(betas[:, 1:], rotmats[:, 1:, 1:], contacts[:, 1:], hands),
        head=head.without_previous(starts),
        joints=body.joints[:, 1:],
        rotmats=rotmats[:, 1:],
        world_rotmats=body.rotmats[:, 1:],
        mask=windows["mask"],
        starts=starts,
    )


def _rotmats(windows: dict[str, Tensor]) -> Float[Tensor, "batch frames 22 3 3"]:
    if "rotmats" in windows:
        return windows["rotmats"]
    return wxyz_to_matrix(torch.cat([windows["root_wxyz"][..., None, :], windows["body_wxyz"]], dim=-2))


def _augment(
    rotmats: Tensor, positions: Tensor, contacts: Tensor, betas: Tensor, skeleton: Skeleton, augmentation: Augmentation
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch = len(rotmats)
    flip = torch.rand(batch, device=rotmats.device) < augmentation.mirror
    mirrored, mirrored_positions = mirror(rotmats, positions)
    rotmats = torch.where(flip[:, None, None, None, None], mirrored, rotmats)
    positions = torch.where(flip[:, None, None], mirrored_positions, positions)
    contacts = torch.where(flip[:, None, None], mirror_contacts(contacts), contacts)
    if augmentation.body_size > 0:
        resize = torch.rand(batch, device=rotmats.device) < augmentation.body_size
        change = torch.randn(batch, device=rotmats.device) * augmentation.body_size_std * resize
        resized = betas.clone()
        resized[:, 0] = torch.where(resize, (betas[:, 0] + change).clamp(*BODY_SIZES), betas[:, 0])
        positions = positions * (skeleton.leg_length(resized) / skeleton.leg_length(betas))[:, None, None]
        betas = resized
    return rotmats, positions, contacts, betas
