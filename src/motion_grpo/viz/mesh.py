"""The surface that is shown: the mannequin of the Apache-2.0 package mannequin-x, or that of a licensed body file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mannequin
import numpy as np
import roma
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from motion_grpo.body import NUM_BODY_AND_ROOT, NUM_JOINTS, PARENTS, PosedBody, Skeleton, forward_kinematics, skinned
from motion_grpo.motion import Motion

MANNEQUIN_BODIES = (Skeleton.default().name, Skeleton.mannequin_x().name)
"""Names of the skeletons (:attr:`Skeleton.name`) that have the mannequin, which is symmetric at rest."""
_NUM_BETAS = 10
_CHUNK = 8  # frames that are skinned at once


@dataclass(frozen=True, eq=False)
class Skin:
    """A mesh at rest and how it hangs on the joints of one body."""

    vertices: Float[Tensor, "vertices 3"]
    """T-pose, y up, facing +z; meters."""
    faces: Int64[Tensor, "faces 3"]
    """Counter-clockwise as seen from outside."""
    weights: Float[Tensor, "vertices 52"]
    rest_joints: Float[Tensor, "52 3"]

    def pose(self, body: PosedBody) -> Float[Tensor, "frames vertices 3"]:
        """The mesh on posed joints; world, meters."""
        chunks = zip(body.rotmats.split(_CHUNK), body.joints.split(_CHUNK), strict=True)
        return torch.cat([skinned(self.vertices, self.weights, self.rest_joints, PosedBody(R, p)) for R, p in chunks])


def skin_of(motion: Motion, model_path: str | Path | None = None) -> Skin:
    """The surface of a motion's body: of a licensed SMPL-H or SMPL-X file where one is given, else the mannequin.

    A licensed surface is skinned without its pose correctives, which :meth:`Motion.vertices` has.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the betas belong to another body than the file's, or to one that has no mannequin.
    """
    if model_path is not None:
        surface = motion.surface(model_path)
        rest = surface.rest_joints(motion.betas)
        return Skin(surface.shaped(motion.betas), surface.faces, surface.weights, rest)
    if motion.body.name not in MANNEQUIN_BODIES:
        raise ValueError(
            f"the mannequin has the shape space of the default body, and this motion's betas belong to "
            f"{motion.body.name!r}; name its licensed model file, or use a format without a surface."
        )
    model = mannequin.Mannequin(kind="wooden", flat_hand_mean=True)
    model.reshape(motion.betas[:_NUM_BETAS].numpy())
    vertices = torch.from_numpy(model.vertices(model.rest_pose()).astype(np.float32))
    return Skin(vertices, _faces(), _weights(), motion.body.rest_joints(motion.betas))


def shown_rotmats(motion: Motion) -> Float[Tensor, "frames 52 3 3"]:
    """Rotations relative to the parent joint; hands that are not known are relaxed rather than flat."""
    if motion.hand_rotmats is not None:
        return motion.local_rotmats
    relaxed = _relaxed_hands().expand(len(motion), -1, -1, -1)
    return torch.cat([motion.local_rotmats[:, :NUM_BODY_AND_ROOT], relaxed], dim=1)


def shown_body(motion: Motion, rest_joints: Float[Tensor, "52 3"] | None = None) -> PosedBody:
    """All 52 joints in the world with hands as :func:`shown_rotmats` has them; of the motion's body, or another's."""
    rest = motion.body.rest_joints(motion.betas) if rest_joints is None else rest_joints
    return forward_kinematics(rest, shown_rotmats(motion), motion.root_positions)


def without_fingers(skin: Skin, body: PosedBody) -> Skin:
    """The skin with its fingers frozen as in the first frame and hung on the wrists, so that 22 joints move it."""
    local = torch.eye(3).repeat(1, NUM_JOINTS, 1, 1)
    parents = [PARENTS[joint] for joint in range(NUM_BODY_AND_ROOT, NUM_JOINTS)]
    local[:, NUM_BODY_AND_ROOT:] = body.rotmats[:1, parents].mT @ body.rotmats[:1, NUM_BODY_AND_ROOT:]
    rest = forward_kinematics(skin.rest_joints, local, skin.rest_joints[:1])
    weights = skin.weights.clone()
    for joint in reversed(range(NUM_BODY_AND_ROOT, NUM_JOINTS)):
        weights[:, PARENTS[joint]] += weights[:, joint]
        weights[:, joint] = 0.0
    return Skin(skin.pose(rest)[0], skin.faces, weights, skin.rest_joints)


def mannequin_faces() -> Int64[np.ndarray, "faces 3"]:
    """Vertices of every triangle, counter-clockwise as seen from outside."""
    return _faces().numpy()


def mannequin_vertices(motion: Motion, frames: Sequence[int]) -> Float32[np.ndarray, "poses vertices 3"]:
    """The mannequin in the motion's shape and in the poses of some frames; world, meters.

    Hands that are not known are shown relaxed rather than flat.

    Raises:
        ValueError: the motion's betas belong to another body, whose mesh is not this one.
    """
    skin, body = skin_of(motion), shown_body(motion)
    index = list(frames)
    return skin.pose(PosedBody(body.rotmats[index], body.joints[index])).numpy()


@cache
def _wooden() -> mannequin.Mannequin:
    return mannequin.Mannequin(kind="wooden")


@cache
def _faces() -> Int64[Tensor, "faces 3"]:
    return torch.from_numpy(_wooden().faces.astype(np.int64))


@cache
def _weights() -> Float[Tensor, "vertices 52"]:
    # The package says nowhere in public which joints a vertex hangs on. Its joints 22 and 23 lie on the wrists.
    model = _wooden()
    joints, weights = model._skin_joint_indices, model._skin_weights  # noqa: SLF001  (see above)
    assert joints is not None  # the wooden one is skinned
    assert weights is not None
    dense = np.zeros((model.num_vertices, len(model.joint_names)), np.float32)
    np.add.at(dense, (np.arange(len(joints))[:, None], joints), weights)
    for wrist, knuckles in ((20, 22), (21, 23)):
        dense[:, wrist] += dense[:, knuckles]
    return torch.from_numpy(np.delete(dense, (22, 23), axis=1))


@cache
def _relaxed_hands() -> Float[Tensor, "30 3 3"]:
    path = Path(mannequin.__file__).parent / "assets" / "smplx_calibration.npz"
    with np.load(path, allow_pickle=False) as file:
        return roma.rotvec_to_rotmat(torch.tensor(file["hand_mean"], dtype=torch.float32))
