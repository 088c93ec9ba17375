"""Nonlinear least squares over the rotations of a sequence of frames, each of which couples to its neighbours only.

Levenberg-Marquardt on the product of SO(3)s (Nocedal and Wright, "Numerical Optimization", chapter 10; damping after
Nielsen, "Damping parameter in Marquardt's method", 1999). Each step solves the damped normal equations by conjugate
gradients without forming them, preconditioned by a block-tridiagonal part of them, so cost and memory grow linearly
with the frames. Nothing here knows what is fitted: residuals come as :class:`JointTerm` and :class:`FrameTerm`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from motion_grpo.guidance.banded import BlockTridiagonal

_TINY = 1e-30
_REFRESH = 8
"""Steps of conjugate gradients, over which the preconditioner is made anew: before, that would take longer."""
_MAX_CG_STEPS = 60
_CG_TOLERANCE = 1e-2
"""Of the residual, in the preconditioner's norm: an inexact step costs little where the next one corrects it."""
_MAX_DAMPING = 1e8


class JointTerm(NamedTuple):
    """A residual of each joint by itself, of one to three successive frames: row ``t`` is of frames ``t, t + 1, ...``

    A perturbation ``R exp(delta)`` of a joint's rotation in frame ``t + i`` changes row ``t`` by
    ``jacobians[i] @ delta``.
    """

    residual: Float[Tensor, "*batch rows some_joints 3"]
    jacobians: tuple[Float[Tensor, "*batch rows some_joints 3 3"], ...]
    joints: slice = slice(None)
    """Which of the problem's joints these are."""


class FrameTerm(NamedTuple):
    """A residual of several joints together, of one or two successive frames.

    Columns of the Jacobians belong to the first joints of the problem's ``order``, three a joint.
    """

    residual: Float[Tensor, "*batch rows values"]
    jacobians: tuple[Float[Tensor, "*batch rows values columns"], ...]


Term = JointTerm | FrameTerm
Terms = Mapping[str, Term]


@dataclass(frozen=True)
class Problem:
    """What is minimized: the sum of the squares of all residuals."""

    terms: Callable[[Float[Tensor, "batch frames joints 3 3"]], Terms]
    """The residuals and their Jacobians by name; always the same names."""
    order: Sequence[int]
    """Joints in the order of the columns of :class:`FrameTerm`."""
    coupled: int
    """How many of them, from the first on, are so strongly coupled that the preconditioner has to know."""


@dataclass(frozen=True)
class Solution:
    """What :func:`levenberg_marquardt` found."""

    rotmats: Float[Tensor, "batch frames joints 3 3"]
    before: dict[str, Float[Tensor, "batch"]]
    """Sum of squares by term at the start."""
    after: dict[str, Float[Tensor, "batch"]]
    """The same at the end; the total is never higher than before."""
    damping: Float[Tensor, "batch"]
    """The last one: to go on from."""
    accepted: Int[Tensor, "batch"]
    """Steps that lowered the cost."""
    iterations: int
    """Steps that were tried."""


