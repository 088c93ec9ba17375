"""The surface of a licensed SMPL-H or SMPL-X file, skinned onto SMPL-H's 52 joints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from motion_grpo.body.joints import HEAD, NUM_BETAS, NUM_JOINTS, SMPLX_TO_SMPLH
from motion_grpo.body.kinematics import PosedBody, forward_kinematics
from motion_grpo.body.model_file import read_model_file

_NUM_SMPLX_JOINTS = 55
# SMPL-X has jaw and eyes, joints 22 to 24, between the body and the hands; at rest they move with the head.
_SMPLX_FACE = (22, 23, 24)
# Files with fewer directions hold ten of shape and ten of expression; the whole ones hold 300 of shape first.
_SMPLX_WHOLE, _SMPLX_FEW_BETAS = 400, 10
_CHUNK = 64  # frames; skinning holds 12 numbers a vertex and frame


@dataclass(frozen=True, eq=False)
class BodySurface:
    """A mesh at rest (T-pose, y up, meters), how it changes with shape and pose, and how it hangs on the joints."""

    kind: Literal["smplh", "smplx"]
    template: Float[Tensor, "vertices 3"]
    shape_dirs: Float[Tensor, "vertices 3 16"]
    pose_dirs: Float[Tensor, "vertices 3 459"]
    """Change by each number of ``R - 1`` of the 51 joints but the root (SMPL, Loper et al. 2015, Eq. 9)."""
    weights: Float[Tensor, "vertices 52"]
    regressor: Float[Tensor, "52 vertices"]
    faces: Int64[Tensor, "faces 3"]

    @staticmethod
    def load(path: str | Path) -> "BodySurface":
        """Reads a licensed ``model.npz`` or ``SMPLX_NEUTRAL.npz``, by the number of its joints.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a pickle, or a file of another body model.
        """
        keys = ("v_template", "shapedirs", "posedirs", "weights", "J_regressor", "f")
        arrays = read_model_file(path, keys)
        joints, vertices = arrays["J_regressor"].shape[0], len(arrays["v_template"])
        if joints not in (NUM_JOINTS, _NUM_SMPLX_JOINTS):
            raise ValueError(f"{path} is another body model: SMPL-H has 52 joints and SMPL-X 55, it has {joints}.")
        if arrays["weights"].shape != (vertices, joints) or arrays["posedirs"].shape[-1] != 9 * (joints - 1):
            raise ValueError(
                f"{path}: weights has shape {arrays['weights'].shape} and posedirs {arrays['posedirs'].shape}; "
                f"({vertices}, {joints}) and ({vertices}, 3, {9 * (joints - 1)}) are needed."
            )
        float32 = {key: torch.tensor(value.astype(np.float32)) for key, value in arrays.items() if key != "f"}
        weights, pose_dirs, regressor = (float32[key] for key in ("weights", "posedirs", "J_regressor"))
        shape_dirs = float32["shapedirs"][..., :NUM_BETAS]
        if joints == _NUM_SMPLX_JOINTS:
            keep, moving = list(SMPLX_TO_SMPLH), [joint - 1 for joint in SMPLX_TO_SMPLH[1:]]
            weights = weights.clone()
            weights[:, HEAD] += weights[:, list(_SMPLX_FACE)].sum(1)
            weights, regressor = weights[:, keep], regressor[keep]
            pose_dirs = pose_dirs.unflatten(-1, (-1, 9))[:, :, moving].flatten(-2)
            if arrays["shapedirs"].shape[-1] < _SMPLX_WHOLE:
                shape_dirs = shape_dirs[..., :_SMPLX_FEW_BETAS]
        return BodySurface(
            kind="smplh" if joints == NUM_JOINTS else "smplx",
            template=float32["v_template"],
            shape_dirs=torch.nn.functional.pad(shape_dirs, (0, NUM_BETAS - shape_dirs.shape[-1])),
            pose_dirs=pose_dirs,
            weights=weights,
            regressor=regressor,
            faces=torch.tensor(arrays["f"].astype(np.int64)),
        )

    def shaped(self, betas: Float[Tensor, "16"]) -> Float[Tensor, "vertices 3"]:
        """The mesh of a body at rest, meters."""
        return self.template + self.shape_dirs @ betas

    def rest_joints(self, betas: Float[Tensor, "16"]) -> Float[Tensor, "52 3"]:
        """The joints of a body at rest, meters."""
        return self.regressor @ self.shaped(betas)

    def pose(
        self,
        betas: Float[Tensor, "16"],
        local_rotmats: Float[Tensor, "frames 52 3 3"],
        root_positions: Float[Tensor, "frames 3"],
    ) -> Float[Tensor, "frames vertices 3"]:
        """The posed mesh, meters (SMPL, Loper et al. 2015, Eq. 2-4 and 9)."""
        shaped, rest = self.shaped(betas), self.rest_joints(betas)
        frames = []
        for local, root in zip(local_rotmats.split(_CHUNK), root_positions.split(_CHUNK), strict=True):
            features = (local[:, 1:] - torch.eye(3)).flatten(1)
            vertices = shaped + (self.pose_dirs @ features.mT).permute(2, 0, 1)
            frames.append(skinned(vertices, self.weights, rest, forward_kinematics(rest, local, root)))
        return torch.cat(frames)


def skinned(
    vertices: Float[Tensor, "*#frames vertices 3"],
    weights: Float[Tensor, "vertices 52"],
    rest_joints: Float[Tensor, "52 3"],
    body: PosedBody,
) -> Float[Tensor, "frames vertices 3"]:
    """Linear blend skinning (Loper et al. 2015, Eq. 2): vertices at rest follow the joints they hang on; meters."""
    shift = body.joints - (body.rotmats @ rest_joints[..., None])[..., 0]
    transforms = torch.cat([body.rotmats.flatten(-2), shift], dim=-1)
    blended = weights @ transforms
    R, shift = blended[..., :9].unflatten(-1, (3, 3)), blended[..., 9:]
    return (R * vertices[..., None, :]).sum(-1) + shift
