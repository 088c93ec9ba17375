"""Writes BVH files of small skeletons to read back."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

# Name, parent and offset from it (cm) of a figure in T-pose: y up, facing +z, left at +x. Mixamo's names.
_MIDDLE = [
    ("Hips", "", (0, 90, 0)), ("Spine", "Hips", (0, 10, -1)), ("Spine1", "Spine", (0, 12, 0)),
    ("Spine2", "Spine1", (0, 12, 0)), ("Neck", "Spine2", (0, 20, 0)), ("Head", "Neck", (0, 10, 2)),
]  # fmt: skip
_LEFT = [
    ("LeftShoulder", "Spine2", (5, 15, 0)), ("LeftArm", "LeftShoulder", (12, 0, 0)),
    ("LeftForeArm", "LeftArm", (27, 0, 0)), ("LeftHand", "LeftForeArm", (25, 0, 0)), ("LeftUpLeg", "Hips", (9, -5, 0)),
    ("LeftLeg", "LeftUpLeg", (0, -39, 0)), ("LeftFoot", "LeftLeg", (0, -40, 0)),
    ("LeftToeBase", "LeftFoot", (0, -6, 14)),
]  # fmt: skip
_RIGHT = [(n.replace("Left", "Right"), p.replace("Left", "Right"), (-x, y, z)) for n, p, (x, y, z) in _LEFT]
FIGURE = [(name, parent, np.array(offset, dtype=float)) for name, parent, offset in _MIDDLE + _LEFT + _RIGHT]
NAMES = [name for name, _, _ in FIGURE]


def write_bvh(
    path: Path,
    rotations: Tensor,
    root_positions: Tensor,
    skeleton: Sequence[tuple[str, str, np.ndarray]] = FIGURE,
    fps: float = 30.0,
    end: str = "\n",
) -> Path:
    """A BVH of (frames, joints, 3, 3) local rotations, written as Euler angles ZXY, and (frames, 3) root positions."""
    children: Mapping[str, list] = {name: [j for j in skeleton if j[1] == name] for name, _, _ in skeleton}
    order: list[str] = []

    def block(joint: tuple, depth: int) -> list[str]:
        name, parent, offset = joint
        order.append(name)
        tab = "\t" * depth
        position = "" if parent else "Xposition Yposition Zposition "
        lines = [f"{tab}{'JOINT' if parent else 'ROOT'} {name}", tab + "{"]
        lines.append(f"{tab}\tOFFSET {' '.join(f'{x:.9f}' for x in offset)}")
        lines.append(f"{tab}\tCHANNELS {3 if parent else 6} {position}Zrotation Xrotation Yrotation")
        for child in children[name]:
            lines += block(child, depth + 1)
        if not children[name]:
            lines += [tab + "\tEnd Site", tab + "\t{", tab + "\t\tOFFSET 0 0 0", tab + "\t}"]
        return [*lines, tab + "}"]

    lines = ["HIERARCHY", *block(skeleton[0], 0), "MOTION", f"Frames:\t{len(rotations)}", f"Frame Time:\t{1 / fps:.7f}"]
    index = [[name for name, _, _ in skeleton].index(name) for name in order]
    angles = roma.rotmat_to_euler("ZXY", rotations[:, index].double(), degrees=True).flatten(1)
    rows = torch.cat([root_positions.double(), angles], dim=1).tolist()
    lines += [" ".join(f"{x:.9f}" for x in row) for row in rows]
    path.write_text(end.join(lines) + end)
    return path


def t_pose(frames: int = 3) -> tuple[Tensor, Tensor]:
    """Rotations and root positions of the figure that stands still."""
    return torch.eye(3).repeat(frames, len(FIGURE), 1, 1), torch.tensor([[0.0, 90.0, 0.0]]).repeat(frames, 1)


def rotation(axis: str, degrees: float) -> Tensor:
    return roma.euler_to_rotmat(axis, torch.tensor([degrees]), degrees=True)


def walk(frames: int = 90, speed: float = 0.8, fps: float = 30.0, planted: float = 0.5) -> tuple[Tensor, Tensor]:
    """Rotations and root positions (cm) of the figure that walks along +z, arms down, at a stride a second.

    Args:
        speed: meters per second.
        planted: share of the time that a foot stands; over a half, both do at times.
    """
    time = torch.arange(frames, dtype=torch.float64) / fps
    R = torch.eye(3, dtype=torch.float64).repeat(frames, len(FIGURE), 1, 1)
    thigh, shank, height, step = 39.0, 40.0, 75.0, 100 * speed * planted
    for side, start in (("Left", 0.0), ("Right", 0.5)):
        phase = (time + start) % 1.0
        swing = ((phase - planted) / (1 - planted)).clamp(0, 1)
        forward = torch.where(phase < planted, step / 2 - step * phase / planted, step * (swing - 0.5))
        down = height - 10 * (torch.pi * swing).sin()
        knee = ((forward**2 + down**2 - thigh**2 - shank**2) / (2 * thigh * shank)).clamp(-1, 1).acos()
        hip = -torch.atan2(forward, down) - torch.atan2(shank * knee.sin(), thigh + shank * knee.cos())
        for name, angle in (("UpLeg", hip), ("Leg", knee), ("Foot", -hip - knee)):
            R[:, NAMES.index(side + name)] = roma.euler_to_rotmat("x", angle[:, None])
        R[:, NAMES.index(side + "Arm")] = rotation("z", -75.0 if side == "Left" else 75.0).double()
    zero = torch.zeros_like(time)
    return R, torch.stack([zero, zero + 86, 100 * speed * time], dim=1)


def turned(
    A: Tensor, rotations: Tensor, positions: Tensor, skeleton: Sequence[tuple[str, str, np.ndarray]] = FIGURE
) -> tuple[Tensor, Tensor, list[tuple[str, str, np.ndarray]]]:
    """The same motion in a world turned by ``A``, zero pose and all: what ``write_bvh`` takes."""
    A = A.double()
    return A @ rotations.double() @ A.mT, positions.double() @ A.mT, [(n, p, A.numpy() @ o) for n, p, o in skeleton]


def folded(
    t_pose: Mapping[str, np.ndarray], rotations: Tensor, skeleton: Sequence[tuple[str, str, np.ndarray]]
) -> tuple[Tensor, list[tuple[str, str, np.ndarray]]]:
    """The same motion of a skeleton whose joints are turned by ``t_pose`` (world) in the T-pose."""
    names = [name for name, _, _ in skeleton]
    T = {"": torch.eye(3, dtype=torch.float64)}
    local, offsets = torch.empty_like(rotations, dtype=torch.float64), []
    for i, (name, parent, offset) in enumerate(skeleton):
        T[name] = torch.as_tensor(t_pose[name]) if name in t_pose else T[parent]
        local[:, i] = T[parent].mT @ rotations[:, i].double() @ T[name]
        offsets.append((name, parent, T[parent].mT.numpy() @ offset))
    assert len(names) == len(set(names))
    return local, offsets
