"""A body file with the arrays of a licensed SMPL-H ``model.npz`` and random contents: the golden numbers' body."""

from functools import cache
from pathlib import Path

import numpy as np

from motion_grpo.body import NUM_BETAS, NUM_JOINTS, PARENTS

NUM_VERTICES = 6890


@cache
def smplh_arrays() -> dict[str, np.ndarray]:
    """Every array that smplx asks of an SMPL-H file; joints are the mean of four random vertices each."""
    rng = np.random.default_rng(7)
    template = (rng.normal(size=(NUM_VERTICES, 3)) * 0.3).astype(np.float32)
    shapedirs = (rng.normal(size=(NUM_VERTICES, 3, NUM_BETAS)) * 0.01).astype(np.float32)
    regressor = np.zeros((NUM_JOINTS, NUM_VERTICES), np.float32)
    for joint, vertices in enumerate(rng.integers(0, NUM_VERTICES, (NUM_JOINTS, 4))):
        regressor[joint, vertices] += 0.25
    return {
        "v_template": template,
        "shapedirs": shapedirs,
        "J_regressor": regressor,
        # As in the real files: the root's parent is -1 in unsigned 32 bits.
        "kintree_table": np.array([PARENTS, range(NUM_JOINTS)], dtype=np.int64).astype(np.uint32),
        "posedirs": np.zeros((NUM_VERTICES, 3, 9 * (NUM_JOINTS - 1)), np.int8),
        "weights": np.full((NUM_VERTICES, NUM_JOINTS), 1 / NUM_JOINTS, np.float32),
        "f": np.array([[0, 1, 2]], np.uint32),
        "hands_meanl": np.zeros(45),
        "hands_meanr": np.zeros(45),
        "hands_componentsl": np.eye(45),
        "hands_componentsr": np.eye(45),
        "bs_type": np.array("lrotmin"),
    }


def write_smplh(path: Path, without: str | None = None, **changes: np.ndarray) -> Path:
    """Writes the file, less one array or with other ones."""
    arrays = {key: value for key, value in (smplh_arrays() | changes).items() if key != without}
    np.savez(path, **arrays)
    return path


class Unpickled:
    """Leaves a file behind when anybody unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)
