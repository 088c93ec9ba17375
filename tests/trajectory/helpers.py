"""A walk in a circle to read back, and the file formats it can be written in."""

import numpy as np
import roma
import torch

from motion_grpo.trajectory import Convention
from motion_grpo.trajectory.conventions import named_convention

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


def in_axes(poses: np.ndarray, convention: str | Convention) -> np.ndarray:
    """T_world_cpf (frames, 4, 4) as a system with these axes gives the same poses."""
    axes = named_convention(convention)
    A_world, A_head = axes.A_world.numpy(), axes.A_cpf_head.numpy()
    given = poses.copy()
    given[:, :3, :3] = A_world.T @ poses[:, :3, :3] @ A_head
    given[:, :3, 3] = poses[:, :3, 3] @ A_world / axes.metres_per_unit
    return given


def csv_of(header: str, poses: np.ndarray, times: np.ndarray, separator: str = ",") -> str:
    """Rows under a header; the columns are time (once or more), x y z and w x y z, as the last letters of names say."""
    numbers = dict(zip("xyz", poses[:, :3, 3].T, strict=True))
    rotation = dict(zip("xyzw", quaternions(poses).T, strict=True))
    columns = []
    for name in header.removeprefix("# ").split(separator):
        plain = name.split("[")[0].split("(")[0].strip().lower()
        if "time" in plain or "stamp" in plain:
            columns.append(times)
        elif (axis := plain[-1]) in numbers and not any(word in plain for word in ("q", "rot", "orient")):
            columns.append(numbers[axis])
        else:
            columns.append(rotation[plain[-1]])
    rows = np.stack(columns, axis=1)
    return header + "\n" + "\n".join(separator.join(f"{v:.9f}" for v in row) for row in rows) + "\n"
