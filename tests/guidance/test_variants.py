"""Problems like EgoAllo's example, but for length, contacts, seed and how far it all turns, against a dense solver."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from motion_grpo.guidance import so3
from motion_grpo.guidance.residuals import Anchors
from motion_grpo.guidance.solver import costs, levenberg_marquardt
from tests.guidance.problems import ORDER, dense, egoallo_problem, egoallo_terms, golden


def variant(frames: int, seed: int, standing: float, turn: float) -> Anchors:
    """Frames from another place of the example, with contacts drawn anew and rotations ``turn`` radians away."""
    generator = torch.Generator().manual_seed(seed)
    _, anchors = golden(torch.float64)
    start = int(torch.randint(128 - frames, (), generator=generator))
    part = slice(start, start + frames)
    noise = torch.randn(3, 1, frames, 21, generator=generator, dtype=torch.float64)
    contacts = torch.rand(1, frames, 21, generator=generator, dtype=torch.float64) < standing
    return replace(
        anchors,
        R_world_cpf=anchors.R_world_cpf[part],
        p_world_cpf=anchors.p_world_cpf[part],
        rotations=so3.product(anchors.rotations[..., part, :], so3.exp(turn / 3**0.5 * noise)),
        contacts=contacts.double(),
    )


def least(anchors: Anchors) -> float:
    """The cost that a dense Gauss-Newton ends at, whose steps are shortened until they go down."""
    terms, R = egoallo_terms(anchors), anchors.rotations
    cost = total(costs(terms(R)))
    for _ in range(60):
        r, J = dense(terms(R), R[0], ORDER)
        step = -torch.linalg.solve(J.mT @ J + 1e-6 * torch.eye(J.shape[1], dtype=J.dtype), J.mT @ r).view_as(R[0])
        tries = [so3.product(R, so3.exp(step / 2**halvings)) for halvings in range(8)]
        R = next((R for R in tries if total(costs(terms(R))) < cost), R)
        before, cost = cost, total(costs(terms(R)))
        if cost > (1 - 1e-5) * before:
            return cost
    raise AssertionError("the dense solver has not arrived")


def total(of_terms: dict[str, Tensor]) -> float:
    return float(sum(of_terms.values()))


@pytest.mark.parametrize(
    ("frames", "seed", "standing", "turn"),
    [(3, 1, 0.5, 0.1), (7, 2, 1.0, 0.3), (12, 3, 0.2, 0.2), (9, 4, 0.6, 0.4)],
)
def test_as_low_as_a_dense_gauss_newton(frames: int, seed: int, standing: float, turn: float) -> None:
    anchors = variant(frames, seed, standing, turn)

    solution = levenberg_marquardt(egoallo_problem(anchors), anchors.rotations)
    assert total(solution.after) <= 1.01 * least(anchors)
    assert total(solution.after) < 0.7 * total(solution.before)
