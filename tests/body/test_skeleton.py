from pathlib import Path

import mannequin
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from motion_grpo.body import HEAD, JOINT_NAMES, MIRROR, PARENTS, STATURES, Skeleton
from tests.body.smplh import NUM_VERTICES, Unpickled, smplh_arrays, write_smplh
from tests.tiny import GOLDEN

few = settings(max_examples=15, deadline=None, derandomize=True)
betas_lists = st.lists(st.floats(-3, 3, width=32), min_size=16, max_size=16)
L_HEEL_TO_TOE = [JOINT_NAMES.index(name) for name in ("L_ankle", "L_foot")]


# ---- the default body


def test_default_body_stands_as_a_person_does() -> None:
    skeleton = Skeleton.default()
    joints = dict(zip(JOINT_NAMES, skeleton.J0, strict=True))
    assert skeleton.name == "mannequin-x-symmetric"
    assert all(joint[0] > 0.02 for name, joint in joints.items() if name.startswith("L_"))  # left is +x
    assert all(joint[0] < -0.02 for name, joint in joints.items() if name.startswith("R_"))
    heights = [joints[name][1] for name in ("L_foot", "L_ankle", "L_knee", "L_hip", "spine1", "neck", "head")]
    assert heights == sorted(heights)  # y is up
    assert (skeleton.J0[L_HEEL_TO_TOE[1]] - skeleton.J0[L_HEEL_TO_TOE[0]])[2] > 0.05  # toes point to +z
    assert abs(joints["L_wrist"][1] - joints["L_shoulder"][1]) < 0.1  # arms stretched out


@few
@given(betas=betas_lists)
def test_default_body_is_symmetric_and_the_mean_of_both_sides_of_mannequin_x(betas: list) -> None:
    betas, flip = torch.tensor(betas), torch.tensor([-1.0, 1.0, 1.0])
    body, package = Skeleton.default(), Skeleton.mannequin_x()
    rest, sides = body.rest_joints(betas), package.rest_joints(betas)
    assert_close(rest[list(MIRROR)] * flip, rest)
    assert_close(rest, (sides + sides[list(MIRROR)] * flip) / 2, rtol=0.0, atol=1e-6)
    assert rest[[0, 3, 6, 9, 12, 15], 0].abs().max() == 0
    eyes = body.cpf_offset(betas)
    assert eyes[0] == 0
    assert_close(eyes[1:], package.cpf_offset(betas)[1:])


def test_both_arms_of_the_t_pose_bend_alike() -> None:
    joints = dict(zip(JOINT_NAMES, Skeleton.default().J0, strict=True))

    def bend(side: str) -> float:
        upper, lower = (
            joints[f"{side}_{b}"] - joints[f"{side}_{a}"] for a, b in (("shoulder", "elbow"), ("elbow", "wrist"))
        )
        return float(torch.rad2deg(torch.acos(torch.cosine_similarity(upper, lower, dim=0))))

    assert bend("L") == pytest.approx(bend("R"), abs=1e-3)
    assert bend("L") < 15


def test_the_package_s_own_body_is_at_hand() -> None:
    with np.load(Path(mannequin.__file__).parent / "assets" / "smplx_calibration.npz") as file:
        joints = torch.tensor(file["joint_rest"], dtype=torch.float32)
    package = Skeleton.mannequin_x()
    assert package.name == "mannequin-x"
    assert_close(package.J0[:22], joints[:22])
    assert (package.J0 - Skeleton.default().J0).abs().max() > 0.01


def test_default_fingers_are_the_fingers() -> None:
    J0 = Skeleton.default().J0
    length = (J0[1:] - J0[list(PARENTS[1:])]).norm(dim=-1)[21:].view(2, 5, 3)  # index, middle, pinky, ring, thumb
    assert ((length[..., 0] > 0.03) & (length[..., 0] < 0.13)).all()
    assert ((length[..., 1:] > 0.015) & (length[..., 1:] < 0.05)).all()
    left = J0[22:37].view(5, 3, 3)
    across = left[:4, 0, 2].tolist()  # T-pose, palms down: from the little finger (back) to the index (front)
    assert [across.index(z) for z in sorted(across)] == [2, 3, 1, 0]
    assert left[4, 2, 2] > left[0, 0, 2]  # the thumb points forward


