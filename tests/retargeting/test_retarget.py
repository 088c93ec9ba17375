"""From a figure of simple measures, and from SMPL-H itself in a BVH's clothes, to SMPL-H."""

from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from motion_grpo.body import BODY_JOINT_NAMES, NUM_BETAS, PARENTS, Skeleton
from motion_grpo.geometry.rotations import rotation_between
from motion_grpo.io.bvh import read_bvh
from motion_grpo.io.source_motion import SourceMotion
from motion_grpo.motion import Motion
from motion_grpo.retargeting.retarget import place_ankles, retarget, t_pose_from_frame
from motion_grpo.retargeting.rigs import JOINTS, LAFAN1, MIXAMO, RIGS, Rig, find_rig
from tests.data.importers.skeletons import FIGURE, NAMES, rotation, t_pose, write_bvh

UPPER_BODY = [j for j in BODY_JOINT_NAMES if not j.endswith(("hip", "knee", "ankle", "foot"))]


def angles(a: Tensor, b: Tensor) -> Tensor:
    return roma.rotmat_geodesic_distance(a, b).rad2deg()


def figure(tmp_path: Path, rotations: dict[str, Tensor] | None = None, **options) -> Motion:
    R, p = t_pose()
    for name, rotation_ in (rotations or {}).items():
        R[:, NAMES.index(name)] = rotation_
    return retarget(read_bvh(write_bvh(tmp_path / "a.bvh", R, p)), MIXAMO, **options)


def joint(motion: Motion, name: str) -> Tensor:
    return motion.joints[:, JOINTS.index(name)]


def test_t_pose_gives_the_rest_pose(tmp_path: Path) -> None:
    motion = figure(tmp_path)
    trunk = [BODY_JOINT_NAMES.index(n) for n in ("spine1", "spine2", "spine3", "neck", "head", "L_collar", "R_collar")]
    assert float(angles(motion.body_rotmats[:, trunk], torch.eye(3)).max()) < 0.01
    # Upright and facing -y is AMASS's root_orient of 90 degrees about x.
    assert float(angles(motion.root_rotmats, rotation("X", 90)).max()) < 0.01
    for side, sign in (("L", 1.0), ("R", -1.0)):
        arm = joint(motion, f"{side}_wrist") - joint(motion, f"{side}_shoulder")
        torch.testing.assert_close(
            arm / arm.norm(dim=1, keepdim=True), torch.tensor([[sign, 0, 0]]).expand(3, 3), atol=0.03, rtol=0
        )
        leg = joint(motion, f"{side}_ankle") - joint(motion, f"{side}_hip")
        assert float((leg[:, 2] / leg.norm(dim=1)).max()) < -0.995
        assert float((joint(motion, f"{side}_foot") - joint(motion, f"{side}_ankle"))[:, 1].max()) < -0.05  # toes ahead
    assert float(joint(motion, "L_foot")[:, 2].min()) == pytest.approx(0.01, abs=0.004)  # 1 cm over the floor
    assert bool((motion.contacts[:, [BODY_JOINT_NAMES.index("L_foot"), BODY_JOINT_NAMES.index("R_foot")]] == 1).all())


@pytest.mark.parametrize("smplh", UPPER_BODY)
def test_a_known_rotation_arrives_at_its_joint_and_nowhere_else(tmp_path: Path, smplh: str) -> None:
    still = figure(tmp_path)
    moved = figure(tmp_path, {MIXAMO.joints[smplh]: rotation("XYZ"[len(smplh) % 3], 30)})
    turned = angles(still.body_rotmats[0], moved.body_rotmats[0])
    others = [i for i, name in enumerate(BODY_JOINT_NAMES) if name in UPPER_BODY and name != smplh]
    assert float(turned[BODY_JOINT_NAMES.index(smplh)]) == pytest.approx(30, abs=1e-2)
    assert float(turned[others].max()) < 1e-2


