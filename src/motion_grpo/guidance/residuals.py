"""What guidance asks of a motion: each residual one function, with its weight and unit (EgoAllo, Sec. 3.4, its code).

Each returns the weighted residual and its Jacobian with respect to the local rotations of the frames that it couples;
the solver sums the squares. Rotations are perturbed on the right, ``R exp(delta)``; in every frame the body is hung
from the head, so positions are in the world, meters, floor at z = 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import FOOT_JOINTS, NUM_BODY_AND_ROOT, NUM_BODY_JOINTS, WRIST_JOINTS, PosedBody, place_by_head
from motion_grpo.guidance import so3
from motion_grpo.guidance.kinematics import position_jacobian, rotation_jacobian
from motion_grpo.guidance.solver import FrameTerm, JointTerm
from motion_grpo.guidance.terrain import Terrain

Rotations = Float[Tensor, "3 3 batch frames local"]
"""Local rotations, components first (:mod:`~motion_grpo.guidance.so3`)."""

TORSO_JOINTS: tuple[int, ...] = (1, 2, 3, 6, 9)
"""Hips and spine: where they are, the prior holds them."""
TRUNK_AND_LEGS: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15)
"""Joints that move feet or torso of a body that hangs from its head."""
ARMS: tuple[int, ...] = (13, 14, 16, 17, 18, 19, 20, 21)
FINGERS: tuple[int, ...] = tuple(range(NUM_BODY_AND_ROOT, 52))
BODY, HANDS = slice(0, NUM_BODY_JOINTS), slice(NUM_BODY_JOINTS, None)
KEYPOINTS_OF_HAND: tuple[tuple[int, ...], ...] = ((20, *range(22, 37)), (21, *range(37, 52)))
"""SMPL-H joints that HaMeR's key points without finger tips are: wrist, index, middle, little, ring finger, thumb."""
GROUND_JOINTS: tuple[int, ...] = (0, 4, 5, *FOOT_JOINTS)
_NEAREST = 0.05
"""Meters in front of a camera, nearer than which nothing is projected."""


@dataclass(frozen=True, eq=False)
class Anchors:
    """What a motion is held against: where it came from, and the head it hangs from. Batch is over samples."""

    rest_joints: Float[Tensor, "batch joints 3"]
    """22, or 52 where fingers are optimized; meters."""
    cpf_offset: Float[Tensor, "batch 3"]
    R_world_cpf: Float[Tensor, "frames 3 3"]
    p_world_cpf: Float[Tensor, "frames 3"]
    rotations: Rotations
    """Before guidance, without the root."""
    contacts: Float[Tensor, "batch frames 21"]
    """Probability that a body joint rests on the ground, in [0, 1]."""

    def place(self, rotations: Rotations) -> PosedBody:
        """The body in the world."""
        local = so3.components_last(rotations)
        return place_by_head(
            self.rest_joints[:, None], self.cpf_offset[:, None], local, self.R_world_cpf, self.p_world_cpf
        )


class SeenHands(NamedTuple):
    """What was seen of the hands in each frame, left then right, in the world of :class:`Anchors`."""

    confidence: Float[Tensor, "frames 2"]
    """Of the wrist, in [0, 1]; 0 where it was not seen."""
    R_world_wrist: Float[Tensor, "frames 2 3 3"]
    p_world_wrist: Float[Tensor, "frames 2 3"]
    fingers: Float[Tensor, "3 3 frames 30"] | None = None
    """Local rotations, components first."""
    fingers_seen: Float[Tensor, "frames 30"] | None = None
    """1 where fingers were seen, else 0."""
    image: Float[Tensor, "frames 2 16 2"] | None = None
    """Key points of each hand (KEYPOINTS_OF_HAND) in the image, in focal lengths from its middle."""
    image_seen: Float[Tensor, "frames 2"] | None = None
    R_cpf_camera: Float[Tensor, "3 3"] | None = None
    p_cpf_camera: Float[Tensor, "3"] | None = None


def prior_rotation(anchors: Anchors, R: Rotations, weight: float, joints: slice = BODY) -> JointTerm:
    """``log(R^-1 R_start)`` of each joint; weight per radian."""
    residual, jacobian = so3.log(so3.product_from(R[..., joints], anchors.rotations[..., joints]))
    return JointTerm(weight * residual, (-weight * so3.transposed(jacobian),), joints)


def prior_position(body: PosedBody, start: PosedBody, weight: float) -> FrameTerm:
    """Hips and spine, against where they were; weight per meter."""
    change = body.joints[..., TORSO_JOINTS, :] - start.joints[..., TORSO_JOINTS, :]
    return FrameTerm(weight * change.flatten(-2), (weight * position_jacobian(body, TORSO_JOINTS, TRUNK_AND_LEGS),))


def change_smoothness(anchors: Anchors, R: Rotations, weight: float) -> JointTerm:
    """``log(D_t^-1 D_t+1)`` with ``D = R^-1 R_start``: neighbors change alike; weight per radian."""
    change = so3.product_from(R[..., BODY], anchors.rotations[..., BODY])
    now, after = change[..., :-1, :], change[..., 1:, :]
    residual, jacobian = so3.log(so3.product_from(now, after))
    jacobian = weight * so3.product(jacobian, so3.transposed(after))
    return JointTerm(weight * residual, (jacobian, -jacobian), BODY)


def pose_smoothness(R: Rotations, weight: float, joints: slice = BODY) -> JointTerm:
    """``log(R_t^-1 R_t+1)``; weight per radian."""
    residual, jacobian = so3.log(so3.product_from(R[..., :-1, joints], R[..., 1:, joints]))
    return JointTerm(weight * residual, (-weight * so3.transposed(jacobian), weight * jacobian), joints)


