"""Block-tridiagonal systems, solved in parallel over time: what couples a frame to its neighbors."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class _Level(NamedTuple):
    """Every second block, eliminated; ``odd`` of them stand between ``even`` ones."""

    inverse: Float[Tensor, "*batch odd k k"]
    """Of the Cholesky factor of each eliminated block."""
    left: Float[Tensor, "*batch odd k k"]
    """The coupling to the block before, in the factor's coordinates."""
    right: Float[Tensor, "*batch odd k k"]
    """To the block after; zero for the last one."""


class BlockTridiagonal:
    """Factors a symmetric positive definite block-tridiagonal matrix by cyclic reduction.

    Every second block is eliminated at once, which leaves a matrix of the same kind and half the size (Heller, "Some
    aspects of the cyclic reduction algorithm for block tridiagonal linear systems", 1976). That takes log2(frames)
    batched steps, where the textbook's sweep takes as many steps as there are frames, and a cost linear in them.

    A matrix that is not positive definite gives a solution that is not finite.

    Args:
        diagonal: the blocks on the diagonal.
        upper: block ``t`` couples frame ``t`` (rows) to frame ``t + 1`` (columns).
    """

    def __init__(
        self, diagonal: Float[Tensor, "*batch frames k k"], upper: Float[Tensor, "*batch frames-1 k k"]
    ) -> None:
        self.levels: list[_Level] = []
        while diagonal.shape[-3] > 1:
            frames, k = diagonal.shape[-3], diagonal.shape[-1]
            odd, even = diagonal[..., 1::2, :, :], diagonal[..., 0::2, :, :].clone()
            inverse = _inverse_factor(odd)
            left = inverse @ upper[..., 0::2, :, :].mT
            right = inverse[..., : (frames - 1) // 2, :, :] @ upper[..., 1::2, :, :]
            after = right.shape[-3]
            even[..., : odd.shape[-3], :, :] -= left.mT @ left
            even[..., 1 : after + 1, :, :] -= right.mT @ right
            upper = -left[..., :after, :, :].mT @ right
            # Where the last block was eliminated, nothing comes after it; all levels then add up the same way.
            if after < odd.shape[-3]:
                right = torch.cat([right, right.new_zeros(*right.shape[:-3], 1, k, k)], dim=-3)
            # Of an odd number of frames the last even one has no odd one behind it.
            upper = upper[..., : even.shape[-3] - 1, :, :]
            self.levels.append(_Level(inverse, left, right))
            diagonal = even
        self.last = _inverse_factor(diagonal)

    def solve(self, b: Float[Tensor, "*batch frames k columns"]) -> Float[Tensor, "*batch frames k columns"]:
        """The solution for a right-hand side."""
        forward = []
        for level in self.levels:
            even, y = b[..., 0::2, :, :].clone(), _product(level.inverse, b[..., 1::2, :, :])
            after = even.shape[-3] - 1
            even[..., : y.shape[-3], :, :] -= _product(level.left.mT, y)
            even[..., 1:, :, :] -= _product(level.right.mT, y)[..., :after, :, :]
            forward.append(y)
            b = even
        x = _product(self.last.mT, _product(self.last, b))
        for level, y in zip(reversed(self.levels), reversed(forward), strict=True):
            odd = y.shape[-3]
            y = y - _product(level.left, x[..., :odd, :, :])
            after = x.shape[-3] - 1
            y[..., :after, :, :] -= _product(level.right[..., :after, :, :], x[..., 1:, :, :])
            whole = x.new_empty(*x.shape[:-3], odd + x.shape[-3], *x.shape[-2:])
            whole[..., 0::2, :, :], whole[..., 1::2, :, :] = x, _product(level.inverse.mT, y)
            x = whole
        return x


def _inverse_factor(blocks: Float[Tensor, "*batch k k"]) -> Float[Tensor, "*batch k k"]:
    """Inverse of the Cholesky factor: products with it are faster than triangular solves."""
    if blocks.shape[-1] == 1:
        return blocks.rsqrt()
    factor, _ = torch.linalg.cholesky_ex(blocks)
    identity = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    return torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)


def _product(
    blocks: Float[Tensor, "*batch k k"], columns: Float[Tensor, "*batch k columns"]
) -> Float[Tensor, "*batch k columns"]:
    """The matrix product. A sum of products takes a third of the time of batched gemv on a CPU."""
    if blocks.shape[-1] == 1:
        return blocks * columns
    if columns.shape[-1] > 1:
        return blocks @ columns
    return (blocks * columns.mT).sum(-1, keepdim=True)
