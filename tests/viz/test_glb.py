"""GLB and VRMA hold the same motion to a reader that goes by the rules of glTF."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from motion_grpo.body import JOINT_NAMES, Skeleton
from motion_grpo.body.avatar import vrm_bones
from motion_grpo.motion import Motion
from motion_grpo.viz.glb import strongest
from motion_grpo.viz.gltf import to_xyzw
from motion_grpo.viz.mesh import mannequin_vertices, shown_body
from tests.body.smplh import write_smplh
from tests.io.test_bvh import with_hands, y_up_joints
from tests.tiny import moving_motion
from tests.viz.gltf_reader import Gltf, issues_of, joints_in_three

EXAMPLE = Path(__file__).parents[2] / "examples" / "walk_turns.npz"
# Of every humanoid in VRM 1.0.
REQUIRED = {"hips", "spine", "head"} | {
    f"{side}{bone}"
    for side in ("left", "right")
    for bone in ("UpperLeg", "LowerLeg", "Foot", "UpperArm", "LowerArm", "Hand")
}


def to_y_up(points: np.ndarray) -> np.ndarray:
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


@pytest.fixture(scope="module")
def ten_seconds(tmp_path_factory) -> tuple[Motion, Path]:
    motion = Motion.load(EXAMPLE)
    return motion, motion.save(tmp_path_factory.mktemp("glb") / "walk.glb")


@pytest.mark.parametrize("suffix", [".glb", ".vrma"])
@pytest.mark.parametrize("hands", [False, True])
def test_joints_are_within_a_millimetre(suffix: str, hands: bool, tmp_path) -> None:
    motion = replace(moving_motion(4), floor_height=0.6)
    motion = with_hands(motion) if hands else motion
    file = Gltf(motion.save(tmp_path / f"walk{suffix}"))
    count = 52 if hands else 22
    for frame in range(4):
        difference = file.joints(frame)[:count] - y_up_joints(motion)[frame, :count]
        assert np.linalg.norm(difference, axis=-1).max() < 1e-3
    assert_allclose(file.times, np.arange(4) / 30, atol=1e-6)
    assert [node.name for node in file.document.nodes][:52] == list(JOINT_NAMES)


def test_the_skin_is_the_mannequin(ten_seconds) -> None:
    motion, path = ten_seconds
    assert path.stat().st_size < 3_000_000  # 10.9 s
    file = Gltf(path)
    for frame in (0, 150):
        ours = to_y_up(mannequin_vertices(motion, [frame])[0])
        assert np.linalg.norm(file.vertices(frame) - ours, axis=-1).max() < 1e-3
    rest = file.vertices(None)
    assert rest[:, 1].min() == pytest.approx(0.0, abs=0.03)  # stands on the floor
    assert np.ptp(rest[:, 0]) > 1.4  # arms out


@pytest.mark.parametrize("suffix", [".glb", ".vrma"])
def test_the_validator_of_khronos_finds_nothing(suffix: str, ten_seconds, tmp_path) -> None:
    motion, path = ten_seconds
    issues = issues_of(path if suffix == ".glb" else with_hands(motion).save(tmp_path / "walk.vrma"))
    # It does not know VRM's extension, and says so.
    messages = [issue for issue in issues["messages"] if issue["code"] != "UNSUPPORTED_EXTENSION"]
    assert [issue for issue in messages if issue["severity"] < 2] == []


@pytest.mark.parametrize("suffix", [".glb", ".vrma"])
def test_three_plays_it_as_we_pose_it(suffix: str, tmp_path) -> None:
    motion = with_hands(Motion.load(EXAMPLE))
    path = motion.save(tmp_path / f"walk{suffix}")
    for frame in (0, 233):
        seconds = float(motion.timestamps[frame] - motion.timestamps[0])
        difference = joints_in_three(path, seconds) - y_up_joints(motion)[frame]
        assert np.linalg.norm(difference, axis=-1).max() < 1e-3


def test_unknown_hands_are_relaxed_and_still(tmp_path) -> None:
    motion = moving_motion(3)
    file = Gltf(motion.save(tmp_path / "walk.glb"))
    assert {channel.target.node for channel in file.animation.channels} == set(range(22))
    assert_allclose(file.joints(2), to_y_up(shown_body(motion).joints[2].numpy()), atol=1e-3)


def test_the_surface_of_a_licensed_file(tmp_path) -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(4), 6890).astype(np.float32)
    dense = np.zeros((6890, 52), np.float32)
    dense[np.arange(6890)[:, None], np.array([0, 5, 16, 40])] = weights
    model = write_smplh(tmp_path / "model.npz", weights=dense)
    motion = replace(with_hands(moving_motion(2)), skeleton=Skeleton.from_smplh(model))
    with pytest.raises(ValueError, match=r"name its licensed model file, or use a format without a surface"):
        motion.save(tmp_path / "walk.glb")
    file = Gltf(motion.save(tmp_path / "walk.glb", model_path=model))
    assert_allclose(file.vertices(1), to_y_up(motion.vertices(model)[1].numpy()), atol=1e-3)
    with pytest.raises(ValueError, match=r"model\.npz is an SMPLH file, and the motion's betas belong to the body"):
        moving_motion(2).save(tmp_path / "other.glb", model_path=model)
    assert not (tmp_path / "other.glb").exists()


def test_vrma_names_every_bone_and_rests_in_vrms_t_pose(tmp_path) -> None:
    file = Gltf(with_hands(moving_motion(2)).save(tmp_path / "walk.vrma"))
    extension = file.document.extensions["VRMC_vrm_animation"]
    bones = {name: bone["node"] for name, bone in extension["humanoid"]["humanBones"].items()}
    assert extension["specVersion"] == "1.0"
    assert file.document.extensionsUsed == ["VRMC_vrm_animation"]
    assert set(bones) >= REQUIRED
    assert len(bones) == len(set(bones.values())) == len(vrm_bones()) == 52
    rest = file.joints(None)
    for side, sign in (("left", 1), ("right", -1)):
        arm = [rest[bones[f"{side}{bone}"]] for bone in ("UpperArm", "LowerArm", "Hand")]
        for upper, lower in pairwise(arm):
            assert_allclose((lower - upper) / np.linalg.norm(lower - upper), (sign, 0, 0), atol=1e-5)
        hip, ankle = rest[bones[f"{side}UpperLeg"]], rest[bones[f"{side}Foot"]]
        assert_allclose((hip - ankle) / np.linalg.norm(hip - ankle), (0, 1, 0), atol=1e-5)
        assert 0.03 < ankle[1] < 0.15  # over the floor
    short = Gltf(moving_motion(2).save(tmp_path / "short.vrma")).document.extensions["VRMC_vrm_animation"]
    assert len(short["humanoid"]["humanBones"]) == 22


def test_quaternions_do_not_jump() -> None:
    angle = torch.linspace(0, 12, 50, dtype=torch.float64)
    turn = torch.stack([angle.cos(), -angle.sin(), 0 * angle, angle.sin(), angle.cos(), 0 * angle], 1)
    R = torch.cat([turn, torch.tensor([0.0, 0, 1]).expand(50, 3)], 1).reshape(50, 1, 3, 3)
    quaternions = to_xyzw(R)
    assert ((quaternions[1:] * quaternions[:-1]).sum(-1) > 0.9).all()


def test_the_strongest_weights_add_up() -> None:
    weights = torch.rand(100, 52)
    weights[:50, 2:] = 0
    joints, shares = strongest(weights)
    assert (shares.astype(int).sum(1) == 65535).all()
    assert (joints[:50][shares[:50] == 0] == 0).all()
    assert_allclose(shares[:50, 0] / 65535, (weights[:50, :2].max(1).values / weights[:50].sum(1)), atol=1e-4)
