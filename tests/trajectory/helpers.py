"""A walk in a circle to read back, and the file formats it can be written in."""

import numpy as np
import roma
import torch

FPS = 30.0


def walk(frames: int = 60, turn: float = 2 * np.pi) -> tuple[np.ndarray, np.ndarray]:
    """T_world_cpf (frames, 4, 4) of an upright head that turns and nods, eyes at 1.6 m, and its times in seconds."""
    heading = np.linspace(0, turn, frames)
    pitch = 0.2 * np.sin(3 * heading)
    zero = np.zeros(frames)
    forward = np.stack([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)], axis=1)
    left = np.stack([-np.sin(heading), np.cos(heading), zero], axis=1)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = np.stack([left, np.cross(forward, left), forward], axis=2)
    poses[:, :3, 3] = np.stack([2 * np.cos(heading), 2 * np.sin(heading), 1.6 + 0.02 * np.sin(8 * heading)], axis=1)
    return poses, 100.0 + np.arange(frames) / FPS


def quaternions(poses: np.ndarray) -> np.ndarray:
    """(frames, 4) x y z w of (frames, 4, 4) poses."""
    return roma.rotmat_to_unitquat(torch.from_numpy(poses[:, :3, :3].copy())).numpy()


def wxyz_xyz(poses: np.ndarray) -> np.ndarray:
    """(frames, 7), w first, of (frames, 4, 4) poses."""
    return np.concatenate([quaternions(poses)[:, [3, 0, 1, 2]], poses[:, :3, 3]], axis=1)


def aria_csv(poses: np.ndarray, times: np.ndarray, gravity: tuple = (0, 0, -9.81), world: str = "world") -> list[str]:
    """The lines of an MPS trajectory CSV with these device poses: open loop if the world is ``odometry``."""
    uid = "graph_uid" if world == "world" else "session_uid"
    pose = [f"t{a}_{world}_device" for a in "xyz"] + [f"q{a}_{world}_device" for a in "xyzw"]
    names = [uid, "tracking_timestamp_us", *pose, *[f"gravity_{a}_{world}" for a in "xyz"], "quality_score"]
    rows = np.concatenate([poses[:, :3, 3], quaternions(poses), np.tile(gravity, (len(poses), 1))], axis=1)
    lines = [",".join(names)]
    for time, row in zip(times, rows, strict=True):
        lines.append(f"map-1,{round(time * 1e6)}," + ",".join(f"{v:.9f}" for v in row) + ",1.0")
    return lines


def tum_text(poses: np.ndarray, times: np.ndarray, columns: tuple = (0, 1, 2, 3)) -> str:
    """TUM text; ``columns`` reorders the quaternion."""
    rows = np.concatenate([times[:, None], poses[:, :3, 3], quaternions(poses)[:, list(columns)]], axis=1)
    return "# time tx ty tz qx qy qz qw\n" + "\n".join(" ".join(f"{v:.9f}" for v in row) for row in rows) + "\n"