def levenberg_marquardt(
    problem: Problem,
    start: Float[Tensor, "batch frames joints 3 3"],
    *,
    iterations: int = 20,
    damping: float | Float[Tensor, "batch"] = 0.1,
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
    rotmats = start
    terms = problem.terms(rotmats)
    before = costs(terms)
    cost = sum(before.values())
    damping = torch.as_tensor(damping, dtype=cost.dtype, device=cost.device).expand_as(cost).clone()
    growth = torch.full_like(cost, 2.0)
    accepted = torch.zeros_like(cost, dtype=torch.int64)
    preconditioner, last_steps, iteration = None, 0, 0
    for iteration in range(1, iterations + 1):
        if True:
            preconditioner = _Preconditioner(problem, terms, rotmats.shape[:3], damping)
        equations = _NormalEquations(problem, terms, rotmats.shape[:3], damping)
        step, last_steps = _conjugate_gradients(equations, preconditioner)
        # ||r||^2 - ||r + J step||^2, with (J^T J + damping) step = -gradient.
        predicted = -_dot(step, equations.gradient) + damping * _dot(step, step)
        if bool((predicted <= tolerance * cost).all()):
            break
        candidate = rotmats @ roma.rotvec_to_rotmat(step)
        candidate_terms = problem.terms(candidate)
        candidate_cost = sum(costs(candidate_terms).values())
        gain = (cost - candidate_cost) / predicted.clamp_min(_TINY)
        better = (gain > 0) & candidate_cost.isfinite()
        shrink = (1 - (2 * gain - 1) ** 3).clamp(1 / 3, 2.0)
        damping = torch.where(better, damping * shrink, damping * growth).clamp_max(_MAX_DAMPING)
        growth = torch.where(better, 2.0, growth * 2)
        accepted += better
        cost = torch.where(better, candidate_cost, cost)
        rotmats = _where(better, candidate, rotmats)
        terms = {name: _where_term(better, candidate_terms[name], term) for name, term in terms.items()}
    return Solution(rotmats, before, costs(terms), damping, accepted, iteration)


def costs(terms: Terms) -> dict[str, Float[Tensor, "batch"]]:
    """Sum of squares of each term."""
    return {name: term.residual.square().flatten(1).sum(-1) for name, term in terms.items()}


class _NormalEquations:
    """``J^T J + damping`` as a product with a vector, and the gradient ``J^T r``."""

    def __init__(self, problem: Problem, terms: Terms, shape: torch.Size, damping: Float[Tensor, "batch"]) -> None:
        self.order = list(problem.order)
        self.frame_terms = [term for term in terms.values() if isinstance(term, FrameTerm)]
        joint_terms = [term for term in terms.values() if isinstance(term, JointTerm)]
        self.blocks = _joint_blocks(joint_terms, shape, damping)
        gradient = torch.zeros_like(self.blocks[0][..., 0])
        for term in joint_terms:
            rows = term.residual.shape[-3]
            for i, jacobian in enumerate(term.jacobians):
                gradient[:, i : i + rows, term.joints] += _times(jacobian.mT, term.residual)
        for term in self.frame_terms:
            self._add_transposed(term, term.residual, gradient)
        self.gradient = gradient

    def __call__(self, v: Float[Tensor, "batch frames joints 3"]) -> Float[Tensor, "batch frames joints 3"]:
        frames = v.shape[1]
        result = _times(self.blocks[0], v)
        for offset in (1, 2):
            block = self.blocks[offset]
            result[:, : frames - offset] += _times(block, v[:, offset:])
            result[:, offset:] += _times(block.mT, v[:, : frames - offset])
        flat = v[:, :, self.order].flatten(-2)
        for term in self.frame_terms:
            rows, columns = term.residual.shape[-2], term.jacobians[0].shape[-1]
            change = sum(_times(J, flat[:, i : i + rows, :columns]) for i, J in enumerate(term.jacobians))
            self._add_transposed(term, change, result)
        return result

    def _add_transposed(self, term: FrameTerm, values: Tensor, result: Tensor) -> None:
        rows, joints = values.shape[-2], self.order[: term.jacobians[0].shape[-1] // 3]
        for i, jacobian in enumerate(term.jacobians):
            result[:, i : i + rows, joints] += _times(jacobian.mT, values).unflatten(-1, (-1, 3))


class _Preconditioner:
    """Solves a block-tridiagonal system that is near the normal equations.

    Three-frame terms, as differences of two changes, count as both changes: that leaves out their coupling of frames
    two apart, and nothing else. Joints that are coupled share a block a frame; of the others each has a number a frame,
    the mean over its three axes.
    """

    def __init__(self, problem: Problem, terms: Terms, shape: torch.Size, damping: Float[Tensor, "batch"]) -> None:
        near = [_as_changes(term) for term in terms.values() if isinstance(term, JointTerm)]
        diagonal, upper, _ = _joint_blocks([part for parts in near for part in parts], shape, damping)
        self.coupled = list(problem.order[: problem.coupled])
        self.free = [joint for joint in range(diagonal.shape[-3]) if joint not in self.coupled]
        blocks = [_block_diagonal(x[:, :, self.coupled]) for x in (diagonal, upper)]
        for term in terms.values():
            if isinstance(term, FrameTerm):
                rows, columns = term.residual.shape[-2], min(3 * problem.coupled, term.jacobians[0].shape[-1])
                jacobians = [J[..., :columns] for J in term.jacobians]
                for i, J in enumerate(jacobians):
                    blocks[0][:, i : i + rows, :columns, :columns] += J.mT @ J
                if len(jacobians) == 2:
                    blocks[1][:, :rows, :columns, :columns] += jacobians[0].mT @ jacobians[1]
        self.of_coupled = BlockTridiagonal(*blocks)
        means = [x[:, :, self.free].diagonal(dim1=-2, dim2=-1).mean(-1) for x in (diagonal, upper)]
        self.of_free = BlockTridiagonal(*(x.mT.contiguous()[..., None, None] for x in means))

    def __call__(self, r: Float[Tensor, "batch frames joints 3"]) -> Float[Tensor, "batch frames joints 3"]:
        result = torch.empty_like(r)
        coupled = self.of_coupled.solve(r[:, :, self.coupled].flatten(-2)[..., None])
        result[:, :, self.coupled] = coupled.squeeze(-1).unflatten(-1, (-1, 3))
        free = r[:, :, self.free].transpose(1, 2)[..., None, :]
        result[:, :, self.free] = self.of_free.solve(free).squeeze(-2).transpose(1, 2)
        return result


def _conjugate_gradients(
    equations: _NormalEquations, preconditioner: _Preconditioner
) -> tuple[Float[Tensor, "batch frames joints 3"], int]:
    """The step, and how many steps of conjugate gradients it took."""
    residual = -equations.gradient
    x = torch.zeros_like(residual)
    z = preconditioner(residual)
    direction, size = z, _dot(residual, z)
    enough = _CG_TOLERANCE**2 * size
    for step in range(1, _MAX_CG_STEPS + 1):
        image = equations(direction)
        length = (size / _dot(direction, image).clamp_min(_TINY))[:, None, None, None]
        x = x + length * direction
        residual = residual - length * image
        z = preconditioner(residual)
        before, size = size, _dot(residual, z)
        if not bool((size > enough).any()):
            break
        direction = z + (size / before.clamp_min(_TINY))[:, None, None, None] * direction
    return x, step


def _joint_blocks(
    terms: Sequence[JointTerm], shape: torch.Size, damping: Float[Tensor, "batch"]
) -> tuple[Float[Tensor, "batch rows joints 3 3"], ...]:
    """3x3 blocks of ``J^T J`` of frames 0, 1 and 2 apart; damping on the diagonal."""
    batch, frames, joints = shape
    blocks = [damping.new_zeros(batch, max(frames - offset, 0), joints, 3, 3) for offset in range(3)]
    blocks[0].diagonal(dim1=-2, dim2=-1).add_(damping[:, None, None, None])
    for term in terms:
        rows = term.residual.shape[-3]
        for i, left in enumerate(term.jacobians):
            for offset, right in enumerate(term.jacobians[i:]):
                blocks[offset][:, i : i + rows, term.joints] += left.mT @ right
    return tuple(blocks)


def _as_changes(term: JointTerm) -> list[JointTerm]:
    """A three-frame term as two two-frame ones whose sum it is; others as they are.

    With ``J0 (v0 - v1)`` as the one change, ``J0 v0 + J1 v1 + J2 v2`` leaves ``(J0 + J1) v1 + J2 v2``. Squared, a sum
    of two is at most twice the sum of their squares, and half of that on average.
    """
    if len(term.jacobians) < 3:
        return [term]
    first, middle, last = term.jacobians
    # Frames t + 1 and t + 2 of row t are frames t and t + 1 of a row later.
    residual, *jacobians = (_after_an_empty_row(x) for x in (term.residual, first + middle, last))
    return [
        JointTerm(term.residual, (first, -first), term.joints),
        JointTerm(residual, tuple(jacobians), term.joints),
    ]


def _after_an_empty_row(x: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(x[:, :1]), x], dim=1)


def _block_diagonal(blocks: Float[Tensor, "batch rows joints 3 3"]) -> Float[Tensor, "batch rows columns columns"]:
    batch, rows, joints = blocks.shape[:3]
    whole = blocks.new_zeros(batch, rows, joints, 3, joints, 3)
    each = torch.arange(joints, device=blocks.device)
    whole[:, :, each, :, each] = blocks.permute(2, 0, 1, 3, 4)
    return whole.flatten(-2).flatten(-3, -2)


def _times(
    matrices: Float[Tensor, "*batch rows columns"], vectors: Float[Tensor, "*batch columns"]
) -> Float[Tensor, "*batch rows"]:
    return (matrices * vectors[..., None, :]).sum(-1)


def _dot(a: Float[Tensor, "batch *any"], b: Float[Tensor, "batch *any"]) -> Float[Tensor, "batch"]:
    return (a * b).flatten(1).sum(-1)


def _where(choice: Bool[Tensor, "batch"], yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(choice.view(-1, *[1] * (yes.ndim - 1)), yes, no)


def _where_term(choice: Bool[Tensor, "batch"], yes: Term, no: Term) -> Term:
    jacobians = tuple(_where(choice, a, b) for a, b in zip(yes.jacobians, no.jacobians, strict=True))
    return yes._replace(residual=_where(choice, yes.residual, no.residual), jacobians=jacobians)