def test_rotations_keep_their_sense(tmp_path: Path) -> None:
    still = figure(tmp_path)
    raised = figure(tmp_path, {"LeftArm": rotation("Z", 60)})  # left arm up, in a y-up world
    assert float((joint(raised, "L_wrist") - joint(still, "L_wrist"))[0, 2]) > 0.35
    bent = figure(tmp_path, {"RightForeArm": rotation("Y", 90)})  # right forearm forward
    assert float((joint(bent, "R_wrist") - joint(bent, "R_elbow"))[0, 1]) < -0.2
    nodding = figure(tmp_path, {"Head": rotation("X", 30)})  # down
    torch.testing.assert_close(nodding.body_rotmats[0, 14], rotation("X", 30), atol=1e-5, rtol=0)


def test_a_lifted_leg(tmp_path: Path) -> None:
    motion = figure(tmp_path, {"LeftUpLeg": rotation("X", -90), "LeftLeg": rotation("X", 90)})  # thigh level
    hip, knee, ankle = (joint(motion, f"L_{part}")[0] for part in ("hip", "knee", "ankle"))
    assert (knee - hip)[1] < -0.3  # ahead
    assert abs(float((knee - hip)[2])) < 0.06
    assert (ankle - knee)[2] < -0.3
    assert float(joint(motion, "R_foot")[0, 2]) == pytest.approx(0.016, abs=0.006)


@given(heading=st.floats(-180, 180), scale=st.floats(0.6, 1.4))
@settings(max_examples=10, deadline=None)
def test_world_and_size(tmp_path_factory: pytest.TempPathFactory, heading: float, scale: float) -> None:
    """Turning the source about the vertical turns the result; the way traveled goes with the legs."""
    folder = tmp_path_factory.mktemp("a")
    R, p = t_pose(2)
    p[1, 2] = 100.0  # a meter ahead
    still = retarget(read_bvh(write_bvh(folder / "a.bvh", R, p)), MIXAMO, betas0=0.0)
    turn = rotation("Y", heading)
    bigger = [(n, parent, scale * o) for n, parent, o in FIGURE]
    R[:, 0] = turn
    turned = retarget(read_bvh(write_bvh(folder / "b.bvh", R, scale * p @ turn.mT, bigger)), MIXAMO, betas0=0.0)
    expected = still.joints @ rotation("Z", heading).mT
    torch.testing.assert_close(turned.joints, expected, atol=2e-4, rtol=0)
    rest = Skeleton.default().J0
    leg = float(
        np.mean([(rest[a] - rest[b]).norm() + (rest[b] - rest[c]).norm() for a, b, c in ((1, 4, 7), (2, 5, 8))])
    )
    assert float((still.root_positions[1] - still.root_positions[0])[1]) == pytest.approx(-leg / 0.79, abs=1e-3)


def smplh_as_bvh(path: Path, motion: Motion) -> SourceMotion:
    """A motion of the default body in a BVH with Mixamo's names."""
    rest = (motion.body.rest_joints(motion.betas)[:22] * 100).numpy()

    def name(j):
        return MIXAMO.joints[JOINTS[j]]

    skeleton = [(name(j), name(PARENTS[j]) if j else "", rest[j] - (rest[PARENTS[j]] if j else 0)) for j in range(22)]
    y_up = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    R = motion.local_rotmats[:, :22].clone()
    R[:, 0] = y_up @ R[:, 0]
    return read_bvh(write_bvh(path, R, motion.root_positions @ y_up.mT * 100, skeleton, fps=motion.fps))


