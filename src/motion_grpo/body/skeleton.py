"""Rest joints of a shaped SMPL-family body, linear in betas, from the default body or from a licensed SMPL-H file."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import mannequin
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body.joints import (
    HEAD,
    LEFT_FOOT,
    LEFT_SHOULDER,
    LEFT_WRIST,
    MIRROR,
    NUM_BETAS,
    NUM_BODY_AND_ROOT,
    NUM_JOINTS,
    PARENTS,
    PELVIS,
    RIGHT_FOOT,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
)
from motion_grpo.body.kinematics import PosedBody, place_by_head
from motion_grpo.body.model_file import read_model_file

# The CPF of EgoAllo: middle of the eyes, as the mean of these vertices of the SMPL-H mesh.
_SMPLH_EYE_VERTICES = (6260, 6262, 2800, 2802)
_SMPLH_NUM_VERTICES = 6890
SOLE_UNDER_TOE = 0.018
"""Meters from the sole up to the toe joint, which lies inside the foot."""
EYE_HEIGHT = 0.933
"""Eyes over the sole, as a share of stature, on the mean body."""
STATURES = (0.8, 2.5)
"""Meters that people measure."""
# Between the lower toe joint and the sole in the definition of stature by which open_mocap_smplh was made.
_SOLE_OF_STATURE = 0.015
# mannequin-x has SMPL-X's joints without the face, and two zero-length joints (22, 23) that SMPL-H has not.
_MANNEQUIN_TO_SMPLH = (*range(NUM_BODY_AND_ROOT), *range(24, 54))
# Eyes within the head's bounding box (chin to crown, back of the head to tip of the nose): 11.5 cm under the crown and
# 3.5 cm behind the tip of the nose on the mean body, which puts them at 93% of its stature, as anthropometry has it.
_EYES_IN_HEAD_BOX = (0.5, 0.52, 0.855)


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Rest joints ``J0 + J1 @ betas`` and the CPF's offset from the head joint in the same form.

    The rest pose is SMPL's: T-pose, y up, facing +z, the person's left at +x; meters.
    """

    J0: Float[Tensor, "52 3"]
    """Joints of the mean body."""
    J1: Float[Tensor, "52 3 16"]
    """Change of the joints per unit of each beta."""
    cpf0: Float[Tensor, "3"]
    """CPF relative to the head joint on the mean body, in the head frame."""
    cpf1: Float[Tensor, "3 16"]
    """Change of the CPF offset per unit of each beta."""
    name: str
    """Which body this is: ``mannequin-x-symmetric`` (the default, SMPL-X's shape space, ten betas used),
    ``mannequin-x``, or ``smplh-neutral`` and the like, by an SMPL-H file's name."""

    @staticmethod
    @cache
    def default() -> "Skeleton":
        """:meth:`mannequin_x` made symmetric: left and right are averaged for every shape; needs no file.

        So a mirrored motion is a motion of the same body, whose planted feet stay planted, and both arms of the rest
        pose bend alike. Joints of the middle lie at x = 0.
        """
        body, swap, flip = Skeleton.mannequin_x(), list(MIRROR), torch.tensor([-1.0, 1.0, 1.0])
        return Skeleton(
            J0=(body.J0 + flip * body.J0[swap]) / 2,
            J1=(body.J1 + flip[:, None] * body.J1[swap]) / 2,
            cpf0=(body.cpf0 + flip * body.cpf0) / 2,
            cpf1=(body.cpf1 + flip[:, None] * body.cpf1) / 2,
            name="mannequin-x-symmetric",
        )

    @staticmethod
    @cache
    def mannequin_x() -> "Skeleton":
        """The body of the Apache-2.0 package mannequin-x as it is: SMPL-X's mean body and its first ten betas.

        Its sides differ, as those of the people whom SMPL-X was fitted to do: the left thigh is 17 mm longer, the left
        elbow 31 mm lower in the T-pose. Recordings that were made on this body are read with it.
        """
        path = Path(mannequin.__file__).parent / "assets" / "smplx_calibration.npz"
        with np.load(path, allow_pickle=False) as file:
            joints, joint_dirs = file["joint_rest"], file["joint_dirs"]
            head_box = np.stack([file["head_min_rest"], file["head_max_rest"]])
            head_box_dirs = np.stack([file["head_min_dirs"], file["head_max_dirs"]])
        keep = list(_MANNEQUIN_TO_SMPLH)
        weight = np.array(_EYES_IN_HEAD_BOX)
        eyes = (1 - weight) * head_box[0] + weight * head_box[1]
        eye_dirs = (1 - weight)[:, None] * head_box_dirs[0] + weight[:, None] * head_box_dirs[1]

        def pad(a):
            return np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, NUM_BETAS - a.shape[-1])])

        return Skeleton(
            J0=torch.tensor(joints[keep], dtype=torch.float32),
            J1=torch.tensor(pad(joint_dirs[keep]), dtype=torch.float32),
            cpf0=torch.tensor(eyes - joints[HEAD], dtype=torch.float32),
            cpf1=torch.tensor(pad(eye_dirs - joint_dirs[HEAD]), dtype=torch.float32),
            name="mannequin-x",
        )

    @staticmethod
    def from_smplh(path: str | Path) -> "Skeleton":
        """Derives the skeleton from a licensed SMPL-H ``model.npz`` (mano.is.tue.mpg.de): regressor times mesh.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a pickle (``.pkl``), a file of another body model, or arrays that are missing or misshapen.
        """
        path = Path(path)
        arrays = read_model_file(path, ("v_template", "shapedirs", "J_regressor", "kintree_table"))
        template, directions, regressor = (
            arrays[k].astype(np.float64) for k in ("v_template", "shapedirs", "J_regressor")
        )
        # The root's entry is skipped: files hold -1 there, or what -1 is as an unsigned number.
        parents = (-1, *(int(p) for p in np.atleast_2d(arrays["kintree_table"])[0, 1:]))
        if regressor.shape != (NUM_JOINTS, _SMPLH_NUM_VERTICES) or parents != PARENTS:
            raise ValueError(
                f"{path} is another body model: SMPL-H has {NUM_JOINTS} joints on {_SMPLH_NUM_VERTICES} vertices and "
                f"its own tree, this one has a regressor of shape {regressor.shape}."
            )
        if template.shape != (_SMPLH_NUM_VERTICES, 3) or directions.shape[:-1] != template.shape:
            raise ValueError(
                f"{path}: v_template has shape {template.shape} and shapedirs {directions.shape}; SMPL-H's are "
                f"({_SMPLH_NUM_VERTICES}, 3) and ({_SMPLH_NUM_VERTICES}, 3, {NUM_BETAS})."
            )
        if directions.shape[-1] < NUM_BETAS:
            raise ValueError(f"{path} has {directions.shape[-1]} shape directions; SMPL-H's {NUM_BETAS} are needed.")
        directions = directions[..., :NUM_BETAS]
        J0 = regressor @ template
        J1 = np.einsum("jv,vcb->jcb", regressor, directions)
        eyes = list(_SMPLH_EYE_VERTICES)

        def tensor(a):
            return torch.tensor(a, dtype=torch.float32)

        return Skeleton(
            J0=tensor(J0),
            J1=tensor(J1),
            cpf0=tensor(template[eyes].mean(0) - J0[HEAD]),
            cpf1=tensor(directions[eyes].mean(0) - J1[HEAD]),
            name=_body_name(path),
        )

    def to(self, device: torch.device | str) -> "Skeleton":
        """The same skeleton with its tensors on ``device``."""
        return replace(self, **{k: getattr(self, k).to(device) for k in ("J0", "J1", "cpf0", "cpf1")})

    def rest_joints(self, betas: Float[Tensor, "*batch 16"]) -> Float[Tensor, "*batch 52 3"]:
        """Joints of the shaped body in the rest pose, meters (SMPL, Eq. 10)."""
        return self.J0 + torch.einsum("jcb,...b->...jc", self.J1, betas)

    def cpf_offset(self, betas: Float[Tensor, "*batch 16"]) -> Float[Tensor, "*batch 3"]:
        """CPF relative to the head joint, in the head frame, meters."""
        return self.cpf0 + betas @ self.cpf1.mT

    def leg_length(self, betas: Float[Tensor, "*batch 16"]) -> Float[Tensor, "*batch"]:
        """Pelvis over soles in the rest pose, meters: the scale by which a body of another size travels."""
        rest = self.rest_joints(betas)
        return rest[..., PELVIS, 1] - rest[..., [LEFT_FOOT, RIGHT_FOOT], 1].mean(-1) + SOLE_UNDER_TOE

    def measures(self, betas: Float[Tensor, "*batch 16"]) -> Float[Tensor, "*batch 3"]:
        """Sizes of the shaped body in the rest pose, meters: eyes over soles, pelvis over soles, shoulder to wrist."""
        rest = self.rest_joints(betas)
        legs = self.leg_length(betas)
        eyes = rest[..., HEAD, 1] + self.cpf_offset(betas)[..., 1] - rest[..., PELVIS, 1] + legs
        arms = (
            (rest[..., [LEFT_SHOULDER, RIGHT_SHOULDER], :] - rest[..., [LEFT_WRIST, RIGHT_WRIST], :])
            .norm(dim=-1)
            .mean(-1)
        )
        return torch.stack([eyes, legs, arms], dim=-1)

    def stature(self, betas: Float[Tensor, "*batch 16"]) -> Float[Tensor, "*batch"]:
        """Height of the shaped body, meters, by the height of its eyes over its lower sole."""
        rest = self.rest_joints(betas)
        eyes = rest[..., HEAD, 1] + self.cpf_offset(betas)[..., 1]
        return (eyes - rest[..., [LEFT_FOOT, RIGHT_FOOT], 1].amin(-1) + _SOLE_OF_STATURE) / EYE_HEIGHT

    def betas_of_stature(self, stature: float | int) -> Float[Tensor, "16"]:
        """The body of that many meters, average but for its first shape parameter, which is rounded to 0.01 (1 mm).

        Raises:
            ValueError: a stature that nobody has: another unit, most likely.
        """
        if not STATURES[0] <= stature <= STATURES[1]:
            raise ValueError(
                f"stature must be {STATURES[0]} to {STATURES[1]} m, got {stature:g}; give it in meters, such as 1.75."
            )
        betas = torch.zeros(2, NUM_BETAS, device=self.J0.device)
        betas[1, 0] = 1.0
        mean, one = self.stature(betas).tolist()
        return betas[1] * round((stature - mean) / (one - mean), 2)

    def place_by_head(
        self,
        betas: Float[Tensor, "*#batch 16"],
        local_rotmats: Float[Tensor, "*#batch local 3 3"],
        R_world_cpf: Float[Tensor, "*#batch 3 3"],
        p_world_cpf: Float[Tensor, "*#batch 3"],
    ) -> PosedBody:
        """The shaped and posed body whose central pupil frame is the given one; 21 or 51 local rotations."""
        rest_joints = self.rest_joints(betas)[..., : local_rotmats.shape[-3] + 1, :]
        return place_by_head(rest_joints, self.cpf_offset(betas), local_rotmats, R_world_cpf, p_world_cpf)


def _body_name(path: Path) -> str:
    # SMPL-H's archive has a model.npz in a folder for each gender; smplx wants the same files as SMPLH_NEUTRAL.npz.
    name = path.stem if path.stem.lower() != "model" else f"smplh-{path.resolve().parent.name}"
    return name.lower().replace("_", "-")
