import pytest
import roma
import torch

from motion_grpo.body import FOOT_JOINTS
from motion_grpo.guidance import so3
from motion_grpo.guidance.residuals import Anchors
from motion_grpo.guidance.solver import Problem, costs, levenberg_marquardt
from tests.guidance.problems import ORDER, dense, egoallo_problem, egoallo_terms, golden


def skate(anchors: Anchors, R: torch.Tensor) -> float:
    """As golden/README says: sum over frames and foot joints of contact times displacement, meters."""
    feet = anchors.place(R).joints[0][:, list(FOOT_JOINTS)]
    contacts = anchors.contacts[0][:, [joint - 1 for joint in FOOT_JOINTS]]
    return float(((contacts[1:] + contacts[:-1]) / 2 * (feet[1:] - feet[:-1]).norm(dim=-1)).sum())


def test_ends_below_the_cost_of_the_reference() -> None:
    file, anchors = golden()
    problem = egoallo_problem(anchors)
    assert abs(skate(anchors, anchors.rotations) - float(file["skate_before"])) < 1e-3
    for iterations, phase in ((5, "inner"), (20, "post")):
        reference = so3.components_first(file[f"body_rotmats_{phase}"][None])
        solution = levenberg_marquardt(problem, anchors.rotations, iterations=iterations)
        assert sum(solution.after.values()) <= sum(costs(problem.terms(reference)).values())
        assert skate(anchors, solution.rotations) <= float(file[f"skate_{phase}"])
    apart = roma.rotmat_geodesic_distance(*(so3.components_last(R) for R in (solution.rotations, reference)))
    assert torch.rad2deg(apart).mean() < 1.0


def test_the_cost_never_rises_and_is_reported_by_term() -> None:
    _, anchors = golden(frames=24)
    problem = egoallo_problem(anchors)
    totals = []
    for iterations in (0, 1, 2, 4, 8):
        solution = levenberg_marquardt(problem, anchors.rotations, iterations=iterations)
        totals.append(float(sum(solution.after.values())))
        assert torch.equal(sum(solution.before.values()), sum(costs(problem.terms(anchors.rotations)).values()))
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] < 0.2 * totals[0]
    assert solution.after.keys() == problem.terms(anchors.rotations).keys()


@pytest.mark.slow
def test_finds_what_a_dense_gauss_newton_finds() -> None:
    _, anchors = golden(torch.float64, frames=16)
    problem = egoallo_problem(anchors)
    R = anchors.rotations
    for _ in range(25):
        r, J = dense(problem.terms(R), R[0], ORDER)
        step = torch.linalg.solve(J.mT @ J + 0.3 * torch.eye(J.shape[1], dtype=J.dtype), -J.mT @ r)
        R = so3.product(R, so3.exp(step.view_as(R[0])))
    r, J = dense(problem.terms(R), R[0], ORDER)
    assert (J.mT @ r).norm() < 1e-3 * r.norm()  # the dense one has arrived
    solution = levenberg_marquardt(problem, anchors.rotations, iterations=20)
    assert abs(sum(solution.after.values()) / r.square().sum() - 1) < 0.01


def test_problems_of_a_batch_do_not_see_each_other() -> None:
    _, anchors = golden(torch.float64, frames=12)
    turn = so3.exp(0.2 * torch.randn(3, 1, 12, 21, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    starts = torch.cat([anchors.rotations, so3.product(anchors.rotations, turn)], dim=2)

    def of(start: torch.Tensor) -> Problem:
        return egoallo_problem(Anchors(**vars(anchors) | {
            "rotations": start,
            "rest_joints": anchors.rest_joints.expand(start.shape[2], -1, -1),
            "cpf_offset": anchors.cpf_offset.expand(start.shape[2], -1),
            "contacts": anchors.contacts.expand(start.shape[2], -1, -1),
        }))  # fmt: skip

    together = levenberg_marquardt(of(starts), starts, iterations=8, tolerance=0.0)
    for number in range(2):
        alone = starts[:, :, number : number + 1]
        cost = sum(levenberg_marquardt(of(alone), alone, iterations=8, tolerance=0.0).after.values())
        torch.testing.assert_close(sum(together.after.values())[number : number + 1], cost, rtol=1e-9, atol=0)


def test_a_step_that_is_no_improvement_is_refused() -> None:
    _, anchors = golden(frames=8)
    solved = levenberg_marquardt(egoallo_problem(anchors), anchors.rotations, iterations=2)
    terms = egoallo_terms(anchors)
    calls = []

    def worse_after_the_first(R: torch.Tensor) -> dict:
        calls.append(R)
        scale = 1.0 if len(calls) == 1 else 10.0
        return {n: t._replace(residual=scale * t.residual) for n, t in terms(R).items()}

    problem = Problem(worse_after_the_first, ORDER, len(ORDER))
    refused = levenberg_marquardt(problem, anchors.rotations, iterations=3)
    assert refused.accepted.tolist() == [0]
    assert torch.equal(refused.rotations, anchors.rotations)
    assert solved.accepted.item() > 0


def test_one_and_two_frames() -> None:
    for frames in (1, 2, 3):
        _, anchors = golden(frames=frames)
        solution = levenberg_marquardt(egoallo_problem(anchors), anchors.rotations, iterations=3)
        assert solution.rotations.isfinite().all()
