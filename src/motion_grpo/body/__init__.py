"""SMPL-H kinematics: joint lists, skeletons, forward kinematics and the head frame."""

from motion_grpo.body.joints import (
    BODY_JOINT_NAMES,
    FOOT_JOINTS,
    HEAD,
    JOINT_NAMES,
    LEVELS,
    MIRROR,
    NECK,
    NUM_BETAS,
    NUM_BODY_AND_ROOT,
    NUM_BODY_JOINTS,
    NUM_HAND_JOINTS,
    NUM_JOINTS,
    PARENTS,
    PELVIS,
    WRIST_JOINTS,
)
from motion_grpo.body.kinematics import PosedBody, cpf_of, forward_kinematics, place_by_head
from motion_grpo.body.skeleton import STATURES, Skeleton
from motion_grpo.body.surface import BodySurface, skinned

__all__ = [
    "BODY_JOINT_NAMES",
    "FOOT_JOINTS",
    "HEAD",
    "JOINT_NAMES",
    "LEVELS",
    "MIRROR",
    "NECK",
    "NUM_BETAS",
    "NUM_BODY_AND_ROOT",
    "NUM_BODY_JOINTS",
    "NUM_HAND_JOINTS",
    "NUM_JOINTS",
    "PARENTS",
    "PELVIS",
    "STATURES",
    "WRIST_JOINTS",
    "BodySurface",
    "PosedBody",
    "Skeleton",
    "cpf_of",
    "forward_kinematics",
    "place_by_head",
    "skinned",
]  # fmt: skip