def test_default_eyes_are_at_93_percent_of_stature() -> None:
    with np.load(Path(mannequin.__file__).parent / "assets" / "smplx_calibration.npz") as file:
        sole, crown = file["sole_y_rest"].min(), file["head_max_rest"][1]
    skeleton = Skeleton.default()
    eyes = skeleton.J0[HEAD] + skeleton.cpf_offset(torch.zeros(16))
    assert 1.6 < crown - sole < 1.8
    assert (float(eyes[1]) - sole) / (crown - sole) == pytest.approx(0.93, abs=0.01)
    assert abs(eyes[0]) < 0.005
    assert 0.05 < skeleton.cpf0[2] < 0.11  # in front of the head joint


@few
@given(first=betas_lists, second=betas_lists, weight=st.floats(0, 1, width=32))
def test_linear_in_betas_and_the_last_six_do_nothing(first: list, second: list, weight: float) -> None:
    skeleton = Skeleton.default()
    a, b = torch.tensor(first), torch.tensor(second)
    for shaped in (skeleton.rest_joints, skeleton.cpf_offset):
        assert_close(shaped(weight * a + (1 - weight) * b), weight * shaped(a) + (1 - weight) * shaped(b))
        assert_close(shaped(torch.cat([a[:10], b[10:]])), shaped(a))
        assert_close(shaped(torch.stack([a, b])[None])[0, 1], shaped(b))


def test_default_betas_change_the_stature() -> None:
    skeleton = Skeleton.default()

    def eye_height(beta):
        return float(
            skeleton.rest_joints(beta * torch.eye(16)[0])[HEAD, 1]
            - skeleton.rest_joints(beta * torch.eye(16)[0])[10, 1]
        )

    assert abs(eye_height(1.0) - eye_height(-1.0)) > 0.05


@pytest.mark.parametrize("stature", [1.5, 1.75, 1.9])
def test_a_body_of_that_stature(stature: float) -> None:
    skeleton = Skeleton.default()
    betas = skeleton.betas_of_stature(stature)
    assert float(skeleton.stature(betas)) == pytest.approx(stature, abs=1e-3)
    assert betas[1:].eq(0).all()
    eyes, legs, _ = skeleton.measures(betas).tolist()
    assert eyes / stature == pytest.approx(0.933, abs=0.003)
    assert legs / stature == pytest.approx(0.55, abs=0.01)


@pytest.mark.parametrize("stature", [175, 0.3, float("nan"), -1.75])
def test_statures_of_nobody(stature: float) -> None:
    with pytest.raises(ValueError, match=r"stature must be 0\.8 to 2\.5 m, got .*; give it in meters"):
        Skeleton.default().betas_of_stature(stature)


def test_default_is_made_once_and_moves_to_a_device() -> None:
    skeleton = Skeleton.default()
    assert skeleton is Skeleton.default()
    moved = skeleton.to("meta")
    assert {getattr(moved, name).device.type for name in ("J0", "J1", "cpf0", "cpf1")} == {"meta"}
    assert moved.name == skeleton.name


# ---- licensed files


@pytest.fixture(scope="module")
def smplh_path(tmp_path_factory) -> Path:
    return write_smplh(tmp_path_factory.mktemp("smplh") / "neutral.npz")


def test_smplh_golden_agreement_with_egoallo(smplh_path) -> None:
    golden = load_file(GOLDEN / "smplh_fk.safetensors")
    skeleton = Skeleton.from_smplh(smplh_path)
    rest = skeleton.rest_joints(golden["betas"])
    assert skeleton.name == "neutral"
    assert_close(rest[:, 1:] - rest[:, :1], golden["joints_zero"], rtol=0.0, atol=1e-5)
    assert_close(skeleton.cpf_offset(golden["betas"]), golden["T_head_cpf"][:, 4:], rtol=0.0, atol=1e-5)


def test_smplh_equals_the_regressed_mesh(smplh_path) -> None:
    arrays, betas = smplh_arrays(), torch.randn(16)
    mesh = arrays["v_template"] + arrays["shapedirs"] @ betas.numpy()
    joints = torch.from_numpy(arrays["J_regressor"] @ mesh)
    assert_close(Skeleton.from_smplh(str(smplh_path)).rest_joints(betas), joints, rtol=0.0, atol=1e-5)


def test_smplh_file_with_more_shape_directions_uses_the_first_sixteen(smplh_path, tmp_path) -> None:
    more = np.concatenate([smplh_arrays()["shapedirs"], np.ones((NUM_VERTICES, 3, 4), np.float32)], axis=2)
    skeleton = Skeleton.from_smplh(write_smplh(tmp_path / "more.npz", shapedirs=more))
    assert_close(skeleton.J1, Skeleton.from_smplh(smplh_path).J1)


