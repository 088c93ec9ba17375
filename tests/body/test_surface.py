"""The surface of licensed files agrees with smplx, on synthetic ones."""

from dataclasses import replace

import numpy as np
import pytest
import roma
import smplx
import torch
from torch import Tensor
from torch.testing import assert_close

from motion_grpo.body import BodySurface, Skeleton
from motion_grpo.motion import Motion
from tests.body.smplh import smplh_arrays, write_smplh
from tests.tiny import moving_motion

FRAMES = 3


def posed(skeleton: Skeleton | None, betas: int = 16) -> tuple[Motion, Tensor]:
    """A motion with hands, and its rotation vectors."""
    generator = torch.Generator().manual_seed(4)
    rotvecs = 0.5 * torch.randn(FRAMES, 52, 3, generator=generator)
    R = roma.rotvec_to_rotmat(rotvecs)
    motion = replace(
        moving_motion(FRAMES),
        root_rotmats=R[:, 0],
        body_rotmats=R[:, 1:22],
        hand_rotmats=R[:, 22:],
        betas=torch.nn.functional.pad(torch.randn(betas, generator=generator), (0, 16 - betas)),
        skeleton=skeleton,
    )
    return motion, rotvecs


def arguments(motion: Motion, rotvecs: Tensor, rest_pelvis: Tensor) -> dict[str, Tensor]:
    return {
        "global_orient": rotvecs[:, 0],
        "body_pose": rotvecs[:, 1:22].flatten(1),
        "left_hand_pose": rotvecs[:, 22:37].flatten(1),
        "right_hand_pose": rotvecs[:, 37:].flatten(1),
        "transl": motion.root_positions - rest_pelvis,
    }


def random_skin(joints: int, vertices: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.full(joints, 0.1), vertices).astype(np.float32)
    return {
        "weights": weights,
        "posedirs": (0.01 * rng.normal(size=(vertices, 3, 9 * (joints - 1)))).astype(np.float32),
    }


def test_vertices_of_smplh_agree_with_smplx(tmp_path) -> None:
    path = write_smplh(tmp_path / "model.npz", **random_skin(52, 6890))
    motion, rotvecs = posed(Skeleton.from_smplh(path))
    model = smplx.SMPLH(str(path), ext="npz", use_pca=False, flat_hand_mean=True, batch_size=FRAMES)
    model.shapedirs = torch.from_numpy(smplh_arrays()["shapedirs"])  # smplx would cut sixteen to ten
    with torch.no_grad():
        given = arguments(motion, rotvecs, motion.body.rest_joints(motion.betas)[0])
        expected = model(betas=motion.betas.expand(FRAMES, 16), **given).vertices
    assert_close(motion.vertices(path), expected, rtol=0.0, atol=1e-5)


def write_smplx(path) -> dict[str, np.ndarray]:
    """A file with the arrays of ``SMPLX_NEUTRAL.npz`` and random contents: ten shape and ten expression directions."""
    rng = np.random.default_rng(8)
    vertices, joints = 10475, 55
    regressor = np.zeros((joints, vertices), np.float32)
    regressor[np.arange(joints)[:, None], rng.integers(0, vertices, (joints, 4))] = 0.25
    body = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
    hands = [(20 if j == 0 else 25 + 3 * f + j - 1) for f in range(5) for j in range(3)]
    hands += [(21 if j == 0 else 40 + 3 * f + j - 1) for f in range(5) for j in range(3)]
    arrays = {
        "v_template": (0.3 * rng.normal(size=(vertices, 3))).astype(np.float32),
        "shapedirs": (0.01 * rng.normal(size=(vertices, 3, 20))).astype(np.float32),
        "J_regressor": regressor,
        "kintree_table": np.array([[*body, 15, 15, 15, *hands], range(joints)], dtype=np.int64),
        "f": np.array([[0, 1, 2]], np.uint32),
        "hands_meanl": np.zeros(45),
        "hands_meanr": np.zeros(45),
        "hands_componentsl": np.eye(45),
        "hands_componentsr": np.eye(45),
        "lmk_faces_idx": np.zeros(51, np.int64),
        "lmk_bary_coords": np.full((51, 3), 1 / 3),
    } | random_skin(joints, vertices)
    np.savez(path, **arrays)
    return arrays


def test_vertices_of_smplx_agree_with_smplx(tmp_path) -> None:
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    write_smplx(path)
    motion, rotvecs = posed(None, betas=10)
    model = smplx.SMPLX(str(path), ext="npz", use_pca=False, flat_hand_mean=True, batch_size=FRAMES)
    surface = BodySurface.load(path)
    with torch.no_grad():
        given = arguments(motion, rotvecs, surface.rest_joints(motion.betas)[0])
        expected = model(betas=motion.betas[:10].expand(FRAMES, 10), **given).vertices
    assert_close(motion.vertices(path), expected, rtol=0.0, atol=1e-5)


def test_betas_of_another_shape_space_are_refused(tmp_path) -> None:
    smplh, smplx_file = write_smplh(tmp_path / "model.npz"), tmp_path / "SMPLX_NEUTRAL.npz"
    write_smplx(smplx_file)
    with pytest.raises(ValueError, match=r"is an SMPLH file, and the motion's betas .*; give SMPLX_NEUTRAL\.npz"):
        moving_motion(1).vertices(smplh)
    with pytest.raises(ValueError, match=r"is an SMPLX file, .*; give the SMPL-H file that the motion was loaded with"):
        posed(Skeleton.from_smplh(smplh))[0].vertices(smplx_file)


def test_files_of_other_bodies_are_refused(tmp_path) -> None:
    rng = np.random.default_rng(0)
    short = write_smplh(tmp_path / "smpl.npz", J_regressor=rng.random((24, 6890)))
    with pytest.raises(ValueError, match=r"another body model: SMPL-H has 52 joints and SMPL-X 55, it has 24"):
        BodySurface.load(short)
    with pytest.raises(ValueError, match=r"weights has shape \(6890, 24\)"):
        BodySurface.load(write_smplh(tmp_path / "odd.npz", weights=rng.random((6890, 24))))
    with pytest.raises(ValueError, match=r"no array posedirs"):
        BodySurface.load(write_smplh(tmp_path / "model.npz", without="posedirs"))
