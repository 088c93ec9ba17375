"""The mesh of the default body for pictures: the mannequin of the Apache-2.0 package mannequin-x."""

from collections.abc import Sequence
from functools import cache

import mannequin
import numpy as np
import roma
from jaxtyping import Float32, Int64

from motion_grpo.body import Skeleton
from motion_grpo.motion import Motion

MANNEQUIN_BODIES = (Skeleton.default().name, Skeleton.mannequin_x().name)
"""Names of the skeletons (:attr:`Skeleton.name`) that have this mesh, which is symmetric at rest."""
_NUM_BETAS = 10


def mannequin_faces() -> Int64[np.ndarray, "faces 3"]:
    """Vertices of every triangle, counter-clockwise as seen from outside."""
    return _wooden().faces


def mannequin_vertices(motion: Motion, frames: Sequence[int]) -> Float32[np.ndarray, "poses vertices 3"]:
    """The mannequin in the motion's shape and in the poses of some frames; world, metres.

    Hands that are not known are shown relaxed rather than flat.

    Raises:
        ValueError: the motion's betas belong to another body, whose mesh is not this one.
    """
    if motion.body.name not in MANNEQUIN_BODIES:
        raise ValueError(
            f"the mannequin has the shape space of the default body, and this motion's betas belong to "
            f"{motion.body.name!r}; draw its joints instead."
        )
    index = list(frames)
    hands_known = motion.hand_rotmats is not None
    model = mannequin.Mannequin(kind="wooden", flat_hand_mean=hands_known)
    model.reshape(motion.betas[:_NUM_BETAS].numpy())
    pose = model.rest_pose(batch_dims=(len(index),))
    pose["body_pose"] = roma.rotmat_to_rotvec(motion.body_rotmats[index]).numpy()
    if hands_known:
        pose["hand_pose"] = roma.rotmat_to_rotvec(motion.hand_rotmats[index]).numpy()
    # pelvis_rotation turns about the pelvis, as SMPL's root does; global_rotation would turn about the world's origin.
    pose["pelvis_rotation"] = roma.rotmat_to_rotvec(motion.root_rotmats[index]).numpy()
    pelvis_at_rest = Skeleton.mannequin_x().rest_joints(motion.betas)[0]
    pose["global_translation"] = (motion.root_positions[index] - pelvis_at_rest).numpy()
    return np.stack([_vertices(model, pose, k) for k in range(len(index))])


def _vertices(model: mannequin.Mannequin, pose: dict[str, np.ndarray], k: int) -> np.ndarray:
    # One pose at a time: skinning a batch holds (poses, vertices, 4, 3, 3) at once.
    return model.vertices({name: value[k] for name, value in pose.items()}).astype(np.float32)


@cache
def _wooden() -> mannequin.Mannequin:
    return mannequin.Mannequin(kind="wooden")
