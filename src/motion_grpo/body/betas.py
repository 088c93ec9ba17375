"""Shape parameters from one body model to another: betas mean something else in every model and gender."""

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import NUM_BETAS, PARENTS, Skeleton
from motion_grpo.body.joints import NUM_BODY_AND_ROOT

Gender = Literal["male", "female", "neutral"]
# A body file may lie as mano.is.tue.mpg.de packs it or as smplx wants it named.
_FILE_NAMES = ("{gender}/model.npz", "SMPLH_{GENDER}.npz")
_SHAPE_PRIOR = 1e-4
"""Meters squared per squared unit of beta: a joint error of 1 cm weighs as much as one standard deviation of shape."""


def body_file(folder: Path, gender: Gender) -> Path:
    """The SMPL-H file of one gender in a folder of licensed body models.

    Raises:
        FileNotFoundError: there is none.
    """
    for pattern in _FILE_NAMES:
        path = folder / pattern.format(gender=gender, GENDER=gender.upper())
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{folder} has no {gender} SMPL-H body ({gender}/model.npz or SMPLH_{gender.upper()}.npz); get 'Extended "
        "SMPL+H model' from mano.is.tue.mpg.de, or import without body models."
    )


@cache
def load_skeleton(folder: Path, gender: Gender) -> Skeleton:
    """Skeleton of one gender; kept in memory.

    Raises:
        FileNotFoundError: no body of that gender in ``folder``.
        ValueError: the file is another body model.
    """
    return Skeleton.from_smplh(body_file(folder, gender))


@cache
def gender_to_neutral(folder: Path, gender: Gender) -> tuple[Float[Tensor, "16 16"], Float[Tensor, "16"]]:
    """A and b of ``betas_neutral = A @ betas + b``, kept in memory.

    The neutral mesh comes as near as it can, in the sum of squared vertex distances, to the mesh of the gendered body:
    ``T_n + S_n x = T_g + S_g betas`` solved for x by linear least squares. (EgoAllo applies such a map.)

    Raises:
        FileNotFoundError: no such body, or no neutral one, in ``folder``.
        ValueError: a file is another body model.
    """
    template, directions = _mesh(body_file(folder, gender))
    neutral_template, neutral_directions = _mesh(body_file(folder, "neutral"))
    targets = np.concatenate([directions, (template - neutral_template)[:, None]], axis=1)
    solution, *_ = np.linalg.lstsq(neutral_directions, targets, rcond=None)
    A, b = solution[:, :NUM_BETAS], solution[:, NUM_BETAS]
    return torch.tensor(A, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)


def fit_betas(rest_joints: Float[Tensor, "joints 3"], skeleton: Skeleton) -> Float[Tensor, "16"]:
    """The shape of ``skeleton`` whose bones are nearest to those of another body, in the same rest pose.

    Linear least squares over the vectors from parent to child, meters, with a prior on betas so that what bones do not
    show (fat, muscle) stays average. The models' origins, which differ between SMPL-X and SMPL-H, play no part.

    Args:
        rest_joints: root first, 22 or 52 of them; hands are not looked at.
    """

    def bones(joints):
        return (joints[1:NUM_BODY_AND_ROOT] - joints[list(PARENTS[1:NUM_BODY_AND_ROOT])]).double()

    wanted = (bones(rest_joints) - bones(skeleton.J0)).flatten()
    directions = bones(skeleton.J1).flatten(0, 1)
    normal = directions.T @ directions + _SHAPE_PRIOR * torch.eye(NUM_BETAS, dtype=torch.float64)
    return torch.linalg.solve(normal, directions.T @ wanted).float()


def _mesh(path: Path) -> tuple[Float[np.ndarray, " coordinates"], Float[np.ndarray, "coordinates 16"]]:
    Skeleton.from_smplh(path)  # says what is wrong with the file
    with np.load(path, allow_pickle=False) as file:
        template, directions = file["v_template"], file["shapedirs"][..., :NUM_BETAS]
    return template.astype(np.float64).ravel(), directions.astype(np.float64).reshape(-1, NUM_BETAS)
