import pytest
import roma
import smplx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from motion_grpo.body import HEAD, NUM_JOINTS, PARENTS, Skeleton, cpf_of, forward_kinematics, place_by_head
from motion_grpo.body.joints import MOVED_UNDER_HEAD
from motion_grpo.geometry.rotations import wxyz_to_matrix
from tests.body.smplh import smplh_arrays, write_smplh
from tests.tiny import GOLDEN

few = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
ELBOW, WRIST = 18, 20


def pose(seed: int, *batch: int, joints: int = NUM_JOINTS) -> tuple[Tensor, Tensor, Tensor]:
    """Betas, rotations of all joints and the pelvis' position, float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*batch, *shape, generator=generator, dtype=torch.float64)

    return draw(16), roma.rotvec_to_rotmat(0.7 * draw(joints, 3)), draw(3)


def double(skeleton: Skeleton, betas: Tensor) -> tuple[Tensor, Tensor]:
    return skeleton.rest_joints(betas.float()).double(), skeleton.cpf_offset(betas.float()).double()


@pytest.fixture(scope="module")
def smplh_path(tmp_path_factory):
    return write_smplh(tmp_path_factory.mktemp("smplh") / "model.npz")


def test_golden_agreement_with_egoallo(smplh_path) -> None:
    golden = load_file(GOLDEN / "smplh_fk.safetensors")
    skeleton = Skeleton.from_smplh(smplh_path)
    local, root = wxyz_to_matrix(golden["local_quats"]), golden["T_world_root"]
    rest = skeleton.rest_joints(golden["betas"])
    body = forward_kinematics(rest, torch.cat([wxyz_to_matrix(root[:, None, :4]), local], 1), root[:, 4:])

    def close(a, b):
        return assert_close(a, b, rtol=0.0, atol=1e-5)

    close(body.joints[:, 0], root[:, 4:])
    close(body.joints[:, 1:], golden["Ts_world_joint"][..., 4:])
    close(body.rotmats[:, 1:], wxyz_to_matrix(golden["Ts_world_joint"][..., :4]))

    cpf = golden["T_world_cpf"]
    placed = skeleton.place_by_head(golden["betas"], local, wxyz_to_matrix(cpf[:, :4]), cpf[:, 4:])
    close(placed.joints[:, 0], golden["T_world_root_from_cpf"][:, 4:])
    close(placed.rotmats[:, 0], wxyz_to_matrix(golden["T_world_root_from_cpf"][:, :4]))


def test_joints_agree_with_smplx(smplh_path) -> None:
    generator = torch.Generator().manual_seed(0)
    betas, rotvecs, trans = (torch.randn(5, *shape, generator=generator) for shape in ((16,), (52, 3), (3,)))
    model = smplx.SMPLH(str(smplh_path), ext="npz", use_pca=False, flat_hand_mean=True, batch_size=5)
    # smplx cuts files of less than 300 shape directions to ten betas; the forward pass takes as many as there are.
    model.shapedirs = torch.from_numpy(smplh_arrays()["shapedirs"])
    with torch.no_grad():
        reference = model(
            betas=betas,
            global_orient=rotvecs[:, 0],
            body_pose=rotvecs[:, 1:22].flatten(1),
            left_hand_pose=rotvecs[:, 22:37].flatten(1),
            right_hand_pose=rotvecs[:, 37:].flatten(1),
            transl=trans,
        ).joints[:, :52]
    rest = Skeleton.from_smplh(smplh_path).rest_joints(betas)
    joints = forward_kinematics(rest, roma.rotvec_to_rotmat(rotvecs), rest[:, 0] + trans).joints
    assert_close(joints, reference, rtol=0.0, atol=1e-5)


def test_bent_elbow_by_hand() -> None:
    rest = Skeleton.default().J0
    local = torch.eye(3).repeat(22, 1, 1)
    local[ELBOW] = torch.tensor(
        [[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]
    )  # 90 degrees about z: the T-pose's forearm points up
    joints = forward_kinematics(rest[:22], local, rest[0]).joints
    forearm = rest[WRIST] - rest[ELBOW]
    assert_close(joints[WRIST] - joints[ELBOW], torch.stack([-forearm[1], forearm[0], forearm[2]]))
    assert_close(joints[WRIST, 1] - joints[ELBOW, 1], forearm.norm(), rtol=0.05, atol=0.0)
    still = [joint for joint in range(22) if joint != WRIST]
    assert_close(joints[still], rest[still])


@few
@given(seed=seeds)
def test_rest_pose_gives_the_rest_joints(seed: int) -> None:
    rest = double(Skeleton.default(), pose(seed)[0])[0]
    body = forward_kinematics(rest, torch.eye(3, dtype=torch.float64).expand(52, 3, 3), rest[0])
    assert_close(body.joints, rest)
    assert_close(body.rotmats, torch.eye(3, dtype=torch.float64).expand(52, 3, 3))


@few
@given(seed=seeds)
def test_moves_rigidly_with_the_root_and_keeps_bone_lengths(seed: int) -> None:
    betas, local, p = pose(seed, 2)
    _, R, shift = pose(seed + 1, 2, joints=1)
    rest, _ = double(Skeleton.default(), betas)
    body = forward_kinematics(rest, local, p)
    turned = torch.cat([R @ local[:, :1], local[:, 1:]], 1)
    moved = forward_kinematics(rest, turned, (R[:, 0] @ p[..., None])[..., 0] + shift)
    assert_close(moved.joints, body.joints @ R[:, 0].mT + shift[:, None])
    assert_close(moved.rotmats, R @ body.rotmats)

    def bones(joints):
        return (joints[:, 1:] - joints[:, PARENTS[1:]]).norm(dim=-1)

    assert_close(bones(body.joints), bones(rest))


@few
@given(seed=seeds)
def test_body_without_hands_is_the_same_body(seed: int) -> None:
    betas, local, p = pose(seed, 3)
    rest, _ = double(Skeleton.default(), betas)
    full, short = forward_kinematics(rest, local, p), forward_kinematics(rest[:, :22], local[:, :22], p)
    assert_close(short.joints, full.joints[:, :22])
    assert_close(short.rotmats, full.rotmats[:, :22])


@few
@given(seed=seeds, hands=st.booleans())
def test_place_by_head_puts_the_cpf_where_it_was_asked_for(seed: int, hands: bool) -> None:
    betas, local, p_world_cpf = pose(seed, 4, joints=52 if hands else 22)
    rest, cpf_offset = double(Skeleton.default(), betas)
    R_world_cpf, local = local[:, 0], local[:, 1:]
    body = place_by_head(rest[:, : local.shape[1] + 1], cpf_offset, local, R_world_cpf, p_world_cpf)
    R, p = cpf_of(body, cpf_offset)
    assert_close(R, R_world_cpf)
    assert_close(p, p_world_cpf)
    again = forward_kinematics(
        rest[:, : local.shape[1] + 1], torch.cat([body.rotmats[:, :1], local], 1), body.joints[:, 0]
    )
    assert_close(again.joints, body.joints)
    assert_close(again.rotmats, body.rotmats)


def test_batches_broadcast() -> None:
    betas, local, p = (x.float() for x in pose(0, 2, 5))
    skeleton = Skeleton.default()
    rest = skeleton.rest_joints(betas[:, :1])  # one shape a sequence
    body = forward_kinematics(rest, local, p)
    assert body.joints.shape == (2, 5, 52, 3)
    assert body.rotmats.shape == (2, 5, 52, 3, 3)
    assert_close(body.joints[1, 3], forward_kinematics(rest[1, 0], local[1, 3], p[1, 3]).joints)
    fixed = forward_kinematics(skeleton.J0, local[0, 0], p)  # one pose in ten places
    assert_close(fixed.joints - p[:, :, None], (fixed.joints - p[:, :, None])[:1, :1].expand(2, 5, 52, 3))

    R_world_cpf = local[:, :, HEAD]
    placed = skeleton.place_by_head(betas[0, 0], local[:, :, 1:22], R_world_cpf, p)  # one shape for all
    one = skeleton.place_by_head(betas[0, 0], local[1, 2, 1:22], R_world_cpf[1, 2], p[1, 2])
    assert_close(placed.joints[1, 2], one.joints)


def test_gradients_are_the_numerical_ones() -> None:
    betas, local, p = pose(3, joints=22)
    rest, cpf_offset = double(Skeleton.default(), betas)
    inputs = [x.requires_grad_() for x in (rest[:22].clone(), cpf_offset, local[1:].clone(), local[0].clone(), p)]
    assert torch.autograd.gradcheck(lambda *x: tuple(place_by_head(*x)), inputs, fast_mode=True)


@few
@given(seed=seeds)
def test_what_a_joint_moves_under_a_head_that_is_held_still(seed: int) -> None:
    skeleton = Skeleton.default()
    betas, rotmats, p_world_cpf = pose(seed, joints=21)
    R_world_cpf = roma.random_rotmat(dtype=torch.float64)
    rest, cpf = double(skeleton, betas)

    def joints_of(local: Tensor) -> Tensor:
        return place_by_head(rest[:22], cpf, local, R_world_cpf, p_world_cpf).joints

    before, turn = joints_of(rotmats), roma.rotvec_to_rotmat(torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64))
    for joint in range(1, 22):
        turned = rotmats.clone()
        turned[joint - 1] = rotmats[joint - 1] @ turn
        moves = (joints_of(turned) - before).norm(dim=-1) > 1e-9
        assert moves.tolist() == list(MOVED_UNDER_HEAD[joint]), joint
