"""Nonlinear least squares over the rotations of a sequence of frames, each of which couples to its neighbors only.

Levenberg-Marquardt on a product of SO(3)s (Nocedal and Wright, "Numerical Optimization", chapter 10; damping after
Nielsen, "Damping parameter in Marquardt's method", 1999). Each step solves the damped normal equations by conjugate
gradients without forming them, preconditioned by the block-tridiagonal part of them, so cost and memory grow linearly
with the frames. Nothing here knows what is fitted: residuals come as :class:`JointTerm` and :class:`FrameTerm`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from motion_grpo.guidance import so3
from motion_grpo.guidance.banded import BlockTridiagonal, Tridiagonal

_TINY = 1e-30
_MAX_CG_STEPS = 60
_CG_TOLERANCE = 1e-2
"""Of the residual, in the preconditioner's norm: the next linearization corrects more than this."""
_MAX_DAMPING = 1e8


class JointTerm(NamedTuple):
    """A residual of each joint by itself, of one to three successive frames.

    Row ``t`` is of the frames ``t, t + 1, ...``.

    A perturbation ``R exp(delta)`` of a joint's rotation in frame ``t + i`` changes row ``t`` by
    ``jacobians[i] @ delta``. Components lead (:mod:`~motion_grpo.guidance.so3`).
    """

    residual: Float[Tensor, "3 batch rows some_joints"]
    jacobians: tuple[Float[Tensor, "3 3 batch rows some_joints"], ...]
    joints: slice = slice(None)
    """Which of the problem's joints these are."""


class FrameTerm(NamedTuple):
    """A residual of several joints together, of one or two successive frames.

    Columns of the Jacobians are the first axis of the first joints of the problem's ``order``, then their second and
    third.
    """

    residual: Float[Tensor, "batch rows values"]
    jacobians: tuple[Float[Tensor, "batch rows values columns"], ...]


Term = JointTerm | FrameTerm
Terms = Mapping[str, Term]


@dataclass(frozen=True)
class Problem:
    """What is minimized: the sum of the squares of all residuals."""

    terms: Callable[[Float[Tensor, "3 3 batch frames joints"]], Terms]
    """The residuals and their Jacobians by name; always the same names."""
    order: Sequence[int]
    """Joints in the order of the columns of :class:`FrameTerm`."""
    coupled: int
    """How many of them, from the first on, are so strongly coupled that the preconditioner has to know."""


@dataclass(frozen=True)
class Solution:
    """What :func:`levenberg_marquardt` found."""

    rotations: Float[Tensor, "3 3 batch frames joints"]
    before: dict[str, Float[Tensor, " batch"]]
    """Sum of squares by term at the start."""
    after: dict[str, Float[Tensor, " batch"]]
    """The same at the end; the total is never higher than before."""
    accepted: Int[Tensor, " batch"]
    """Steps that lowered the cost."""
    iterations: int
    """Steps that were tried."""


def levenberg_marquardt(
    problem: Problem,
    start: Float[Tensor, "3 3 batch frames joints"],
    *,
    iterations: int = 20,
    damping: float = 1.0,
    tolerance: float = 1e-6,
) -> Solution:
    """Minimizes the problem from ``start``; every entry of the batch is a problem of its own.

    A step is accepted where it lowers the cost (gain ratio above 0). Damping then shrinks by up to 3, the more the
    better the quadratic model predicted; where a step is refused it grows by 2, 4, 8, ...

    Args:
        problem: its terms.
        start: rotations.
        iterations: steps to try at most.
        damping: added to the diagonal of the normal equations at first.
        tolerance: ends when no step promises to lower its cost by more than this share of it.
    """
    rotations, terms = start, problem.terms(start)
    before = costs(terms)
    cost = _total(before)
    added = torch.full_like(cost, damping)
    growth = torch.full_like(cost, 2.0)
    accepted = torch.zeros_like(cost, dtype=torch.int64)
    # A problem that is solved stays as it is while others of its batch go on: its solution depends on it alone.
    open_ = torch.ones_like(cost, dtype=torch.bool)
    tried = 0
    for tried in range(1, iterations + 1):  # noqa: B007
        equations = _NormalEquations(problem, terms, start.shape[2:], added)
        step = _conjugate_gradients(equations, _Preconditioner(problem, equations))
        # ||r||^2 - ||r + J step||^2, with (J^T J + damping) step = -gradient.
        predicted = added * _dot(step, step) - _dot(step, equations.gradient)
        open_ &= ~(predicted <= tolerance * cost)
        if not bool(open_.any()):
            break
        candidate = so3.product(rotations, so3.exp(step))
        candidate_terms = problem.terms(candidate)
        candidate_cost = _total(costs(candidate_terms))
        gain = (cost - candidate_cost) / predicted.clamp_min(_TINY)
        better = open_ & (gain > 0) & candidate_cost.isfinite()
        added = added * torch.where(better, (1 - (2 * gain - 1) ** 3).clamp(1 / 3, 2.0), growth)
        added = added.clamp_max(_MAX_DAMPING)
        growth = torch.where(better, 2.0, growth * 2)
        accepted += better
        if bool(better.all()):
            # What the general case comes to, without a copy of everything.
            rotations, terms, cost = candidate, candidate_terms, candidate_cost
        else:
            cost = torch.where(better, candidate_cost, cost)
            rotations = torch.where(better[:, None, None], candidate, rotations)
            terms = {name: _choose(better, candidate_terms[name], term) for name, term in terms.items()}
    return Solution(rotations, before, costs(terms), accepted, tried)


