"""Rotations with their components in front, (3, 3, batch, frames, joints): on a CPU products take a fifth of the time.

Thousands of 3x3 products are nine sums over long rows of memory this way, and a call of a small routine each the usual
way round. Only the solver and its residuals use it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.geometry.rotations import matrix_to_wxyz


def components_first(rotmats: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "3 3 *batch"]:
    """From the library's usual layout."""
    return rotmats.movedim((-2, -1), (0, 1)).contiguous()


def components_last(rotmats: Float[Tensor, "3 3 *batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Back to it."""
    return rotmats.movedim((0, 1), (-2, -1)).contiguous()


def product(A: Float[Tensor, "3 3 *batch"], B: Float[Tensor, "3 3 *batch"]) -> Float[Tensor, "3 3 *batch"]:
    """The products ``A B``."""
    result = A[:, 0, None] * B[0]
    return result.addcmul_(A[:, 1, None], B[1]).addcmul_(A[:, 2, None], B[2])


def product_from(A: Float[Tensor, "3 3 *batch"], B: Float[Tensor, "3 3 *batch"]) -> Float[Tensor, "3 3 *batch"]:
    """The products ``A^T B``: B as seen from A."""
    return product(transposed(A), B)


def add_product_from(
    result: Float[Tensor, "3 3 *batch"], A: Float[Tensor, "3 3 *batch"], B: Float[Tensor, "3 3 *batch"]
) -> None:
    """Adds ``A^T B`` to a tensor."""
    for row in range(3):
        result.addcmul_(A[row, :, None], B[row])


def times(A: Float[Tensor, "3 3 *batch"], v: Float[Tensor, " 3 *batch"]) -> Float[Tensor, " 3 *batch"]:
    """The vectors ``A v``."""
    return (A[:, 0] * v[0]).addcmul_(A[:, 1], v[1]).addcmul_(A[:, 2], v[2])


def add_times(
    result: Float[Tensor, " 3 *batch"], A: Float[Tensor, "3 3 *batch"], v: Float[Tensor, " 3 *batch"]
) -> None:
    """Adds ``A v`` to a tensor."""
    for column in range(3):
        result.addcmul_(A[:, column], v[column])


def transposed(A: Float[Tensor, "3 3 *batch"]) -> Float[Tensor, "3 3 *batch"]:
    """The transposes ``A^T``."""
    return A.transpose(0, 1)


def exp(v: Float[Tensor, " 3 *batch"]) -> Float[Tensor, "3 3 *batch"]:
    """The rotation by a rotation vector (Rodrigues)."""
    angle = (v * v).sum(0).sqrt()
    # sin(a) / a and (1 - cos(a)) / a^2, which have no trouble at 0.
    turned = v * torch.sinc(angle / torch.pi)
    R = (v * (torch.sinc(angle / (2 * torch.pi)).square() / 2))[:, None] * v
    straight = angle.cos()
    for axis in range(3):
        R[axis, axis] += straight
        R[axis - 2, axis] += turned[axis - 1]
        R[axis, axis - 2] -= turned[axis - 1]
    return R


def log(rotmats: Float[Tensor, "3 3 *batch"]) -> tuple[Float[Tensor, " 3 *batch"], Float[Tensor, "3 3 *batch"]]:
    """Rotation vectors of rotations, and how they change.

    The Jacobian of ``log(R exp(delta)) = r + J delta`` is the inverse of SO(3)'s right Jacobian (Sola et al., "A micro
    Lie theory for state estimation in robotics", 2018, Eq. 144); its transpose is the inverse of the left one:
    ``log(exp(delta) R) = r + J^T delta``.
    """
    w, v = _quaternion(rotmats)
    sine = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt()
    half = torch.atan2(sine, w)
    small = sine < 1e-4
    divisor = torch.where(small, 1.0, sine)
    r = v * torch.where(small, 2.0, 2 * half / divisor)
    bend = torch.where(half < 5e-3, 1 / 12, (1 - half * w / divisor) / (4 * half * half).clamp_min(1e-12))
    jacobian = (bend * r)[:, None] * r
    straight = 1 - 4 * bend * half * half
    for axis in range(3):
        jacobian[axis, axis] += straight
        jacobian[axis - 2, axis] += r[axis - 1] / 2
        jacobian[axis, axis - 2] -= r[axis - 1] / 2
    return r, jacobian


def _quaternion(R: Float[Tensor, "3 3 *batch"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, " 3 *batch"]]:
    """w, which is not negative, and x, y, z."""
    square = (1 + R[0, 0] + R[1, 1] + R[2, 2]) / 4
    if bool((square < 0.01).any()):
        # Rounding eats w where a turn is nearly a half one; such are rare, and the general way takes three times as
        # long. q and -q are one rotation.
        w, *v = matrix_to_wxyz(components_last(R)).unbind(-1)
        return w.abs(), torch.where(w < 0, -1.0, 1.0) * torch.stack(v)
    w = square.sqrt()
    return w, torch.stack([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / (4 * w)