def velocity_smoothness(R: Rotations, weight: float) -> JointTerm:
    """``log(V_t^-1 V_t+1)`` with ``V_t = R_t^-1 R_t+1``; weight per radian."""
    velocity = so3.product_from(R[..., :-1, BODY], R[..., 1:, BODY])
    now, after = velocity[..., :-1, :], velocity[..., 1:, :]
    residual, jacobian = so3.log(so3.product_from(now, after))
    jacobian = weight * jacobian
    first = so3.product(jacobian, so3.transposed(after))
    return JointTerm(weight * residual, (first, -so3.transposed(jacobian) - first, jacobian), BODY)


def skating(anchors: Anchors, body: PosedBody, weight: float) -> FrameTerm:
    """Steps of ankles and toes from frame to frame, times how surely they stand (mean of both frames); per meter."""
    feet = [joint - 1 for joint in FOOT_JOINTS]
    standing = weight * (anchors.contacts[:, :-1, feet] + anchors.contacts[:, 1:, feet]) / 2
    step = body.joints[:, :-1, FOOT_JOINTS] - body.joints[:, 1:, FOOT_JOINTS]
    jacobian = position_jacobian(body, FOOT_JOINTS, TRUNK_AND_LEGS)
    rows = standing.repeat_interleave(3, dim=-1)[..., None]
    return FrameTerm((standing[..., None] * step).flatten(-2), (rows * jacobian[:, :-1], -rows * jacobian[:, 1:]))


def wrist_position(body: PosedBody, hands: SeenHands, weight: float) -> FrameTerm:
    """Wrists, against where they were seen, times the confidence; weight per meter."""
    trust = weight * hands.confidence
    error = body.joints[..., WRIST_JOINTS, :] - hands.p_world_wrist
    jacobian = position_jacobian(body, WRIST_JOINTS, (*TRUNK_AND_LEGS, *ARMS))
    return FrameTerm((trust[..., None] * error).flatten(-2), (trust.repeat_interleave(3, -1)[..., None] * jacobian,))


def wrist_rotation(body: PosedBody, hands: SeenHands, weight: float) -> FrameTerm:
    """``log(R_seen^-1 R)`` of the wrists, times the confidence; weight per radian."""
    trust = weight * hands.confidence
    error = hands.R_world_wrist.mT @ body.rotmats[..., WRIST_JOINTS, :, :]
    residual, jacobian = so3.log(so3.components_first(error))
    jacobian = so3.components_last(jacobian) @ rotation_jacobian(body, WRIST_JOINTS, (*TRUNK_AND_LEGS, *ARMS))
    rows = trust.repeat_interleave(3, -1)
    return FrameTerm(rows * residual.movedim(0, -1).flatten(-2), (rows[..., None] * jacobian.flatten(-3, -2),))


def finger_rotation(R: Rotations, hands: SeenHands, weight: float) -> JointTerm:
    """``log(R^-1 R_seen)`` of the finger joints where they were seen; weight per radian."""
    seen = weight * hands.fingers_seen
    target = hands.fingers[:, :, None].expand(-1, -1, R.shape[2], -1, -1)
    residual, jacobian = so3.log(so3.product_from(R[..., HANDS], target))
    return JointTerm(seen * residual, (-seen * so3.transposed(jacobian),), HANDS)


def reprojection(anchors: Anchors, body: PosedBody, hands: SeenHands, weight: float) -> FrameTerm:
    """Hand joints in the image, against the key points seen; weight per focal length."""
    points = [joint for side in KEYPOINTS_OF_HAND for joint in side]
    R_world_camera = anchors.R_world_cpf @ hands.R_cpf_camera
    p_world_camera = anchors.p_world_cpf + (anchors.R_world_cpf @ hands.p_cpf_camera)
    there = (body.joints[..., points, :] - p_world_camera[:, None]) @ R_world_camera
    depth = there[..., 2:].clamp_min(_NEAREST)
    image = there[..., :2] / depth
    seen = hands.image_seen.repeat_interleave(16, dim=-1)[..., None] * (there[..., 2:] > _NEAREST) * weight
    # Derivative of the projection, (2, 3), in the camera; then turned into the world.
    inward = torch.eye(2, 3).to(there).expand(*image.shape, 3).clone()
    inward[..., 2] = -image
    inward = (seen / depth)[..., None] * inward @ R_world_camera[:, None].mT
    jacobian = position_jacobian(body, points, (*TRUNK_AND_LEGS, *ARMS, *FINGERS)).unflatten(-2, (-1, 3))
    return FrameTerm((seen * (image - hands.image.flatten(-3, -2))).flatten(-2), ((inward @ jacobian).flatten(-3, -2),))


def penetration(body: PosedBody, terrain: Terrain | None, weight: float) -> FrameTerm:
    """Depth of pelvis, knees and feet below the floor or a terrain; weight per meter. Not one of EgoAllo's."""
    points = body.joints[..., GROUND_JOINTS, :]
    jacobian = position_jacobian(body, GROUND_JOINTS, TRUNK_AND_LEGS).unflatten(-2, (-1, 3))
    height, slope = points.new_zeros(()), points.new_zeros(2)
    if terrain is not None:
        height, slope = terrain.at(points[..., :2])
    depth = height - points[..., 2]
    rising = (slope[..., None] * jacobian[..., :2, :]).sum(-2) - jacobian[..., 2, :]
    below = weight * (depth > 0)
    return FrameTerm(below * depth, (below[..., None] * rising,))
