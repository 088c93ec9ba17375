import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from motion_grpo.geometry.rotations import yaw_rotation
from motion_grpo.models.conditioning import PARAMETERIZATIONS, condition_dim, fourier_encode, head_features
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import GOLDEN, head_poses

few = settings(max_examples=20, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
meters = st.floats(-50, 50)


def head(seed: int, frames: int = 12) -> tuple[Tensor, Tensor]:
    """R_world_cpf and p_world_cpf of a head that looks anywhere, float64, batch of 2."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(2, *shape, generator=generator, dtype=torch.float64)

    R = roma.rotvec_to_rotmat(draw(1, 3) + 0.05 * draw(frames, 3).cumsum(1))
    return R, 0.02 * draw(frames, 3).cumsum(1) + torch.tensor([1.0, -2.0, 1.6])


def walking() -> HeadPoses:
    T = head_poses(30)
    return HeadPoses.from_world(T[:, :3, :3], T[:, :3, 3])


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_golden_agreement_with_egoallo(parameterization: str) -> None:
    golden = load_file(GOLDEN / "conditioning.safetensors")
    poses = HeadPoses.from_wxyz_xyz(golden["T_world_cpf"], golden["T_cpf_tm1_cpf_t"])
    expected = golden[f"cond_{parameterization}"]
    features = head_features(poses, parameterization)
    assert_close(features, expected, rtol=0.0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("canonical_rotation", [True, False])
@pytest.mark.parametrize("hands", [True, False])
@pytest.mark.parametrize("octaves", [0, 3])
def test_dimensions_are_those_announced(
    parameterization: str, canonical_rotation: bool, hands: bool, octaves: int
) -> None:
    hand_positions = torch.randn(30, 6) if hands else None
    features = head_features(
        walking(),
        parameterization,
        canonical_rotation=canonical_rotation,
        hand_positions=hand_positions,
        octaves=octaves,
    )
    assert features.shape == (30, condition_dim(parameterization, canonical_rotation, hands, octaves))
    if hands and octaves == 0:
        assert_close(features[:, -6:], hand_positions)


@few
@given(seed=seeds, x=meters, y=meters, heading=st.floats(-4, 4))
def test_ours_is_the_same_anywhere_on_the_floor_and_at_any_heading(
    seed: int, x: float, y: float, heading: float
) -> None:
    R, p = head(seed)
    turn = yaw_rotation(torch.tensor(heading, dtype=torch.float64))
    moved = HeadPoses.from_world(turn @ R, p @ turn.mT + torch.tensor([x, y, 0.0], dtype=torch.float64))
    assert_close(head_features(moved), head_features(HeadPoses.from_world(R, p)), rtol=0.0, atol=1e-6)


@few
@given(seed=seeds, z=st.floats(0.1, 1.0), pitch=st.floats(0.1, 1.0))
def test_ours_sees_height_and_pitch(seed: int, z: float, pitch: float) -> None:
    R, p = head(seed)
    raw = head_features(HeadPoses.from_world(R, p), octaves=0)
    raised = head_features(HeadPoses.from_world(R, p + torch.tensor([0.0, 0, z])), octaves=0)
    assert_close(raised[..., 12], raw[..., 12] + z)
    assert_close(raised[..., 13:], raw[..., 13:])
    nod = roma.rotvec_to_rotmat(torch.tensor([pitch, 0.0, 0.0], dtype=torch.float64))
    nodding = head_features(HeadPoses.from_world(R @ nod, p), octaves=0)
    assert (nodding[..., 13:] - raw[..., 13:]).abs().max() > 0.05


@few
@given(seed=seeds, x=meters, y=meters, heading=st.floats(-4, 4))
def test_canonicalized_is_relative_to_the_first_frame_and_absolute_is_not(
    seed: int, x: float, y: float, heading: float
) -> None:
    R, p = head(seed)
    turn = yaw_rotation(torch.tensor(heading, dtype=torch.float64))
    shift = torch.tensor([x, y, 3.0], dtype=torch.float64)
    here, there = HeadPoses.from_world(R, p), HeadPoses.from_world(turn @ R, p @ turn.mT + shift)
    features = head_features(here, "canonicalized", octaves=0)
    assert_close(head_features(there, "canonicalized", octaves=0), features, rtol=0.0, atol=1e-9)
    first = features[:, 0].unflatten(-1, (3, 4))
    assert_close(first[..., 3], torch.zeros(2, 3, dtype=torch.float64))
    assert_close(first[:, 1, 2], torch.zeros(2, dtype=torch.float64), rtol=0.0, atol=1e-9)  # looks along +x
    assert (first[:, 0, 2] >= 0).all()
    assert not torch.allclose(head_features(there, "absolute", octaves=0), head_features(here, "absolute", octaves=0))


def test_raw_features_by_hand() -> None:
    """Looks along +y with upright head at 1.5 m, one step of 0.1 m ahead."""
    R = torch.tensor([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])  # columns: left is -x, up is z, forward is y
    poses = HeadPoses.from_world(R.repeat(2, 1, 1), torch.tensor([[3.0, 4.0, 1.5], [3.0, 4.1, 1.5]]))
    ahead = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.1]]).flatten()
    looking_along_x = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]).flatten()
    expected = torch.cat([ahead, torch.tensor([1.5]), looking_along_x]).repeat(2, 1)
    assert_close(head_features(poses, octaves=0), expected, rtol=0.0, atol=1e-6)


@few
@given(seed=seeds)
def test_steps_lead_from_each_pose_to_the_next_and_the_first_repeats(seed: int) -> None:
    R, p = head(seed)
    poses = HeadPoses.from_world(R, p)
    assert_close(R[:, :-1] @ poses.R_prev_cpf[:, 1:], R[:, 1:])
    assert_close(p[:, :-1] + (R[:, :-1] @ poses.p_prev_cpf[:, 1:, :, None])[..., 0], p[:, 1:])
    assert_close(poses.R_prev_cpf[:, 0], poses.R_prev_cpf[:, 1])
    assert_close(poses.p_prev_cpf[:, 0], poses.p_prev_cpf[:, 1])
    assert_close(poses.R_world_cpf, R)
    assert_close(poses.p_world_cpf, p)


def test_window_keeps_the_step_into_its_first_frame() -> None:
    poses = walking()
    window = poses.window(10, 20)
    for whole, part in zip(poses, window, strict=True):
        assert_close(part, whole[10:20])
    again = HeadPoses.from_world(window.R_world_cpf, window.p_world_cpf)
    assert not torch.equal(again.p_prev_cpf[0], window.p_prev_cpf[0])


def test_fourier_encoding_is_input_major() -> None:
    x = torch.tensor([[0.3, -2.0]])
    scaled = torch.tensor([0.3, 0.6, 1.2, -2.0, -4.0, -8.0])
    assert_close(fourier_encode(x, 3)[0], torch.cat([x[0], scaled.sin(), scaled.cos()]))
    assert_close(fourier_encode(x, 0), x)
