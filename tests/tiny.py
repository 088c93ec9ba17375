"""What several tests need: a network that runs in milliseconds, a walking head and a moving body."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import roma
import torch
from torch import Tensor

from motion_grpo.body import Skeleton
from motion_grpo.data import Clip
from motion_grpo.inference import EgoMotionPipeline
from motion_grpo.models import EgoMotionDenoiser, MotionPerceptualModel
from motion_grpo.motion import Motion, with_contacts
from motion_grpo.schedulers import EgoMotionSDEScheduler
from motion_grpo.trajectory import HeadTrajectory

GOLDEN = Path(__file__).parent / "golden"


def tiny_denoiser(**changes) -> EgoMotionDenoiser:
    """Random weights, 226 numbers a frame; the layout of the network that ships unless changed."""
    config = {
        "d_latent": 16,
        "d_feedforward": 16,
        "d_noise_emb": 8,
        "num_heads": 2,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "noise_conditioning": "film",
        "noise_in_encoder": False,
        "include_hands": False,
    }
    denoiser = EgoMotionDenoiser(**config | changes)
    for name, parameter in denoiser.named_parameters():
        if "film" in name:  # zero at the start of a training, which would hide the noise level from the network
            torch.nn.init.normal_(parameter, std=0.5)
    return denoiser.eval()


def tiny_pipeline(num_inference_steps: int = 4, eta: float = 1.0, window: int = 16, **changes) -> EgoMotionPipeline:
    """:func:`tiny_denoiser` behind the scheduler of the networks that ship."""
    denoiser = tiny_denoiser(**changes)
    return EgoMotionPipeline(denoiser, EgoMotionSDEScheduler(eta=eta), num_inference_steps, window, window // 4)


def tiny_perceptual_model(**changes) -> MotionPerceptualModel:
    """Random weights, a few thousand of them."""
    config = {"d_latent": 16, "num_blocks": 1, "num_heads": 2, "frames_per_token": 4}
    return MotionPerceptualModel(**config | changes)


def head_poses(frames: int, fps: float = 30.0) -> Tensor:
    """T_world_cpf (frames, 4, 4): eyes at 1.6 m on a circle of 2 m at 1 rad/s, looking ahead and nodding."""
    time = np.arange(frames) / fps
    pitch = 0.2 * np.sin(2 * time)
    forward = np.stack([-np.sin(time) * np.cos(pitch), np.cos(time) * np.cos(pitch), np.sin(pitch)], 1)
    left = np.stack([-np.cos(time), -np.sin(time), 0 * time], 1)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = np.stack([left, np.cross(forward, left), forward], 2)
    poses[:, :3, 3] = np.stack([2 * np.cos(time), 2 * np.sin(time), 1.6 + 0.03 * np.sin(9 * time)], 1)
    return torch.tensor(poses, dtype=torch.float32)


def head_trajectory(frames: int, fps: float = 30.0, floor_height: float = 0.0) -> HeadTrajectory:
    """The same above a floor, with times."""
    poses = head_poses(frames, fps)
    poses[:, 2, 3] += floor_height
    return HeadTrajectory.from_matrices(poses, fps=fps, floor_height=floor_height)


def moving_motion(frames: int, seed: int = 0, fps: float = 30.0) -> Motion:
    """Every joint swings gently about the rest pose while the body, standing on its feet, turns and drifts."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(frames, dtype=torch.float64) / fps
    swing, phase = torch.randn(2, 21, 3, generator=generator)
    # Legs swing little, so that a toe is on the ground now and then.
    swing[[0, 1, 3, 4, 6, 7, 9, 10]] *= 0.3
    rotvecs = 0.15 * swing * torch.sin(3 * time.float()[:, None, None] + phase)
    upright = roma.rotvec_to_rotmat(torch.tensor([torch.pi / 2, 0.0, 0.0]))
    turn = torch.stack([0 * time, 0 * time, 0.3 * time + seed], 1).float()
    betas = 0.3 * torch.randn(16, generator=generator)
    rest = Skeleton.default().rest_joints(betas)
    height = float(rest[0, 1] - rest[10:12, 1].mean()) + 0.02
    place = torch.stack([0.3 * time, 0.2 * torch.sin(time), torch.full_like(time, height)], 1).float()
    motion = Motion(
        root_rotmats=roma.rotvec_to_rotmat(turn) @ upright,
        root_positions=place,
        body_rotmats=roma.rotvec_to_rotmat(rotvecs),
        betas=betas,
        contacts=torch.zeros(frames, 21),
        timestamps=time,
    )
    return with_contacts(motion)


def moving_clip(frames: int, seed: int = 0) -> Clip:
    """:func:`moving_motion` at 30 fps as a clip."""
    return Clip(f"clip{seed}", "tiny", moving_motion(frames, seed))


def pack_row(motion: Motion, clip_id: str, source: str) -> dict:
    """One row of an open_mocap_smplh shard, written from the format's description: mannequin-x, soles on the floor."""

    def differences(values: np.ndarray, dtype: type) -> bytes:
        columns = values.T
        steps = np.diff(columns, axis=1, prepend=0)
        return steps.astype(dtype).tobytes()

    rotmats = torch.cat([motion.root_rotmats[:, None], motion.body_rotmats], 1)
    floor = torch.tensor([0.0, 0.0, -0.0065])  # of the pack, in this library's world
    trans = motion.root_positions - floor - Skeleton.mannequin_x().rest_joints(motion.betas)[0]
    rotvecs = roma.rotmat_to_rotvec(rotmats).flatten(1).double().numpy()
    return {
        "clip_id": clip_id,
        "source": source,
        "num_frames": len(motion),
        "fps": round(motion.fps),
        "betas": motion.betas.tolist(),
        "poses_i16": differences(np.round(rotvecs * 1e4).astype(np.int64), np.int16),
        "trans_i32": differences(np.round(trans.double().numpy() * 1e5).astype(np.int64), np.int32),
    }


def write_shard(folder: Path, source: str, split: str, motions: list[Motion]) -> Path:
    """A shard of the pack with these motions; clip ids are SOURCE/NUMBER."""
    path = folder / f"{source}_{split}.parquet"
    rows = [pack_row(motion, f"{source}/{number}", source) for number, motion in enumerate(motions)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