def test_smplh_comes_back_from_a_bvh_of_itself(tmp_path: Path) -> None:
    frames, generator = 40, torch.Generator().manual_seed(1)
    time = torch.linspace(0, 2 * torch.pi, frames)
    waves = 0.25 * torch.randn(3, 22, 3, generator=generator)
    rotvecs = sum(w * torch.sin((i + 1) * time + i)[:, None, None] for i, w in enumerate(waves))
    rotvecs[:, [1, 2, 4, 5, 7, 8, 10, 11]] = 0.0
    rotvecs[:, [1, 2], 0] = -0.5 - 0.2 * torch.sin(time)[:, None]  # a knee-bend
    rotvecs[:, [4, 5], 0] = 1.0 + 0.4 * torch.sin(time)[:, None]
    R = roma.rotvec_to_rotmat(rotvecs)
    betas = torch.zeros(NUM_BETAS)
    betas[0] = 0.7
    motion = Motion(
        root_rotmats=rotation("X", 90) @ R[:, 0],
        root_positions=torch.stack([time / 5, -time / 3, torch.full_like(time, 0.9)], dim=1),
        body_rotmats=R[:, 1:],
        betas=betas,
        contacts=torch.zeros(frames, 21),
        timestamps=torch.arange(frames, dtype=torch.float64) / 30,
    )
    back = retarget(smplh_as_bvh(tmp_path / "smplh.bvh", motion), MIXAMO)
    assert float(back.betas[0]) == pytest.approx(0.7, abs=0.06)  # the size is estimated
    back = retarget(smplh_as_bvh(tmp_path / "smplh.bvh", motion), MIXAMO, betas0=0.7)
    drop = (back.root_positions - motion.root_positions).mean(0)
    assert float((back.root_positions - drop - motion.root_positions).abs().max()) < 1e-3
    assert float((back.joints - drop - motion.joints).norm(dim=-1)[:, :22].mean()) < 0.006
    feet = [7, 8]
    assert float((back.joints - drop - motion.joints).norm(dim=-1)[:, feet].max()) < 0.004


