"""Motion as npz: AMASS's layout (SMPL-H), and the one that the SMPL-X add-on of Blender reads."""

from pathlib import Path

import numpy as np
import roma
import torch

from motion_grpo.body import NUM_BETAS, Skeleton
from motion_grpo.files import whole_file
from motion_grpo.motion import Motion

_NUM_SMPLX_BETAS = 10  # of the default body; the other six are zero


def write_amass(motion: Motion, path: Path) -> None:
    """Writes AMASS's layout: 156 pose columns, what smplx reads, and beside it what only this library knows."""
    poses = roma.rotmat_to_rotvec(motion.local_rotmats).flatten(1)
    _write(
        path,
        poses=poses.numpy().astype(np.float32),
        trans=motion.trans.numpy().astype(np.float32),
        betas=motion.betas.numpy().astype(np.float32),
        gender=np.array("neutral"),
        mocap_framerate=np.array(motion.fps),
        contacts=motion.contacts.numpy().astype(np.float32),
        timestamps=motion.timestamps.numpy(),
        floor_height=np.array(motion.floor_height),
        skeleton=np.array(motion.body.name),
    )


def write_smplx(motion: Motion, path: Path) -> None:
    """Writes AMASS's layout for SMPL-X: 165 pose columns, jaw and eyes at rest, the floor at z = 0.

    The default body has SMPL-X's shape space, so its betas are written as they are. A body of another shape space is
    written with the SMPL-X betas of its stature; poses are the same in both.
    """
    motion = motion.above_floor()
    body = Skeleton.mannequin_x()
    if motion.body.name in (body.name, Skeleton.default().name):
        betas = motion.betas
    else:
        betas = body.betas_of_stature(float(motion.body.stature(motion.betas)))
    body_poses, hand_poses = roma.rotmat_to_rotvec(motion.local_rotmats).split([22, 30], dim=1)
    face = torch.zeros(len(motion), 3, 3)
    poses = torch.cat([body_poses, face, hand_poses], dim=1).flatten(1)
    trans = motion.root_positions - body.rest_joints(betas)[0]
    _write(
        path,
        surface_model_type=np.array("smplx"),
        gender=np.array("neutral"),
        mocap_frame_rate=np.array(motion.fps),
        poses=poses.numpy().astype(np.float32),
        trans=trans.numpy().astype(np.float32),
        betas=torch.nn.functional.pad(betas[:_NUM_SMPLX_BETAS], (0, NUM_BETAS - _NUM_SMPLX_BETAS)).numpy(),
    )


def _write(path: Path, **arrays: np.ndarray) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
