import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.testing import assert_close

from motion_grpo.geometry.rotations import (
    interpolate_rotations,
    low_pass_rotations,
    matrix_to_wxyz,
    project_to_rotation,
    rotation_6d,
    rotation_from_6d,
    wxyz_to_matrix,
    yaw_rotation,
)

few = settings(max_examples=20, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
HALF_TURNS = torch.stack([torch.diag(torch.tensor(d)) for d in ([1.0, -1, -1], [-1.0, 1, -1], [-1.0, -1, 1])])
EXACT = torch.cat([torch.eye(3)[None], HALF_TURNS, yaw_rotation(torch.tensor([torch.pi / 2]))])


def rotations(seed: int, *batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return roma.unitquat_to_rotmat(
        roma.quat_normalize(torch.randn(*batch, 4, generator=generator, dtype=torch.float64))
    )


def matrices(seed: int, *batch: int) -> Tensor:
    return torch.randn(*batch, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- quaternions and six numbers


@few
@given(seed=seeds)
def test_quaternions_are_scipys_real_part_first(seed: int) -> None:
    R = rotations(seed, 7)
    wxyz = matrix_to_wxyz(R)
    expected = torch.from_numpy(Rotation.from_matrix(R.numpy()).as_quat(scalar_first=True))
    assert_close(wxyz * wxyz[:, :1].sign(), expected * expected[:, :1].sign())
    assert_close(wxyz_to_matrix(wxyz), R)
    assert_close(wxyz_to_matrix(-3 * wxyz), R)  # neither sign nor length matters


def test_quarter_turn_by_hand() -> None:
    wxyz = torch.tensor([np.sqrt(0.5), 0, 0, np.sqrt(0.5)], dtype=torch.float32)
    R = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert_close(wxyz_to_matrix(wxyz), R)
    assert_close(matrix_to_wxyz(R), wxyz)
    assert_close(yaw_rotation(torch.tensor(torch.pi / 2)), R)
    assert_close(rotation_6d(R), torch.tensor([0.0, -1, 1, 0, 0, 0]))


@few
@given(seed=seeds)
def test_six_numbers_round_trip(seed: int) -> None:
    R = rotations(seed, 2, 5)
    assert rotation_6d(R).shape == (2, 5, 6)
    assert_close(rotation_6d(R).unflatten(-1, (3, 2)), R[..., :2])
    assert_close(rotation_from_6d(rotation_6d(R)), R)


@few
@given(seed=seeds)
def test_six_numbers_of_any_size_give_a_rotation_with_that_first_axis(seed: int) -> None:
    columns = matrices(seed, 9)[..., :2] * 3
    R = rotation_from_6d(columns.flatten(-2))
    assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64).expand(9, 3, 3))
    assert_close(torch.linalg.det(R), torch.ones(9, dtype=torch.float64))
    assert_close(R[..., 0], torch.nn.functional.normalize(columns[..., 0], dim=-1))
    assert ((R[..., 1] * columns[..., 1]).sum(-1) > 0).all()


@few
@given(angle=st.floats(-7, 7), other=st.floats(-7, 7))
def test_yaw_turns_about_z_and_adds_up(angle: float, other: float) -> None:
    a, b = torch.tensor([angle, other], dtype=torch.float64)
    assert_close(yaw_rotation(a) @ yaw_rotation(b), yaw_rotation(a + b))
    assert_close(yaw_rotation(a), torch.from_numpy(Rotation.from_euler("z", angle).as_matrix()))


# ---- projection


@few
@given(seed=seeds)
def test_projection_is_the_nearest_rotation(seed: int) -> None:
    M = matrices(seed, 11)
    R = project_to_rotation(M)
    assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64).expand(11, 3, 3))
    assert_close(torch.linalg.det(R), torch.ones(11, dtype=torch.float64))
    U, _, Vh = np.linalg.svd(M.numpy())
    signs = np.ones((11, 1, 3))
    signs[:, 0, 2] = np.linalg.det(U @ Vh)
    assert_close(R, torch.from_numpy((U * signs) @ Vh))
    others = rotations(seed + 1, 50, 1)
    assert ((M - R).square().sum((-1, -2)) <= (M - others).square().sum((-1, -2)) + 1e-9).all()


@few
@given(seed=seeds)
def test_allow_reflection_is_egoallos_projection(seed: int) -> None:
    M = matrices(seed, 40)
    O = project_to_rotation(M, allow_reflection=True)
    U, _, Vh = np.linalg.svd(M.numpy())
    assert_close(O, torch.from_numpy(U @ Vh))
    assert_close(torch.linalg.det(O), torch.linalg.det(M).sign())
    proper = torch.linalg.det(M) > 0
    assert proper.any()
    assert not proper.all()
    assert_close(O[proper], project_to_rotation(M[proper]))