@given(seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_any_bone_frames_will_do_if_a_frame_shows_the_t_pose(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("frames")
    generator = torch.Generator().manual_seed(seed)
    R, p = t_pose(6)
    R[1:] = roma.rotvec_to_rotmat(0.3 * torch.randn(5, len(FIGURE), 3, generator=generator))
    rig = Rig(name="no references", joints=MIXAMO.joints)
    expected = retarget(read_bvh(write_bvh(folder / "a.bvh", R, p)), rig)
    # The same motion with every joint's frame turned by Q: R' = Q_parent^T R Q, offset' = Q_parent^T offset.
    Q = roma.random_rotmat(len(FIGURE), generator=generator)
    parents = [NAMES.index(parent) if parent else -1 for _, parent, _ in FIGURE]
    Q_parent = torch.stack([Q[i] if i >= 0 else rotation("Y", 40) for i in parents])
    skeleton = [(n, q, (Q_parent[i].mT.double() @ torch.from_numpy(o)).numpy()) for i, (n, q, o) in enumerate(FIGURE)]
    source = read_bvh(write_bvh(folder / "b.bvh", Q_parent.mT @ R @ Q, p @ rotation("Y", 40), skeleton))
    motion = retarget(source, t_pose_from_frame(source, rig, 0))
    torch.testing.assert_close(motion.joints, expected.joints @ rotation("Z", -40).mT, atol=1e-4, rtol=0)


def test_a_zero_pose_in_z_up_axes(tmp_path: Path) -> None:
    R, p = t_pose()
    R[:, NAMES.index("LeftArm")] = rotation("Z", 40)
    expected = retarget(read_bvh(write_bvh(tmp_path / "a.bvh", R, p)), MIXAMO)
    z_up = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    skeleton = [(n, q, (z_up.double() @ torch.from_numpy(o)).numpy()) for n, q, o in FIGURE]
    source = read_bvh(write_bvh(tmp_path / "b.bvh", z_up @ R @ z_up.mT, p @ z_up.mT, skeleton), up="z")
    torch.testing.assert_close(retarget(source, MIXAMO).joints, expected.joints, atol=1e-5, rtol=0)


# LAFAN1's measures, rounded (cm), and the angles (Z, Y, X) at which its actors stand with arms out.
_LAFAN = {
    "Hips": ("", (0, 0, 0), (90, 0, 90)), "Spine": ("Hips", (7, -2.6, 0), (0, 0, 0)),
    "Spine1": ("Spine", (12.6, 0, 0), (0, 0, 0)), "Spine2": ("Spine1", (12.3, 0, 0), (0, 0, 0)),
    "Neck": ("Spine2", (25.8, 0, 0), (0, 0, 0)), "Head": ("Neck", (11.8, 0, 0), (0, 0, 0)),
    "LeftShoulder": ("Spine2", (19.7, -1.5, 6), (-90, -90, -90)), "LeftArm": ("LeftShoulder", (11.3, 0, 0), (0, 0, 0)),
    "LeftForeArm": ("LeftArm", (33, 0, 0), (0, 0, 0)), "LeftHand": ("LeftForeArm", (25.2, 0, 0), (0, 0, 0)),
    "RightShoulder": ("Spine2", (19.7, -1.5, -6), (-90, 90, 90)),
    "RightArm": ("RightShoulder", (11.3, 0, 0), (0, 0, 0)),
    "RightForeArm": ("RightArm", (33, 0, 0), (0, 0, 0)), "RightHand": ("RightForeArm", (25.2, 0, 0), (0, 0, 0)),
} | {
    f"{side}{part}": (parent.format(side), offset, angle)
    for side, z in (("Left", 10.5), ("Right", -10.5))
    for part, parent, offset, angle in (
        ("UpLeg", "Hips", (0.1, 1.9, z), (180, 0, 180)), ("Leg", "{}UpLeg", (43.5, 0, 0), (0, 0, 0)),
        ("Foot", "{}Leg", (42.4, 0, 0), (64, 0, 0)), ("Toe", "{}Foot", (17.3, 0, 0), (26, 0, 0)),
    )
}  # fmt: skip


def test_lafan1_stands(tmp_path: Path) -> None:
    R = torch.stack(
        [roma.euler_to_rotmat("ZYX", torch.tensor(a, dtype=torch.float64), degrees=True) for *_, a in _LAFAN.values()]
    )
    skeleton = [(name, parent, np.array(offset, dtype=float)) for name, (parent, offset, _) in _LAFAN.items()]
    source = read_bvh(write_bvh(tmp_path / "a.bvh", R.expand(3, -1, 3, 3), torch.tensor([[0.0, 92, 0]] * 3), skeleton))
    assert find_rig(source.names) is LAFAN1
    motion = retarget(source, LAFAN1)
    # In T-pose nothing of the trunk, arms' collars or feet is turned, and limbs only as far as skeletons differ.
    turned = angles(motion.body_rotmats[0], torch.eye(3))
    limbs = torch.tensor([name.endswith(("hip", "knee", "shoulder", "elbow", "wrist")) for name in BODY_JOINT_NAMES])
    ankles = torch.tensor([name.endswith("ankle") for name in BODY_JOINT_NAMES])
    assert float(turned[~limbs & ~ankles].max()) < 1
    assert float(turned.max()) < 15
    assert float(angles(motion.root_rotmats[0], rotation("X", 90))) < 1
    assert float(motion.joints[0, 20, 0]) > 0.6  # the left wrist to his left
    bent = R.clone()
    bent[list(_LAFAN).index("LeftLeg")] = rotation("Z", -60)  # knees bend about -z
    source = read_bvh(
        write_bvh(tmp_path / "b.bvh", bent.expand(3, -1, 3, 3), torch.tensor([[0.0, 92, 0]] * 3), skeleton)
    )
    assert float(joint(retarget(source, LAFAN1), "L_ankle")[0, 1] - joint(motion, "L_ankle")[0, 1]) > 0.25  # backward


def test_lafan1_without_its_t_pose_is_refused(tmp_path: Path) -> None:
    skeleton = [(name, parent, np.array(offset, dtype=float)) for name, (parent, offset, _) in _LAFAN.items()]
    source = read_bvh(write_bvh(tmp_path / "a.bvh", torch.eye(3).repeat(3, 22, 1, 1), torch.zeros(3, 3), skeleton))
    with pytest.raises(ValueError, match="zero pose is no T-pose"):
        retarget(source, Rig(name="mine", joints=LAFAN1.joints))


def test_stature_and_wrong_units(tmp_path: Path) -> None:
    tall = figure(tmp_path, stature=1.9)
    assert float(tall.betas[0]) == pytest.approx((1.9 - 1.721) / 0.0977, abs=0.15)
    assert float(tall.joints[0, 15, 2]) - float(figure(tmp_path, stature=1.6).joints[0, 15, 2]) == pytest.approx(
        0.27, abs=0.02
    )
    with pytest.raises(ValueError, match=r"legs are 79 m from hip.*--metres-per-unit"):
        retarget(read_bvh(tmp_path / "a.bvh", metres_per_unit=1.0), MIXAMO)
    with pytest.raises(ValueError, match=r"stature must be .* got 175"):
        figure(tmp_path, stature=175.0)
    with pytest.raises(ValueError, match="frame 9 of the T-pose does not exist"):
        t_pose_from_frame(read_bvh(tmp_path / "a.bvh"), MIXAMO, 9)


def test_one_frame(tmp_path: Path) -> None:
    motion = retarget(read_bvh(write_bvh(tmp_path / "a.bvh", *t_pose(1))), MIXAMO)
    assert len(motion) == 1
    assert bool(motion.joints.isfinite().all())


@pytest.mark.parametrize("fps", [24.0, 50.0, 60.0, 120.0])
def test_resampling_goes_by_time(fps: float) -> None:
    time = torch.arange(int(2 * fps) + 1, dtype=torch.float64) / fps
    R = roma.rotvec_to_rotmat(time[:, None] * torch.tensor([0.0, 1.5, 0], dtype=torch.float64))[:, None]
    p = torch.stack([time, 0 * time, 0 * time], dim=1)[:, None]
    motion = SourceMotion(("root",), (-1,), R, p, fps).at_fps(30.0)
    assert len(motion) == 61
    torch.testing.assert_close(motion.positions[:, 0, 0], torch.arange(61, dtype=torch.float64) / 30)
    assert float(angles(motion.rotmats[30, 0], rotation("Y", float(np.degrees(1.5))).double())) < 1e-3


def test_ankles_reach_their_targets() -> None:
    rest = Skeleton.default().J0[:22].double()
    generator = torch.Generator().manual_seed(0)
    R = torch.eye(3, dtype=torch.float64).repeat(50, 22, 1, 1)
    pelvis = torch.zeros(50, 3, dtype=torch.float64)
    targets = {}
    for side, hip in (("L", 1), ("R", 2)):
        direction = torch.randn(50, 3, generator=generator, dtype=torch.float64) * torch.tensor([0.3, 0.2, 0.6])
        direction[:, 1] -= 1.0
        distance = 0.35 + 0.7 * torch.rand(50, generator=generator, dtype=torch.float64)
        targets[side] = rest[hip] - rest[0] + distance[:, None] * direction / direction.norm(dim=1, keepdim=True)
    placed = place_ankles(R, pelvis, rest, targets)
    for side, (hip, knee, ankle) in (("L", (1, 4, 7)), ("R", (2, 5, 8))):
        at_hip = rest[hip] - rest[0]
        at_ankle = at_hip + placed[:, hip] @ (rest[knee] - rest[hip]) + placed[:, knee] @ (rest[ankle] - rest[knee])
        reach = (rest[ankle] - rest[hip]).norm()
        wanted = targets[side] - at_hip
        wanted = wanted * (reach / wanted.norm(dim=1, keepdim=True)).clamp(max=1)
        torch.testing.assert_close(at_ankle - at_hip, wanted, atol=1e-9, rtol=0)
        assert torch.equal(placed[:, ankle], R[:, ankle])  # feet keep their rotation


def test_rotation_between_is_the_smallest() -> None:
    a, b = torch.randn(2, 20, 3, dtype=torch.float64)
    R = rotation_between(a, b)

    def unit(v):
        return v / v.norm(dim=-1, keepdim=True)

    torch.testing.assert_close((R @ unit(a)[..., None])[..., 0], unit(b))
    torch.testing.assert_close(
        roma.rotmat_geodesic_distance(R, torch.eye(3).double()), (unit(a) * unit(b)).sum(-1).acos()
    )
    torch.testing.assert_close(rotation_between(a[0], a[0]), torch.eye(3).double())


def test_rigs_are_complete_and_mirror_images() -> None:
    for rig in RIGS.values():
        assert set(rig.joints) == set(JOINTS), rig.name
        assert len(set(rig.sources())) == len(rig.sources())
        assert find_rig([*rig.sources(), "extra"]) is rig
        for name, matrix in (rig.t_pose or {}).items():
            np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12, err_msg=name)
            assert np.linalg.det(matrix) == pytest.approx(1)
