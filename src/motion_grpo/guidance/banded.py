"""Block-tridiagonal systems, solved in parallel over time: what couples a frame to its neighbors."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class _Level(NamedTuple):
    """Every second block, eliminated; ``odd`` of them stand between ``even`` ones."""

    inverse: Float[Tensor, "*batch odd k k"]
    left: Float[Tensor, "*batch odd k k"]
    """That, times the coupling to the block before."""
    right: Float[Tensor, "*batch even-1 k k"]
    """That, times the coupling to the block after, where there is one."""


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
            odd, even = diagonal[..., 1::2, :, :], diagonal[..., 0::2, :, :].clone()
            before, after = upper[..., 0::2, :, :], upper[..., 1::2, :, :].mT
            count, behind = odd.shape[-3], after.shape[-3]
            inverse = _inverse(odd)
            left, right = inverse @ before.mT, inverse[..., :behind, :, :] @ after.mT
            even[..., :count, :, :] -= before @ left
            even[..., 1:, :, :] -= after @ right
            upper = -before[..., :behind, :, :] @ right
            self.levels.append(_Level(inverse, left, right))
            diagonal = even
        self.last = _inverse(diagonal)

    def solve(self, b: Float[Tensor, "*batch frames k"]) -> Float[Tensor, "*batch frames k"]:
        """The solution for a right-hand side."""
        alone = []
        for inverse, left, right in self.levels:
            odd, even = b[..., 1::2, :], b[..., 0::2, :].clone()
            even[..., : odd.shape[-2], :] -= _row_times(odd, left)
            even[..., 1:, :] -= _row_times(odd[..., : right.shape[-3], :], right)
            alone.append(_row_times(odd, inverse))
            b = even
        x = _row_times(b, self.last)
        for (_, left, right), own in zip(reversed(self.levels), reversed(alone), strict=True):
            own -= _row_times(x[..., : own.shape[-2], :], left.mT)
            own[..., : right.shape[-3], :] -= _row_times(x[..., 1:, :], right.mT)
            whole = x.new_empty(*x.shape[:-2], x.shape[-2] + own.shape[-2], x.shape[-1])
            whole[..., 0::2, :], whole[..., 1::2, :] = x, own
            x = whole
        return x


class Tridiagonal:
    """Many systems of numbers instead of blocks, solved the same way; time leads, so that rows of memory are long.

    Args:
        diagonal: of each system.
        upper: couples frame ``t`` to frame ``t + 1``.
    """

    def __init__(self, diagonal: Float[Tensor, " frames *many"], upper: Float[Tensor, " frames-1 *many"]) -> None:
        self.levels: list[tuple[Tensor, Tensor, Tensor]] = []
        while len(diagonal) > 1:
            odd, even = diagonal[1::2], diagonal[0::2].clone()
            before, after = upper[0::2], upper[1::2]
            left, right = before / odd, after / odd[: len(after)]
            even[: len(odd)] -= before * left
            even[1:] -= after * right
            upper = -before[: len(after)] * right
            self.levels.append((1 / odd, left, right))
            diagonal = even
        self.last = 1 / diagonal

    def solve(self, b: Float[Tensor, " frames *many"]) -> Float[Tensor, " frames *many"]:
        """The solution for a right-hand side."""
        alone = []
        for inverse, left, right in self.levels:
            odd, even = b[1::2], b[0::2].clone()
            even[: len(odd)] -= left * odd
            even[1:] -= right * odd[: len(right)]
            alone.append(inverse * odd)
            b = even
        x = b * self.last
        for (_, left, right), own in zip(reversed(self.levels), reversed(alone), strict=True):
            own -= left * x[: len(own)]
            own[: len(right)] -= right * x[1:]
            whole = x.new_empty(len(x) + len(own), *x.shape[1:])
            whole[0::2], whole[1::2] = x, own
            x = whole
        return x


def _inverse(blocks: Float[Tensor, "*batch k k"]) -> Float[Tensor, "*batch k k"]:
    factor, _ = torch.linalg.cholesky_ex(blocks)
    identity = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return inverse.mT @ inverse


def _row_times(
    rows: Float[Tensor, "*batch k"], blocks: Float[Tensor, "*batch k columns"]
) -> Float[Tensor, "*batch columns"]:
    """A row each: a CPU does that in half the time of a column each."""
    return (rows[..., None, :] @ blocks).squeeze(-2)