@few
@given(seed=seeds)
def test_rotations_project_to_themselves(seed: int) -> None:
    R = rotations(seed, 6)
    assert_close(project_to_rotation(R), R)
    assert_close(project_to_rotation(R, allow_reflection=True), R)
    assert_close(project_to_rotation(2.5 * R), R)


DEGENERATE = {
    "zero": torch.zeros(3, 3),
    "rank one": torch.ones(3, 3),
    "rank two": torch.diag(torch.tensor([1.0, 1.0, 0.0])),
    "reflection": torch.diag(torch.tensor([1.0, 1.0, -1.0])),
    "minus identity": -torch.eye(3),
}


@pytest.mark.parametrize("M", DEGENERATE.values(), ids=DEGENERATE)
def test_projection_of_degenerate_matrices_is_a_rotation_with_a_finite_gradient(M: Tensor) -> None:
    M = M.clone().requires_grad_()
    R = project_to_rotation(M)
    (R * torch.randn(3, 3)).sum().backward()
    assert_close(R @ R.mT, torch.eye(3), rtol=0.0, atol=1e-5)
    assert_close(torch.linalg.det(R), torch.tensor(1.0))
    assert M.grad.isfinite().all()
    assert M.grad.abs().max() < 1e6


@pytest.mark.parametrize("R", EXACT, ids=["identity", "about x", "about y", "about z", "quarter"])
def test_gradients_at_exact_rotations(R: Tensor) -> None:
    def project(M):
        return project_to_rotation(M)

    assert torch.autograd.gradcheck(project, R.double().requires_grad_(), atol=1e-4)
    # The gradient is that of the manifold: scaling a rotation changes nothing.
    _, scaled = torch.autograd.functional.jvp(project, R.double(), R.double())
    assert_close(scaled, torch.zeros(3, 3, dtype=torch.float64), rtol=0.0, atol=1e-6)
    for there_and_back in (
        lambda M: wxyz_to_matrix(matrix_to_wxyz(M)),
        lambda M: rotation_from_6d(rotation_6d(M)),
    ):
        M = R.clone().requires_grad_()
        (there_and_back(M) * torch.randn(3, 3)).sum().backward()
        assert M.grad.isfinite().all()
        assert M.grad.abs().max() > 0


@pytest.mark.parametrize("values", [[0.0] * 6, [1.0, 1, 0, 0, 0, 0], [1e-9] * 6, [2.0, -4, 1, -2, 3, -6]])
def test_six_numbers_that_are_no_rotation_are_finite_with_finite_gradients(values: list) -> None:
    x = torch.tensor([values, [1.0, 0, 0, 1, 0, 0]], requires_grad=True)
    R = rotation_from_6d(x)
    R.square().sum().backward()
    assert R.isfinite().all()
    assert x.grad.isfinite().all()
    assert_close(R[1], torch.eye(3))


def test_interpolation_turns_at_a_constant_rate() -> None:
    start = roma.rotvec_to_rotmat(torch.tensor([0.3, -0.2, 0.9]))
    turn = torch.tensor([0.0, 0.0, 1.2])
    weight = torch.tensor([0.0, 0.25, 1.0])
    expected = start @ roma.rotvec_to_rotmat(weight[:, None] * turn)
    result = interpolate_rotations(start, start @ roma.rotvec_to_rotmat(turn), weight)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.5])
def test_low_pass_is_scipys_projected(sigma: float) -> None:
    rotmats = torch.stack([roma.random_rotmat(20), roma.random_rotmat(20)]).double()
    expected = project_to_rotation(torch.from_numpy(gaussian_filter1d(rotmats.numpy(), sigma, axis=1, mode="nearest")))
    assert_close(low_pass_rotations(rotmats, sigma), expected, atol=1e-6, rtol=0)


def test_low_pass_leaves_what_is_still_and_calms_what_trembles() -> None:
    still = roma.random_rotmat().expand(9, 3, 3)
    assert_close(low_pass_rotations(still, 1.0), still, atol=1e-6, rtol=0)
    angle = 0.1 * torch.tensor([1.0, -1.0]).repeat(30)
    trembling = yaw_rotation(angle)
    after = roma.rotmat_to_rotvec(low_pass_rotations(trembling, 1.0))[5:-5]
    assert float(after.norm(dim=-1).max()) < 0.01 * 0.1 + 1e-3
