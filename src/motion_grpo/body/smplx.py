"""Joints and finger poses of licensed SMPL-X files, for data sets that are fitted with the male or the female body."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body.joints import SMPLX_TO_SMPLH
from motion_grpo.files import NPZ_ERRORS

_FILE_NAMES = ("SMPLX_{GENDER}.npz", "smplx/SMPLX_{GENDER}.npz", "models/smplx/SMPLX_{GENDER}.npz")
_SHAPES = {
    "v_template": (10475, 3), "shapedirs": (10475, 3, 10), "J_regressor": (55, 10475), "hands_meanl": (45,),
    "hands_meanr": (45,), "hands_componentsl": (45, 45), "hands_componentsr": (45, 45),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class SmplxBody:
    """One gender of SMPL-X, as far as its skeleton goes."""

    J0: Float[Tensor, "52 3"]
    """SMPL-H's joints in the rest pose of the mean body, meters."""
    J1: Float[Tensor, "52 3 10"]
    """Their change per unit of each beta."""
    hand_mean: Float[Tensor, "2 45"]
    """Rotation vectors of the relaxed hand, left and right, radians."""
    hand_components: Float[Tensor, "2 45 45"]
    """Principal components of hand poses, one a row."""

    def rest_joints(self, betas: Float[Tensor, "10"]) -> Float[Tensor, "52 3"]:
        """Joints of the shaped body in the rest pose, meters."""
        return self.J0 + self.J1 @ betas

    def hand_rotmats(
        self, left: Float[Tensor, "frames components"], right: Float[Tensor, "frames components"]
    ) -> Float[Tensor, "frames 30 3 3"]:
        """Finger rotations, SMPL-H joints 22-51; coefficients count from the mean pose (``flat_hand_mean=False``)."""
        basis = self.hand_components[:, : left.shape[1]]
        rotvecs = torch.stack([left, right], dim=1).unsqueeze(2) @ basis + self.hand_mean[:, None]
        return roma.rotvec_to_rotmat(rotvecs.reshape(len(left), 30, 3))


@cache
def load_smplx(folder: Path, gender: Literal["male", "female", "neutral"]) -> SmplxBody:
    """The body of one gender; kept in memory.

    Args:
        folder: holds ``SMPLX_MALE.npz`` and the like, itself or in ``smplx/`` or ``models/smplx/``.

    Raises:
        FileNotFoundError: no file of that gender there.
        ValueError: the file is damaged, or another body model.
    """
    names = [pattern.format(GENDER=gender.upper()) for pattern in _FILE_NAMES]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder} has no {names[0]} (nor in smplx/ or models/smplx/); get the npz release of SMPL-X from "
            "smpl-x.is.tue.mpg.de, or import without body models."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in _SHAPES if name in file}
            if "shapedirs" in arrays:
                arrays["shapedirs"] = arrays["shapedirs"][..., :10]  # of hundreds, and the face's
    except NPZ_ERRORS as error:
        raise ValueError(f"{path} cannot be read as an SMPL-X npz without unpickling: {error}") from error
    for name, shape in _SHAPES.items():
        found = arrays[name].shape if name in arrays else "missing"
        if found != shape:
            raise ValueError(f"{path} is no SMPL-X file: {name} is {found}, SMPL-X's has the shape {shape}.")
    regressor = arrays["J_regressor"][list(SMPLX_TO_SMPLH)]

    def tensor(a):
        return torch.tensor(a, dtype=torch.float32)

    return SmplxBody(
        J0=tensor(regressor @ arrays["v_template"]),
        J1=tensor(np.einsum("jv,vcb->jcb", regressor, arrays["shapedirs"])),
        hand_mean=tensor(np.stack([arrays["hands_meanl"], arrays["hands_meanr"]])),
        hand_components=tensor(np.stack([arrays["hands_componentsl"], arrays["hands_componentsr"]])),
    )