def costs(terms: Terms) -> dict[str, Float[Tensor, " batch"]]:
    """Sum of squares of each term."""
    squares = {name: (term.residual.square(), isinstance(term, JointTerm)) for name, term in terms.items()}
    return {name: x.sum((0, 2, 3) if leads else (1, 2)) for name, (x, leads) in squares.items()}


def _total(of_terms: Mapping[str, Float[Tensor, " batch"]]) -> Float[Tensor, " batch"]:
    return torch.stack(list(of_terms.values())).sum(0)


class _NormalEquations:
    """``J^T J + damping`` as a product with a vector, and the gradient ``J^T r``.

    Args:
        problem: says which joints the columns belong to.
        terms: residuals and Jacobians.
        shape: batch, frames, joints.
        damping: one number a problem.
    """

    def __init__(self, problem: Problem, terms: Terms, shape: torch.Size, damping: Float[Tensor, " batch"]) -> None:
        self.order, self.shape = list(problem.order), shape
        self.frame_terms = [term for term in terms.values() if isinstance(term, FrameTerm)]
        batch, frames, joints = shape
        self.gradient = damping.new_zeros(3, *shape)
        # Blocks of J^T J of frames 0, 1 and 2 apart, of all terms in which joints do not couple.
        self.blocks = [damping.new_zeros(3, 3, batch, max(frames - apart, 0), joints) for apart in range(3)]
        for axis in range(3):
            self.blocks[0][axis, axis] += damping[:, None, None]
        for term in terms.values():
            if isinstance(term, JointTerm):
                rows = term.residual.shape[-2]
                for i, left in enumerate(term.jacobians):
                    gradient = self.gradient[:, :, i : i + rows, term.joints]
                    so3.add_times(gradient, so3.transposed(left), term.residual)
                    for apart, right in enumerate(term.jacobians[i:]):
                        so3.add_product_from(self.blocks[apart][..., i : i + rows, term.joints], left, right)
            else:
                self._add_transposed(term, term.residual, self.gradient)

    def __call__(self, v: Float[Tensor, "3 batch frames joints"]) -> Float[Tensor, "3 batch frames joints"]:
        frames = self.shape[1]
        result = so3.times(self.blocks[0], v)
        for apart in (1, 2):
            block = self.blocks[apart]
            so3.add_times(result[:, :, : frames - apart], block, v[:, :, apart:])
            so3.add_times(result[:, :, apart:], so3.transposed(block), v[:, :, : frames - apart])
        columns = v[..., self.order].permute(1, 2, 0, 3)
        for term in self.frame_terms:
            rows, joints = term.residual.shape[-2], term.jacobians[0].shape[-1] // 3
            used = columns[..., :joints].flatten(-2)
            change = sum(_times(J, used[:, i : i + rows]) for i, J in enumerate(term.jacobians))
            self._add_transposed(term, change, result)
        return result

    def _add_transposed(self, term: FrameTerm, values: Tensor, result: Tensor) -> None:
        rows, joints = values.shape[-2], self.order[: term.jacobians[0].shape[-1] // 3]
        for i, jacobian in enumerate(term.jacobians):
            change = (values[..., None, :] @ jacobian).squeeze(-2).unflatten(-1, (3, -1)).permute(2, 0, 1, 3)
            result[:, :, i : i + rows, joints] += change


class _Preconditioner:
    """Solves a block-tridiagonal system that is near the normal equations.

    The coupling of frames two apart, which second differences bring, is left out: a second difference is one of two
    changes, and both count by themselves instead. Of joints that couple, each frame has a block; of the others each
    has a number, the mean over its axes.
    """

    def __init__(self, problem: Problem, equations: _NormalEquations) -> None:
        (batch, _, joints), coupled = equations.shape, problem.coupled
        diagonal, upper, second = equations.blocks
        # (1, -2, 1) squared holds 1 4 1 on the diagonal, -2 -2 beside it and 1 two apart; the squares of its changes
        # hold 1 2 1 and -1 -1.
        shift = second.diagonal().mean(-1)
        diagonal, upper = diagonal.clone(), upper.clone()
        for axis in range(3):
            diagonal[axis, axis, :, 1:-1] -= 2 * shift
            upper[axis, axis, :, :-1] += shift
            upper[axis, axis, :, 1:] += shift
        self.coupled = list(problem.order[:coupled])
        self.free = [joint for joint in range(joints) if joint not in self.coupled]
        blocks = []
        for x in (diagonal, upper):
            block = x.new_zeros(batch, x.shape[-2], 3, coupled, 3, coupled)
            block.diagonal(dim1=-3, dim2=-1).copy_(x[..., self.coupled].permute(2, 3, 0, 1, 4))
            blocks.append(block)
        for term in equations.frame_terms:
            rows = term.residual.shape[-2]
            parts = [J.unflatten(-1, (3, -1))[..., :coupled].flatten(-2) for J in term.jacobians]
            some = parts[0].shape[-1] // 3
            for i, J in enumerate(parts):
                for apart, other in enumerate(parts[i:]):
                    square = (J.mT @ other).unflatten(-1, (3, -1)).unflatten(-3, (3, -1))
                    blocks[apart][:, i : i + rows, :, :some, :, :some] += square
        self.of_coupled = BlockTridiagonal(*(block.flatten(-2).flatten(-3, -2) for block in blocks))
        means = [sum(x[axis, axis] for axis in range(3)) / 3 for x in (diagonal, upper)]
        self.of_free = Tridiagonal(*(x[..., self.free].movedim(1, 0)[:, None].contiguous() for x in means))

    def __call__(self, r: Float[Tensor, "3 batch frames joints"]) -> Float[Tensor, "3 batch frames joints"]:
        result = torch.empty_like(r)
        coupled = self.of_coupled.solve(r[..., self.coupled].permute(1, 2, 0, 3).flatten(-2))
        result[..., self.coupled] = coupled.unflatten(-1, (3, -1)).permute(2, 0, 1, 3)
        free = self.of_free.solve(r[..., self.free].movedim(2, 0).contiguous())
        result[..., self.free] = free.movedim(0, 2)
        return result


def _conjugate_gradients(
    equations: _NormalEquations, preconditioner: _Preconditioner
) -> Float[Tensor, "3 batch frames joints"]:
    residual = -equations.gradient
    x = torch.zeros_like(residual)
    direction = z = preconditioner(residual)
    size = _dot(residual, z)
    enough = _CG_TOLERANCE**2 * size
    open_ = size > enough
    for _ in range(_MAX_CG_STEPS):
        image = equations(direction)
        length = torch.where(open_, size / _dot(direction, image).clamp_min(_TINY), 0.0)[:, None, None]
        x = x + length * direction
        residual = residual - length * image
        z = preconditioner(residual)
        before, size = size, _dot(residual, z)
        open_ &= size > enough
        if not bool(open_.any()):
            break
        direction = z + (size / before.clamp_min(_TINY))[:, None, None] * direction
    return x


def _times(
    matrices: Float[Tensor, "*batch rows columns"], vectors: Float[Tensor, "*batch columns"]
) -> Float[Tensor, "*batch rows"]:
    return (matrices @ vectors[..., None]).squeeze(-1)


def _dot(
    a: Float[Tensor, "3 batch frames joints"], b: Float[Tensor, "3 batch frames joints"]
) -> Float[Tensor, " batch"]:
    return (a * b).sum((0, 2, 3))


def _choose(choice: Bool[Tensor, " batch"], yes: Term, no: Term) -> Term:
    jacobians = zip(yes.jacobians, no.jacobians, strict=True)
    if isinstance(yes, JointTerm):
        pick = choice[:, None, None]
        residual = torch.where(pick, yes.residual, no.residual)
        return JointTerm(residual, tuple(torch.where(pick, a, b) for a, b in jacobians), yes.joints)
    residual = torch.where(choice[:, None, None], yes.residual, no.residual)
    return FrameTerm(residual, tuple(torch.where(choice[:, None, None, None], a, b) for a, b in jacobians))
