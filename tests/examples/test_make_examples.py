"""The example recordings: what they promise, and that the script remakes exactly the files in the repository."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import roma
import torch

from motion_grpo.body import FOOT_JOINTS, NUM_JOINTS, PosedBody, Skeleton, cpf_of, forward_kinematics
from motion_grpo.body.joints import BODY_JOINT_NAMES

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("walk_turns", "brisk_walk", "look_around")
WALKS = ("walk_turns", "brisk_walk")
JOINTS = ("pelvis", *BODY_JOINT_NAMES)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def posed(amass: dict[str, np.ndarray]) -> tuple[PosedBody, torch.Tensor]:
    """The body in the world (pelvis = trans + J0, J0 not turned), and its rest joints."""
    rest = Skeleton.default().rest_joints(torch.from_numpy(amass["betas"]))
    local = roma.rotvec_to_rotmat(torch.from_numpy(amass["poses"]).reshape(-1, NUM_JOINTS, 3))
    return forward_kinematics(rest, local, torch.from_numpy(amass["trans"]) + rest[0]), rest


def head(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """R_world_cpf and p_world_cpf of the CSV."""
    table = pd.read_csv(EXAMPLES / f"{name}.csv")
    R = roma.unitquat_to_rotmat(torch.tensor(table[["qx", "qy", "qz", "qw"]].to_numpy(), dtype=torch.float32))
    return R, torch.tensor(table[["x", "y", "z"]].to_numpy(), dtype=torch.float32)


def test_the_folder_has_these_recordings_and_one_is_long_enough_for_the_demo():
    assert {path.stem for path in EXAMPLES.glob("*.csv")} == set(NAMES)
    assert {path.stem for path in EXAMPLES.glob("*.npz")} == set(NAMES)
    assert max(len(read_npz(EXAMPLES / f"{name}.npz")["poses"]) for name in NAMES) >= 300
    assert sum(path.stat().st_size for path in EXAMPLES.glob("*.[cn][sp][vz]")) < 300_000


@pytest.mark.parametrize("name", NAMES)
class TestRecording:
    def test_npz_is_amass(self, name):
        amass = read_npz(EXAMPLES / f"{name}.npz")
        frames = len(amass["poses"])
        assert amass["poses"].shape == (frames, 156)
        assert amass["trans"].shape == (frames, 3)
        assert amass["betas"].shape == (16,)
        assert {amass[key].dtype for key in ("poses", "trans", "betas")} == {np.dtype("float32")}
        assert str(amass["gender"]) == "neutral"
        assert float(amass["mocap_framerate"]) == 30.0
        assert not amass["poses"][:, 66:].any()  # flat hands

    def test_timestamps_are_those_of_30_fps(self, name):
        table = pd.read_csv(EXAMPLES / f"{name}.csv")
        assert list(table.columns) == ["timestamp", "x", "y", "z", "qw", "qx", "qy", "qz", "floor_height"]
        assert len(table) == len(read_npz(EXAMPLES / f"{name}.npz")["poses"])
        np.testing.assert_allclose(table["timestamp"], np.arange(len(table)) / 30, atol=1e-6)

    def test_quaternions_are_unit_and_do_not_flip(self, name):
        quaternions = pd.read_csv(EXAMPLES / f"{name}.csv")[["qw", "qx", "qy", "qz"]].to_numpy()
        np.testing.assert_allclose(np.linalg.norm(quaternions, axis=1), 1, atol=2e-6)
        assert ((quaternions[1:] * quaternions[:-1]).sum(1) > 0.99).all()

    def test_head_is_that_of_the_body(self, name):
        amass = read_npz(EXAMPLES / f"{name}.npz")
        body, _ = posed(amass)
        R, p = cpf_of(body, Skeleton.default().cpf_offset(torch.from_numpy(amass["betas"])))
        R_csv, p_csv = head(name)
        assert (p - p_csv).norm(dim=-1).max() < 1e-3
        assert roma.rotmat_geodesic_distance(R, R_csv).max() < 1e-3

    def test_head_is_upright_at_eye_height_and_looks_ahead(self, name):
        R, p = head(name)
        assert R[:, 2, 1].min() > 0.5  # up stays within 60 degrees of the world's
        assert p[:, 2].min() > 1.4
        assert p[:, 2].max() < 1.8
        body, _ = posed(read_npz(EXAMPLES / f"{name}.npz"))
        chest = body.rotmats[:, JOINTS.index("spine3"), :2, 2]
        assert (R[:, :2, 2] * chest).sum(-1).mean() > 0.4  # the face is on the chest's side

    def test_feet_stand_on_the_floor(self, name):
        body, rest = posed(read_npz(EXAMPLES / f"{name}.npz"))
        feet = list(FOOT_JOINTS)
        floor = rest[feet[2:], 1].min() - 0.01
        clearance = (body.joints[:, feet, 2] - (rest[feet, 1] - floor)).amin(dim=1)
        assert clearance.min() > -0.02
        assert clearance.quantile(0.04).abs() < 0.002
        assert clearance.max() < 0.03  # nobody jumps, and the floor is level

    def test_planted_feet_stay_planted(self, name):
        body, _ = posed(read_npz(EXAMPLES / f"{name}.npz"))
        toes = body.joints[:, [JOINTS.index("L_foot"), JOINTS.index("R_foot")]]
        speed = 30 * toes.diff(dim=0).norm(dim=-1)
        assert speed.amin(dim=1).median() < 0.1

    def test_knees_and_elbows_bend_the_way_they_do(self, name):
        poses = torch.from_numpy(read_npz(EXAMPLES / f"{name}.npz")["poses"]).reshape(-1, NUM_JOINTS, 3)
        for side, sign in (("L", -1), ("R", 1)):
            knee = poses[:, JOINTS.index(f"{side}_knee")]
            assert knee[:, 0].min() > -0.01  # the shank goes back, never forward
            assert knee[:, 1:].abs().max() < 0.3
            elbow = poses[:, JOINTS.index(f"{side}_elbow")]
            assert (sign * elbow[:, 1]).min() > 0  # the forearm comes forward

    def test_no_joint_jumps(self, name):
        amass = read_npz(EXAMPLES / f"{name}.npz")
        body, _ = posed(amass)
        assert body.joints.diff(dim=0).norm(dim=-1).max() < 0.2
        local = roma.rotvec_to_rotmat(torch.from_numpy(amass["poses"]).reshape(-1, NUM_JOINTS, 3))
        assert roma.rotmat_geodesic_distance(local[1:, 1:], local[:-1, 1:]).max() < np.radians(30)


@pytest.mark.parametrize("name", WALKS)
def test_walks_go_where_the_face_looks(name):
    R, p = head(name)
    velocity = 30 * p[:, :2].diff(dim=0)
    moving = velocity.norm(dim=-1) > 0.5
    heading = velocity[moving] / velocity[moving].norm(dim=-1, keepdim=True)
    face = R[:-1][moving][:, :2, 2]
    assert moving.float().mean() > 0.5
    assert ((heading * face).sum(-1) / face.norm(dim=-1)).mean() > 0.85  # into the curve, in a curve


def test_the_walk_with_turns_turns_and_looking_around_stays():
    R, _ = head("walk_turns")
    heading = np.unwrap(np.arctan2(R[:, 1, 2].numpy(), R[:, 0, 2].numpy()))
    assert np.degrees(np.ptp(heading)) > 360
    R, p = head("look_around")
    heading = np.unwrap(np.arctan2(R[:, 1, 2].numpy(), R[:, 0, 2].numpy()))
    assert np.degrees(np.ptp(heading)) > 50
    assert (p - p.mean(0)).norm(dim=-1).max() < 0.25


@pytest.fixture
def script(monkeypatch):
    pytest.importorskip("mujoco", reason="the script needs motion-grpo[examples]")
    pytest.importorskip("envpool_assets", reason="the script needs motion-grpo[examples]")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import make_examples

    yield make_examples
    for module in ("make_examples", "cmu_humanoid"):
        sys.modules.pop(module, None)


def test_script_remakes_the_files(script, tmp_path):
    assert set(script.EXAMPLES) == set(NAMES)
    for name in NAMES:
        script.write_example(name, tmp_path)
        assert (tmp_path / f"{name}.csv").read_bytes() == (EXAMPLES / f"{name}.csv").read_bytes()
        # Arrays and not bytes: another zlib may compress differently.
        remade, kept = (read_npz(folder / f"{name}.npz") for folder in (tmp_path, EXAMPLES))
        assert remade.keys() == kept.keys()
        for key in kept:
            assert remade[key].dtype == kept[key].dtype
            np.testing.assert_array_equal(remade[key], kept[key])
    assert len(list(tmp_path.iterdir())) == 2 * len(NAMES)  # nothing temporary is left


def test_zero_pose_is_a_splayed_t_pose(script):
    zero = script.zero_pose("2020")
    leg = (zero.p("lfoot") - zero.p("lfemur"))[0]
    assert np.degrees(torch.atan2(leg[0], -leg[1])) == pytest.approx(20, abs=0.1)
    arm = (zero.p("lhand") - zero.p("lhumerus"))[0]
    assert torch.allclose(arm / arm.norm(), torch.tensor([1.0, 0, 0], dtype=arm.dtype), atol=1e-6)
    assert zero.p("ltoes")[0, 2] > zero.p("lfoot")[0, 2]  # faces +z


@pytest.mark.parametrize("name", NAMES)
def test_ankles_are_the_sources(script, name):
    motion = script.load_subject(script.EXAMPLES[name])
    body, _ = posed(read_npz(EXAMPLES / f"{name}.npz"))
    ankles = body.joints[:, [JOINTS.index("L_ankle"), JOINTS.index("R_ankle")]]
    difference = ankles - torch.stack([motion.p("lfoot"), motion.p("rfoot")], dim=1)
    floor = torch.tensor([0, 0, difference[..., 2].median()])
    assert (difference - floor).norm(dim=-1).max() < 0.016


def test_a_sloping_floor_is_levelled(script):
    motion = script.load_motion("CMU_069_24", "2020", 0.0, 3.0, 30.0).levelled()
    slope = roma.rotvec_to_rotmat(torch.tensor([0.03, -0.05, 0.0], dtype=torch.float64))
    tilted = script.HumanoidMotion(
        motion.bodies, slope @ motion.R_world_body, motion.p_world_body @ slope.mT, motion.joint_angles
    )
    # What is left of it is a turn about the vertical, of second order in the slope.
    assert (tilted.levelled().p_world_body[..., 2] - motion.p_world_body[..., 2]).abs().max() < 5e-3
    assert roma.rotmat_geodesic_distance(tilted.levelled().R_world_body, motion.R_world_body).max() < 5e-3


def test_unknown_clip_is_refused(script):
    with pytest.raises(ValueError, match=r"has no clip CMU_001_01; mocap\.json"):
        script.load_motion("CMU_001_01", "2020", 0.0, 1.0, 30.0)


def test_clip_of_the_other_humanoid_is_refused(script, monkeypatch):
    import cmu_humanoid

    step, arrays = cmu_humanoid.read_clip("CMU_077_02", "2019")
    monkeypatch.setattr(cmu_humanoid, "read_clip", lambda *_: (step, arrays))
    with pytest.raises(ValueError, match="stored and computed legs differ"):
        script.load_motion("CMU_077_02", "2020", 0.0, 1.0, 30.0)