@pytest.mark.parametrize("name", ["v_template", "shapedirs", "J_regressor", "kintree_table"])
def test_missing_array_is_named(name: str, tmp_path) -> None:
    path = write_smplh(tmp_path / "model.npz", without=name)
    with pytest.raises(ValueError, match=rf"model\.npz is not an SMPL-H file: it has no array {name}\."):
        Skeleton.from_smplh(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"J_regressor": np.zeros((55, 10475), np.float32)}, r"another body model.*regressor of shape \(55, 10475\)"),
        ({"J_regressor": np.zeros((24, NUM_VERTICES), np.float32)}, r"another body model.*\(24, 6890\)"),
        ({"kintree_table": np.array([[-1, *range(51)], range(52)])}, "another body model.*tree"),
        ({"kintree_table": np.zeros((2, 0))}, "another body model"),
        ({"kintree_table": np.array(3)}, "another body model"),
        ({"shapedirs": np.zeros((NUM_VERTICES, 3, 10), np.float32)}, "10 shape directions; SMPL-H's 16 are needed"),
        ({"shapedirs": np.zeros((NUM_VERTICES, 3), np.float32)}, r"shapedirs \(6890, 3\)"),
        ({"shapedirs": np.zeros((16, 3, 16), np.float32)}, r"shapedirs \(16, 3, 16\)"),
        ({"v_template": np.zeros((100, 3), np.float32)}, r"v_template has shape \(100, 3\)"),
    ],
)
def test_other_body_models_and_misshapen_arrays_are_refused(changes: dict, message: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        Skeleton.from_smplh(write_smplh(tmp_path / "model.npz", **changes))


def test_pickles_are_refused_without_unpickling(tmp_path) -> None:
    trace = tmp_path / "trace"
    objects = np.array([Unpickled(trace)], dtype=object)
    with pytest.raises(ValueError, match=r"pickle, which is never loaded.*npz release"):
        Skeleton.from_smplh(tmp_path / "SMPLH_NEUTRAL.pkl")
    path = write_smplh(tmp_path / "model.npz", J_regressor=objects)
    with pytest.raises(ValueError, match="without unpickling"):
        Skeleton.from_smplh(path)
    assert not trace.exists()
    np.load(path, allow_pickle=True)["J_regressor"]
    assert trace.exists()  # the trap was live


def test_object_arrays_that_are_not_needed_stay_unread(tmp_path) -> None:
    trace = tmp_path / "trace"
    objects = np.array([Unpickled(trace)], dtype=object)
    assert Skeleton.from_smplh(write_smplh(tmp_path / "more.npz", bs_style=objects)).name == "more"
    assert not trace.exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "npy", "folder"])
def test_damaged_files_are_refused_by_name(damage: str, tmp_path) -> None:
    path = tmp_path / "model.npz"
    if damage == "folder":
        path.mkdir()
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage in ("empty", "text"):
        path.write_text("" if damage == "empty" else "version https://git-lfs.github.com/spec/v1\n")
    else:
        np.savez_compressed(path, **{k: v for k, v in smplh_arrays().items() if k in ("v_template", "kintree_table")})
        content = bytearray(path.read_bytes())
        if damage == "truncated":
            content = content[: len(content) // 2]
        else:
            content[1000:1100] = bytes(100)
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.npz cannot be read as an SMPL-H npz"):
        Skeleton.from_smplh(path)


def test_missing_file_is_not_a_broken_one(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Skeleton.from_smplh(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("file", ["neutral/model.npz", "SMPLH_NEUTRAL.npz"])
def test_bodies_of_different_genders_have_different_names(tmp_path, monkeypatch, file) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    path = write_smplh(tmp_path / file)
    assert Skeleton.from_smplh(path).name == "smplh-neutral"
    monkeypatch.chdir(path.parent)
    assert Skeleton.from_smplh(path.name).name == "smplh-neutral"


def test_leg_length():
    """Rest pose by hand: soles 1.8 cm under the toe bases."""
    skeleton, betas = Skeleton.default(), torch.zeros(2, 16)
    betas[1, 0] = 1.0
    rest = skeleton.rest_joints(betas)
    expected = rest[:, 0, 1] - (rest[:, 10, 1] + rest[:, 11, 1]) / 2 + 0.018
    short, tall = skeleton.leg_length(betas).tolist()
    assert [short, tall] == pytest.approx(expected.tolist())
    assert 0.85 < short < tall < 1.1


@pytest.mark.parametrize("stature", STATURES)
def test_the_smallest_and_tallest_are_somebody(stature: float) -> None:
    skeleton = Skeleton.default()
    assert float(skeleton.stature(skeleton.betas_of_stature(stature))) == pytest.approx(stature, abs=1e-3)
