"""The few rotation operations the library shares; conversions come from roma."""

from typing import cast

import roma
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from motion_grpo.geometry.procrustes import NearestRotation


def matrix_to_wxyz(rotmats: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions, real part first, from rotation matrices (Markley 2008, as in roma).

    Written out over whole rows: on one CPU core, 180,000 matrices take 0.019 s and by roma 1.8, which gathers through
    strided memory, 0.046 s.
    """
    R11, R12, R13, R21, R22, R23, R31, R32, R33 = rotmats.flatten(-2).movedim(-1, 0).contiguous()
    # 4 q q^T has these entries; the row with the largest diagonal is the quaternion, but for its length.
    ww, xx, yy, zz = 1 + R11 + R22 + R33, 1 + R11 - R22 - R33, 1 - R11 + R22 - R33, 1 - R11 - R22 + R33
    wx, wy, wz, xy, xz, yz = R32 - R23, R13 - R31, R21 - R12, R12 + R21, R13 + R31, R23 + R32
    largest = torch.maximum(torch.maximum(ww, xx), torch.maximum(yy, zz))

    def entry(w: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        rest = torch.where(xx == largest, x, torch.where(yy == largest, y, z))
        return torch.where(ww == largest, w, rest)

    rows = torch.stack(
        [entry(ww, wx, wy, wz), entry(wx, xx, xy, xz), entry(wy, xy, yy, yz), entry(wz, xz, yz, zz)], dim=-1
    )
    return rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)


def wxyz_to_matrix(wxyz: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices from quaternions, real part first; they are normalized here."""
    return roma.unitquat_to_rotmat(torch.nn.functional.normalize(roma.quat_wxyz_to_xyzw(wxyz), dim=-1))


def rotation_6d(rotmats: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """First two columns, row-major (Zhou et al., "On the Continuity of Rotation Representations", CVPR 2019)."""
    return rotmats[..., :2].flatten(-2)


def rotation_from_6d(values: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Inverse of :func:`rotation_6d` for any two columns that are not parallel (Gram-Schmidt).

    Parallel columns and zeros give a matrix that is finite, so that one bad frame spoils no gradient, but no rotation.
    """
    pairs = values.unflatten(-1, (3, 2))
    return roma.special_gramschmidt(pairs, epsilon=1e-8)  # pyright: ignore[reportArgumentType]  (roma says int)


def interpolate_rotations(
    start: Float[Tensor, "*#batch 3 3"], end: Float[Tensor, "*#batch 3 3"], weight: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch 3 3"]:
    """Slerp: ``start`` at weight 0, ``end`` at weight 1, a constant angular velocity between."""
    turn = roma.rotmat_to_rotvec(start.mT @ end)
    return start @ roma.rotvec_to_rotmat(weight[..., None] * turn)


def project_to_rotation(
    matrices: Float[Tensor, "*batch 3 3"], *, allow_reflection: bool = False
) -> Float[Tensor, "*batch 3 3"]:
    """The rotation nearest to each matrix (orthogonal Procrustes).

    Args:
        allow_reflection: return U V^T as it is, with determinant -1 where the matrix has a negative one. That is what
            EgoAllo's code does; it serves only to reproduce its numbers.
    """
    if allow_reflection:
        U, _, Vh = torch.linalg.svd(matrices)
        return U @ Vh
    return cast(Tensor, NearestRotation.apply(matrices))


def low_pass_rotations(rotmats: Float[Tensor, "*batch frames 3 3"], sigma: float) -> Float[Tensor, "*batch frames 3 3"]:
    """Rotations smoothed over time by a Gaussian ``sigma`` frames wide: the weighted chordal mean, cut off at 4 sigma.

    Beyond its ends a sequence goes on as its first and last rotation.
    """
    reach = int(4 * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=rotmats.device) / sigma).square())
    values = rotmats.flatten(-2).mT.reshape(-1, 1, rotmats.shape[-3])
    padded = torch.nn.functional.pad(values, (reach, reach), mode="replicate")
    smooth = torch.nn.functional.conv1d(padded, (weights / weights.sum()).to(rotmats.dtype).view(1, 1, -1))
    return project_to_rotation(smooth.reshape(*rotmats.shape[:-3], 9, -1).mT.unflatten(-1, (3, 3)))


def geodesic_angle(a: Float[Tensor, "*#batch 3 3"], b: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*batch"]:
    """The angle of the rotation from ``a`` to ``b``, 0 to pi radians, by their distance, sqrt(8) sin(angle / 2).

    The gradient is finite everywhere, and 0 where it is undefined: at equal rotations and at a half turn.
    """
    sine = torch.linalg.vector_norm(b - a, dim=(-2, -1)) / 8**0.5
    inside = sine.clamp_max(1 - 1e-6)
    angle = torch.asin(inside)
    return 2 * (angle + (torch.asin(sine.clamp_max(1.0)) - angle).detach())


def heading(R_world_cpf: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angle about the vertical, in radians, of the frame's z axis, which is where a CPF looks."""
    return torch.atan2(R_world_cpf[..., 1, 2], R_world_cpf[..., 0, 2])


def yaw_rotation(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation about the world's z axis by ``angle`` radians."""
    c, s, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def rotation_between(a: Float[Tensor, "*#batch 3"], b: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The smallest rotation that takes direction a to direction b."""
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (a, b))
    axis = torch.linalg.cross(a, b)
    sine = axis.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, (a * b).sum(-1, keepdim=True))
    return roma.rotvec_to_rotmat(axis / sine.clamp(min=1e-12) * angle)


def rotation_to_z(up: Float64[Tensor, "3"]) -> Float64[Tensor, "3 3"]:
    """The smallest rotation that takes the unit vector ``up`` to +z."""
    z = torch.tensor([0.0, 0.0, 1.0], dtype=up.dtype)
    axis, cosine = torch.linalg.cross(up, z), up[2]
    if axis.norm() < 1e-12:
        return (
            torch.eye(3, dtype=up.dtype) if cosine > 0 else torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=up.dtype))
        )
    return roma.rotvec_to_rotmat(axis / axis.norm() * torch.atan2(axis.norm(), cosine))
