"""Problems for the solver: EgoAllo's own, and how any becomes one dense system."""

from collections.abc import Callable

import torch
from safetensors.torch import load_file
from torch import Tensor

from motion_grpo.geometry.rotations import wxyz_to_matrix
from motion_grpo.guidance import so3
from motion_grpo.guidance.residuals import (
    TRUNK_AND_LEGS,
    Anchors,
    change_smoothness,
    pose_smoothness,
    prior_position,
    prior_rotation,
    skating,
    velocity_smoothness,
)
from motion_grpo.guidance.solver import FrameTerm, JointTerm, Problem, Terms
from tests.tiny import GOLDEN

ORDER = [joint - 1 for joint in TRUNK_AND_LEGS]


def golden(dtype: torch.dtype = torch.float32, frames: int = 128) -> tuple[dict[str, Tensor], Anchors]:
    """What EgoAllo's optimizer was given and found, and the same as anchors."""
    file = {name: x.to(dtype) for name, x in load_file(GOLDEN / "guidance_no_hands.safetensors").items()}
    head = file["T_world_cpf"][:frames]
    anchors = Anchors(
        rest_joints=file["rest_joints"][None, :22],
        cpf_offset=file["cpf_offset_from_head"][None],
        R_world_cpf=wxyz_to_matrix(head[:, :4]),
        p_world_cpf=head[:, 4:],
        rotations=so3.components_first(file["body_rotmats"][None, :frames]),
        contacts=file["contacts"][None, :frames],
    )
    return file, anchors


def egoallo_terms(anchors: Anchors) -> Callable[[Tensor], Terms]:
    """The mode without hands, with EgoAllo's weights."""
    start = anchors.place(anchors.rotations)

    def terms(R: Tensor) -> Terms:
        body = anchors.place(R)
        return {
            "prior_rotation": prior_rotation(anchors, R, 1.0),
            "prior_position": prior_position(body, start, 5.0),
            "change_smoothness": change_smoothness(anchors, R, 10.0),
            "pose_smoothness": pose_smoothness(R, 1.0),
            "velocity_smoothness": velocity_smoothness(R, 5.0),
            "skating": skating(anchors, body, 30.0),
        }

    return terms


def egoallo_problem(anchors: Anchors) -> Problem:
    return Problem(egoallo_terms(anchors), ORDER, len(ORDER))


def change_of(term: JointTerm | FrameTerm, v: Tensor, order: list[int]) -> Tensor:
    """``J v`` of one term, (3, batch, frames, joints) in."""
    change = 0
    for i, J in enumerate(term.jacobians):
        if isinstance(term, JointTerm):
            rows = term.residual.shape[-2]
            change = change + torch.einsum("xybtj,ybtj->xbtj", J, v[:, :, i : i + rows, term.joints])
        else:
            rows, joints = term.residual.shape[-2], J.shape[-1] // 3
            columns = v[..., order[:joints]].permute(1, 2, 0, 3).flatten(-2)
            change = change + torch.einsum("btmk,btk->btm", J, columns[:, i : i + rows])
    return change


def dense(terms: Terms, like: Tensor, order: list[int]) -> tuple[Tensor, Tensor]:
    """Residual and Jacobian of a problem of one as a vector and a matrix."""
    residuals, rows_of_all = [], []
    for term in terms.values():
        leads = isinstance(term, JointTerm)
        rows = term.residual.shape[-2]
        size = term.residual.numel() // rows
        J = torch.zeros(
            rows, size, *like.shape[:1], *like.shape[2:], dtype=like.dtype
        )  # rows, values, 3, frames, joints
        for i, part in enumerate(term.jacobians):
            for t in range(rows):
                if leads:
                    joints = range(*term.joints.indices(like.shape[-1]))
                    for number, joint in enumerate(joints):
                        J[t].view(3, -1, *J.shape[2:])[:, number, :, t + i, joint] = part[:, :, 0, t, number]
                else:
                    used = order[: part.shape[-1] // 3]
                    J[t][:, :, t + i, used] = part[0, t].unflatten(-1, (3, -1))
        residual = term.residual[:, 0].transpose(0, 1) if leads else term.residual[0]
        residuals.append(residual.flatten())
        rows_of_all.append(J.flatten(2).flatten(0, 1))
    return torch.cat(residuals), torch.cat(rows_of_all)
