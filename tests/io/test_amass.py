from dataclasses import replace

import numpy as np
import torch
from numpy.testing import assert_allclose

from motion_grpo.body import Skeleton
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
