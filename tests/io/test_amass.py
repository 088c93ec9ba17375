from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from motion_grpo.body import Skeleton
from motion_grpo.motion import Motion
from tests.io.test_bvh import with_hands
from tests.tiny import moving_motion

SMPLX_BODY, SMPLX_HANDS = slice(0, 66), slice(75, 165)


def test_smplx_files_hold_the_same_poses_on_smplx_columns(tmp_path) -> None:
    motion = replace(with_hands(moving_motion(4)), floor_height=0.7)
    with np.load(motion.save(tmp_path / "walk.smplx.npz"), allow_pickle=False) as file:
        arrays = dict(file)
    amass = np.load(motion.save(tmp_path / "walk.npz"))
    assert arrays["poses"].shape == (4, 165)
    assert str(arrays["surface_model_type"]) == "smplx"
    assert arrays["mocap_frame_rate"] == 30
    assert_allclose(arrays["poses"][:, SMPLX_BODY], amass["poses"][:, :66])
    assert_allclose(arrays["poses"][:, SMPLX_HANDS], amass["poses"][:, 66:])
    assert not arrays["poses"][:, 66:75].any()
    assert_allclose(arrays["betas"][:10], motion.betas[:10])  # the default body uses no more
    # SMPL-X places the pelvis at trans plus where it is at rest.
    pelvis = arrays["trans"] + Skeleton.mannequin_x().rest_joints(motion.betas)[0].numpy()
    assert_allclose(pelvis, motion.root_positions.numpy() - (0, 0, 0.7), atol=1e-6)


def test_a_body_of_another_shape_space_keeps_its_stature_in_smplx(tmp_path) -> None:
    tall = replace(Skeleton.default(), name="smplh-male", J0=1.1 * Skeleton.default().J0)
    motion = replace(moving_motion(3), skeleton=tall)
    with np.load(motion.save(tmp_path / "walk.smplx.npz")) as file:
        betas = torch.from_numpy(file["betas"])
    stature = float(Skeleton.mannequin_x().stature(betas))
    assert abs(stature - float(tall.stature(motion.betas))) < 0.002


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("poses", np.full((3, 156), np.nan), "poses is NaN or infinite in frame 0"),
        ("trans", np.array([[0, 0, 0], [0, np.inf, 0], [0, 0, 0]]), "trans is NaN or infinite in frame 1"),
        ("betas", np.full(16, np.nan), "betas is NaN or infinite; cut"),
        ("poses", np.full((3, 156), "a"), "poses has the type <U1"),
        ("mocap_framerate", np.array([30.0, 30.0]), r"mocap_framerate has shape \(2,\)"),
        ("mocap_framerate", np.inf, "must be a positive number"),
        ("floor_height", np.zeros(2), r"floor_height has shape \(2,\)"),
        ("floor_height", np.nan, "floor_height is nan"),
        ("timestamps", np.zeros(3), "timestamps do not increase"),
        ("timestamps", np.array([0.2, 0.1, 0.0]), "timestamps do not increase"),
    ],
)
def test_broken_values_are_named(tmp_path, key, value, message) -> None:
    arrays = {"poses": np.zeros((3, 156)), "trans": np.zeros((3, 3)), "betas": np.zeros(16), "mocap_framerate": 30.0}
    np.savez(tmp_path / "walk.npz", **(arrays | {key: value}))
    with pytest.raises(ValueError, match=message):
        Motion.load(tmp_path / "walk.npz")


def test_a_rate_may_be_an_array_of_one(tmp_path) -> None:
    arrays = {"poses": np.zeros((3, 156)), "trans": np.zeros((3, 3)), "betas": np.zeros(16)}
    np.savez(tmp_path / "walk.npz", **arrays, mocap_framerate=np.array([60.0]))
    assert Motion.load(tmp_path / "walk.npz").fps == 60


def saved_with(tmp_path, **changes):
    path = moving_motion(30).save(tmp_path / "walk.npz")
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | changes)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"mocap_framerate": np.array(60.0)},
        {"timestamps": 1000 / 30 * np.arange(30)},
        {"mocap_frame_rate": np.array(120.0)},
    ],
)
def test_rates_that_contradict_each_other_are_refused(tmp_path, changes):
    with pytest.raises(ValueError, match="says twice how many frames there are in a second, and differs"):
        Motion.load(saved_with(tmp_path, **changes))


def test_rounded_rates_do_not_contradict(tmp_path):
    assert Motion.load(saved_with(tmp_path, mocap_framerate=np.array(29.97))).fps == pytest.approx(30)


def test_degrees_are_refused(tmp_path):
    poses = np.zeros((30, 156), np.float32)
    poses[3, 4] = 45.0
    with pytest.raises(ValueError, match="poses reach 45; axis-angle in radians is needed"):
        Motion.load(saved_with(tmp_path, poses=poses))


@pytest.mark.parametrize("unit", [100.0, 1000.0])
def test_a_body_in_another_unit_is_pointed_out(tmp_path, unit):
    trans = unit * np.tile(np.array([0.1, 0.2, 1.1], np.float32), (30, 1))
    with pytest.warns(UserWarning, match="m above its floor in the median: check the unit of trans"):
        Motion.load(saved_with(tmp_path, trans=trans))
