"""Betas of one body on another: exact where the bodies allow it, nearest where they do not."""

import numpy as np
import pytest
import torch

from motion_grpo.body import PARENTS, Skeleton
from motion_grpo.body.betas import body_file, fit_betas, gender_to_neutral, load_skeleton
from tests.body.smplh import smplh_arrays, write_smplh


def test_a_body_within_the_neutral_shape_space_is_met_exactly(body_models):
    folder, A, b = body_models

    got_A, got_b = gender_to_neutral(folder, "male")

    torch.testing.assert_close(got_A, torch.tensor(A, dtype=torch.float32), atol=1e-4, rtol=0)
    torch.testing.assert_close(got_b, torch.tensor(b, dtype=torch.float32), atol=1e-4, rtol=0)


def test_neutral_betas_stay_what_they_are(body_models):
    A, b = gender_to_neutral(body_models[0], "neutral")

    torch.testing.assert_close(A, torch.eye(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(b, torch.zeros(16), atol=1e-5, rtol=0)


def test_no_other_betas_bring_the_meshes_nearer(body_models):
    folder, *_ = body_models

    def load(gender):
        return np.load(body_file(folder, gender), allow_pickle=False)

    female, neutral = load("female"), load("neutral")
    betas = torch.randn(16)
    A, b = gender_to_neutral(folder, "female")
    mesh = female["v_template"] + female["shapedirs"] @ betas.numpy()

    def distance(x):
        return float(np.square(neutral["v_template"] + neutral["shapedirs"] @ x.numpy() - mesh).sum())

    mapped = A @ betas + b

    best = distance(mapped)

    assert best > 1.0  # random bodies: nothing to find but the least of evils
    assert all(best < distance(mapped + 0.05 * step) for step in [*torch.eye(16), *-torch.eye(16)])


def test_files_may_be_named_as_smplx_names_them(tmp_path):
    write_smplh(tmp_path / "SMPLH_FEMALE.npz")

    assert body_file(tmp_path, "female").name == "SMPLH_FEMALE.npz"
    assert load_skeleton(tmp_path, "female").J0.shape == (52, 3)
    with pytest.raises(FileNotFoundError, match="no male SMPL-H body"):
        gender_to_neutral(tmp_path, "male")


def test_another_body_model_is_refused(tmp_path):
    (tmp_path / "male").mkdir()
    write_smplh(tmp_path / "male" / "model.npz", J_regressor=smplh_arrays()["J_regressor"][:24])

    with pytest.raises(ValueError, match="another body model"):
        gender_to_neutral(tmp_path, "male")


def bones(joints: torch.Tensor) -> torch.Tensor:
    return joints[1:22] - joints[list(PARENTS[1:22])]


def test_bones_of_the_same_body_give_its_size_back():
    default = Skeleton.default()
    betas = torch.zeros(16)
    betas[:2] = torch.tensor([1.5, -0.8])
    rest = default.rest_joints(betas)

    fitted = fit_betas(rest + torch.tensor([0.0, 5.0, 0.0]), default)

    assert float((bones(default.rest_joints(fitted)) - bones(rest)).norm(dim=-1).max()) < 0.002
    assert fitted[0] == pytest.approx(1.5, abs=0.2)
    assert not fitted[10:].any()


def test_bones_that_no_shape_has_still_give_a_human_one():
    giant = 1.3 * Skeleton.default().J0

    assert float(fit_betas(giant, Skeleton.default()).abs().max()) < 10
