"""The rotation nearest to a matrix in closed form, without a decomposition that a GPU would have to wait for.

The quaternion q of the nearest rotation maximizes q^T N q, with N linear in the matrix (Horn 1987, "Closed-form
solution of absolute orientation using unit quaternions"). All four eigenvalues of N follow from the singular values,
and the eigenvector is a column of the product of N - mu I over the other three. Nothing in it waits for a result or
branches on one, so that it can be part of a CUDA graph. In float64, whatever comes in.
"""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

_SEPARATE = 1e-7
"""Eigenvalues closer than this, relative to the norm of the matrix, count as one: any of their rotations is nearest."""
_DAMPING = 1e-5
"""Of the gradient where the nearest rotation is hardly defined."""


class NearestRotation(torch.autograd.Function):
    """Orthogonal Procrustes among proper rotations, (..., 3, 3) of any precision; differentiable once."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        """The rotation R that is nearest to each matrix."""
        M = matrices.double()
        R = _nearest(M)
        ctx.save_for_backward(M, R)
        return R.to(matrices.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """A change dM turns R by R hat(w), where (tr(S) I - S) w = vex(R^T dM - dM^T R) and S = R^T M."""
        M, R = ctx.saved_tensors
        S = _times(R.mT, M)
        S = (S + S.mT) / 2
        scale = M.flatten(-2).norm(dim=-1).clamp(min=1e-300)[..., None, None]
        eye = torch.eye(3, dtype=M.dtype, device=M.device)
        T = (S.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] * eye - S) / scale
        turn = _times(R.mT, gradient.double())
        # T (T^2 + damping^2)^-1, which is T^-1 wherever that is sound.
        damped = _inverse(_times(T, T) + _DAMPING**2 * eye)
        w = _times(damped, _times(T, _vex(turn)[..., None]))[..., 0]
        return (_times(R, _hat(w)) / scale).to(gradient.dtype)


def _nearest(M: Float64[Tensor, "*batch 3 3"]) -> Float64[Tensor, "*batch 3 3"]:
    eye = torch.eye(3, dtype=M.dtype, device=M.device)
    norm = M.flatten(-2).norm(dim=-1)[..., None, None]
    M = torch.where(norm > 0, M / norm.clamp(min=1e-300), eye * 3**-0.5)
    # The largest singular value by the trigonometric solution of the cubic (Smith 1961); the others, the last with the
    # determinant's sign, by the sum of their squares and their product.
    K = _times(M.mT, M) - eye / 3
    p = K.flatten(-2).square().sum(-1) / 6
    angle = torch.acos((_det(K) / (2 * p**1.5).clamp(min=1e-300)).clamp(-1, 1)) / 3
    first = (1 / 3 + 2 * p.sqrt() * angle.cos()).sqrt()
    product = _det(M) / first
    squares = (1 - first * first).clamp(min=2 * product.abs())
    plus, minus = (squares + 2 * product).sqrt(), (squares - 2 * product).sqrt()
    largest, others = first + plus, torch.stack([first - plus, minus - first, -minus - first], dim=-1)

    to_horn = _horn_map(M.device)
    N = (M.flatten(-2) @ to_horn).unflatten(-1, (4, 4))
    eye = torch.eye(4, dtype=M.dtype, device=M.device)
    factors = N[..., None, :, :] - others[..., None, None] * eye
    separate = largest[..., None] - others > _SEPARATE
    factors = torch.where(separate[..., None, None], factors, eye)
    projector = _times(_times(factors[..., 0, :, :], factors[..., 1, :, :]), factors[..., 2, :, :])
    longest = projector.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    q = projector.gather(-1, longest[..., None, None].expand(*longest.shape, 4, 1))[..., 0]
    q = q / q.norm(dim=-1, keepdim=True)
    # The map's adjoint takes q q^T to the rotation.
    return ((q[..., :, None] * q[..., None, :]).flatten(-2) @ to_horn.mT).unflatten(-1, (3, 3))


@lru_cache(maxsize=8)
def _horn_map(device: torch.device) -> Float64[Tensor, "9 16"]:
    """From the entries of a matrix to those of Horn's N, for quaternions xyzw; made once."""
    with torch.inference_mode(False), torch.no_grad():
        a, b, c, d, e, f, g, h, i = torch.eye(9, dtype=torch.float64, device=device).unbind(1)
        rows = [
            [a - e - i, b + d, c + g, h - f],
            [b + d, e - a - i, f + h, c - g],
            [c + g, f + h, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
        return torch.stack([entry for row in rows for entry in row], dim=-1)


def _times(a: Float64[Tensor, "*batch n m"], b: Float64[Tensor, "*batch m k"]) -> Float64[Tensor, "*batch n k"]:
    """The matrix product; for so small ones a GPU is faster at the sum of products."""
    return a @ b if a.device.type == "cpu" else (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def _det(a: Float64[Tensor, "*batch 3 3"]) -> Float64[Tensor, "*batch"]:
    return (a[..., 0, :] * torch.linalg.cross(a[..., 1, :], a[..., 2, :])).sum(-1)


def _inverse(a: Float64[Tensor, "*batch 3 3"]) -> Float64[Tensor, "*batch 3 3"]:
    """Of symmetric positive definite matrices, by cofactors."""
    x, y, z = a.unbind(-2)
    cofactors = torch.stack([torch.linalg.cross(y, z), torch.linalg.cross(z, x), torch.linalg.cross(x, y)], dim=-2)
    return cofactors / (x * cofactors[..., 0, :]).sum(-1)[..., None, None]


def _vex(a: Float64[Tensor, "*batch 3 3"]) -> Float64[Tensor, "*batch 3"]:
    """The axis of a - a^T."""
    return torch.stack([a[..., 2, 1] - a[..., 1, 2], a[..., 0, 2] - a[..., 2, 0], a[..., 1, 0] - a[..., 0, 1]], dim=-1)


def _hat(w: Float64[Tensor, "*batch 3"]) -> Float64[Tensor, "*batch 3 3"]:
    """The cross product with w as a matrix."""
    x, y, z = w.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
