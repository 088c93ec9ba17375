"""Body models that stand in for the licensed ones."""

from pathlib import Path

import numpy as np
import pytest

from tests.body.smplh import smplh_arrays, write_smplh


@pytest.fixture(scope="session")
def body_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder of SMPL-H files, and A and b: the male body of betas x is the neutral body of ``A x + b``."""
    folder = tmp_path_factory.mktemp("smplh")
    rng = np.random.default_rng(1)
    neutral = smplh_arrays()
    A, b = np.eye(16) + 0.3 * rng.normal(size=(16, 16)), rng.normal(size=16)
    male = {
        "v_template": (neutral["v_template"] + neutral["shapedirs"] @ b).astype(np.float32),
        "shapedirs": (neutral["shapedirs"] @ A).astype(np.float32),
    }
    female = {
        "v_template": (neutral["v_template"] * 0.9).astype(np.float32),
        "shapedirs": (neutral["shapedirs"] + 0.005 * rng.normal(size=(6890, 3, 16))).astype(np.float32),
    }
    for gender, changes in {"neutral": {}, "male": male, "female": female}.items():
        (folder / gender).mkdir()
        write_smplh(folder / gender / "model.npz", **changes)
    return folder, A, b
