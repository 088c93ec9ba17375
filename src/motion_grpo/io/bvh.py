"""BVH (Biovision Hierarchy), read and written.

Own reader because none on PyPI copes with what is found in the wild: pybvh 0.9 refuses position channels on joints
other than the root (Bandai-Namco's files), bvhTools 1.6 fails on tabs, and bvhio 1.5 never returns from a truncated
file.
"""

import re
from dataclasses import dataclass, field
from math import ceil, floor
from pathlib import Path
from typing import Literal

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import HEAD, JOINT_NAMES, NUM_BODY_AND_ROOT, PARENTS
from motion_grpo.body.joints import LEFT_WRIST, RIGHT_WRIST
from motion_grpo.files import write_text
from motion_grpo.io.source_motion import SourceMotion
from motion_grpo.io.y_up import Z_TO_Y_UP, to_y_up
from motion_grpo.motion import Motion

UNITS_PER_METRE = 100.0
"""Centimetres, which most programs take a BVH to be in."""
_POSITION, _ROTATION = "Xposition Yposition Zposition", "Zrotation Yrotation Xrotation"
_CROWN = 0.18  # meters over the head joint
_TIP = 0.8  # length of the last bone of a finger or a foot as a share of the one before
_MIDDLE_FINGERS = {LEFT_WRIST: JOINT_NAMES.index("L_middle1"), RIGHT_WRIST: JOINT_NAMES.index("R_middle1")}
_CHANNELS = {f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")}
_WORD = re.compile(r"[{}]|[^\s{}]+")
_COMMENT = re.compile(r"(^|\s)(#|//).*")
_NAMESPACE = re.compile(r".*[:|]")
_HEADER = re.compile(
    r"\s*frames\s*:?\s*(?P<frames>\d+)\s+frame\s*time\s*:?\s*(?P<seconds>(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)\s*",
    re.IGNORECASE,
)


@dataclass
class _Joint:
    name: str
    parent: int
    offset: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    channels: list[str] = field(default_factory=list)


def read_bvh(
    path: str | Path, *, metres_per_unit: float = 0.01, root_offset_added: bool = False, up: Literal["y", "z"] = "y"
) -> SourceMotion:
    """Reads a BVH: any order of rotations, position channels on any joint (they replace its OFFSET), any layout.

    Braces, blanks, tabs, empty lines and comments (``#``, ``//``) may stand anywhere, keywords be of either case.
    Namespaces before a colon (``mixamorig:Hips``) are taken off the names. Frame times are often rounded or cut off:
    the rate is the only whole number that they may stand for (0.0333: 30), or one within 0.02%. One row more than
    announced is read too; fewer are refused.

    Args:
        metres_per_unit: of offsets and positions.
        root_offset_added: the root's position channels count from its OFFSET (iClone) instead of replacing it.
        up: axis that points up in the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no or a broken hierarchy, no MOTION, rows that are missing or of a wrong length, values that are not
            finite; names the line.
    """
    lines, start = _read_lines(path)
    joints = _read_hierarchy(path, lines[:start])
    values, fps = _read_motion(path, lines, start, [f"{j.name} {c}" for j in joints for c in j.channels])

    rotmats = torch.eye(3, dtype=torch.float64).repeat(len(values), len(joints), 1, 1)
    positions = torch.zeros(len(values), len(joints), 3, dtype=torch.float64)
    column = 0
    for index, joint in enumerate(joints):
        channels = values[:, column : column + len(joint.channels)]
        column += len(joint.channels)
        is_root = joint.parent < 0
        offset = torch.tensor(joint.offset, dtype=torch.float64).repeat(len(values), 1)
        for i, channel in enumerate(joint.channels):
            if channel.endswith("position"):
                axis = "XYZ".index(channel[0])
                offset[:, axis] = channels[:, i] + (offset[:, axis] if is_root and root_offset_added else 0.0)
        order = [i for i, channel in enumerate(joint.channels) if channel.endswith("rotation")]
        local = rotmats[:, index]
        if order:
            convention = "".join(joint.channels[i][0] for i in order)
            local = roma.euler_to_rotmat(convention, channels[:, order], degrees=True)
        if is_root:
            rotmats[:, index], positions[:, index] = local, offset
        else:
            R_parent = rotmats[:, joint.parent]
            rotmats[:, index] = R_parent @ local
            positions[:, index] = positions[:, joint.parent] + (R_parent @ offset[..., None])[..., 0]
    if up == "z":
        rotmats, positions = Z_TO_Y_UP @ rotmats, positions @ Z_TO_Y_UP.mT
    return SourceMotion(
        names=tuple(joint.name for joint in joints),
        parents=tuple(joint.parent for joint in joints),
        rotmats=rotmats,
        positions=positions * metres_per_unit,
        fps=fps,
    )


def joint_names(path: str | Path) -> list[str]:
    """Names of a BVH's joints; its motion is not looked at.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no or a broken hierarchy.
    """
    lines, start = _read_lines(path)
    return [joint.name for joint in _read_hierarchy(path, lines[:start])]


def _read_lines(path: str | Path) -> tuple[list[str], int]:
    """The file's lines without comments, and which of them says MOTION."""
    text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    lines = [_COMMENT.sub("", line) for line in text.splitlines()]
    start = next((i for i, line in enumerate(lines) if line.strip().upper() == "MOTION"), None)
    if start is None:
        raise ValueError(f"{path} is no whole BVH file: it has no line MOTION.")
    return lines, start


class _Hierarchy:
    """Reads the joints, word by word.

    Words and not lines: a brace may stand beside a name, below it, or with all of an end site on one line.
    """

    def __init__(self, lines: list[str]) -> None:
        self.words = [(word, number) for number, line in enumerate(lines, 1) for word in _WORD.findall(line)]
        self.at = 0
        self.joints: list[_Joint] = []
        self.open_blocks: list[int] = []  # index of the joint, -1 for an end site

    def read_part(self, keyword: str) -> None:
        match keyword:
            case "HIERARCHY":
                pass
            case "ROOT" | "JOINT" | "END" | "ENDSITE":
                self._open(keyword)
            case "}":
                self.open_blocks.pop()
            case "OFFSET":
                self._read_offset()
            case "CHANNELS":
                self._read_channels()
            case _:
                raise ValueError("not part of a hierarchy")

    def _take(self, count: int) -> list[str]:
        taken = [word for word, _ in self.words[self.at : self.at + count]]
        if len(taken) < count or {"{", "}"} & set(taken):
            raise ValueError("something is missing")
        self.at += count
        return taken

    def _open(self, kind: str) -> None:
        name = self._take(next((i for i, (word, _) in enumerate(self.words[self.at :]) if word in "{}"), 0))
        if self.words[self.at : self.at + 1] and self.words[self.at][0] == "}":
            raise ValueError("no { follows")
        self.at += 1
        parent = self.open_blocks[-1] if self.open_blocks else -1
        if kind in ("END", "ENDSITE"):
            self.open_blocks.append(-1)
            return
        if (kind == "ROOT") != (not self.joints) or (kind == "JOINT" and parent < 0) or not name:
            raise ValueError(f"{kind} {' '.join(name)} at this place")
        self.open_blocks.append(len(self.joints))
        self.joints.append(_Joint(_NAMESPACE.sub("", " ".join(name)), parent))

    def _read_offset(self) -> None:
        offset = [float(value) for value in self._take(3)]
        if self.open_blocks[-1] >= 0:
            self.joints[self.open_blocks[-1]].offset = offset

    def _read_channels(self) -> None:
        channels = [c[0].upper() + c[1:].lower() for c in self._take(int(self._take(1)[0]))]
        if not _CHANNELS.issuperset(channels):
            raise ValueError("channels are miscounted or unknown")
        self.joints[self.open_blocks[-1]].channels = channels


def _read_hierarchy(path: str | Path, lines: list[str]) -> list[_Joint]:
    hierarchy = _Hierarchy(lines)
    joints = hierarchy.joints
    while hierarchy.at < len(hierarchy.words):
        word, number = hierarchy.words[hierarchy.at]
        hierarchy.at += 1
        try:
            hierarchy.read_part(word.upper())
        except (ValueError, IndexError) as error:
            line = lines[number - 1].strip()[:60]
            raise ValueError(f"{path}, line {number}: '{line}' cannot be read ({error}).") from error
    if hierarchy.open_blocks or not joints:
        raise ValueError(
            f"{path} is no whole BVH file: its hierarchy {'ends within a joint' if joints else 'is empty'}."
        )
    names = [joint.name for joint in joints]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has several joints named {', '.join(twice)}; rename them.")
    return joints


def _read_motion(
    path: str | Path, lines: list[str], start: int, channels: list[str]
) -> tuple[Float[Tensor, "frames channels"], float]:
    """Values of the rows below MOTION, and frames per second."""
    filled = [(number, line) for number, line in enumerate(lines[start + 1 :], start + 2) if line.strip()]
    header = next((m for n in (2, 1) if (m := _HEADER.fullmatch(" ".join(line for _, line in filled[:n])))), None)
    if header is None:
        raise ValueError(f"{path}, line {start + 2}: 'Frames: N' and 'Frame Time: SECONDS' have to follow MOTION.")
    frames, frame_time = int(header["frames"]), float(header["seconds"])
    if not 1e-4 < frame_time < 10:
        raise ValueError(
            f"{path}, line {filled[1][0]}: a frame time of {frame_time:g} s is not one: "
            "write the seconds from frame to frame, such as 0.033333."
        )
    filled = filled[1 if _HEADER.fullmatch(filled[0][1]) else 2 :]
    rows = [line.split() for _, line in filled]
    for (number, _), row in zip(filled, rows, strict=True):
        if len(row) != len(channels):
            raise ValueError(
                f"{path}, line {number}: {len(row)} values for {len(channels)} channels; the file is truncated or "
                "broken."
            )
    # Some exporters (Rokoko's among them) count frames from 0 and announce one too few; they are read in full.
    if len(rows) not in (frames, frames + 1) or not rows:
        raise ValueError(f"{path} announces {frames} frames and holds {len(rows)}; it is truncated or broken.")
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: a row of the motion holds what is no number ({error}).") from error
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{path}, line {filled[row][0]}: {channels[column]} is {values[row, column]}, not a finite number."
        )
    return torch.from_numpy(values), _rate(header["seconds"])


def _rate(seconds: str) -> float:
    """Frames per second; the whole number of which this frame time is a rounded or a cut-off form, if there is one."""
    fps, decimals = 1 / float(seconds), seconds.partition(".")[2]
    unit = 10.0 ** -len(decimals) if decimals.isdigit() else 0.0
    low, high = 1 / (float(seconds) + unit), 1 / (float(seconds) - unit / 2)
    if ceil(low) == floor(high):
        return float(floor(high))
    return float(round(fps)) if abs(fps - round(fps)) < 2e-4 * fps else fps


def write_bvh(motion: Motion, path: Path) -> None:
    """Writes a BVH: y up, centimeters, floor at y = 0; joints are named as in :data:`~motion_grpo.body.JOINT_NAMES`.

    The skeleton has the bones of the motion's own body and stands in SMPL's T-pose, facing +z, where every channel is
    zero. The root has a position and a rotation, every other joint a rotation. Hands that are not known are left out.
    """
    poses = to_y_up(motion)
    count = motion.num_known_joints
    rest = motion.body.rest_joints(motion.betas)
    # Channels stand in the order of the blocks: every joint before its limb, limb after limb.
    local = poses.local_rotmats[:, _below(0, count)]
    angles = torch.as_tensor(roma.rotmat_to_euler("ZYX", local, degrees=True))
    channels = torch.cat([UNITS_PER_METRE * poses.root_positions, angles.flatten(1)], dim=1)
    lines = ["HIERARCHY", *_block(0, count, rest), "MOTION", f"Frames: {len(motion)}"]
    lines += [f"Frame Time: {1 / motion.fps:.8f}"]
    lines += [" ".join(f"{value:.5f}" for value in row) for row in channels.tolist()]
    write_text(path, "\n".join([*lines, ""]))


def _block(joint: int, count: int, rest: Float[Tensor, "52 3"]) -> list[str]:
    """The block of a joint and of all below it."""
    # The root's position channels replace its OFFSET in some programs and are added to it in others: a zero suits both.
    offset = rest[joint] - rest[PARENTS[joint]] if joint else torch.zeros(3)
    children = _children(joint, count)
    inside = [_offset(offset), f"CHANNELS {3 if joint else 6} {_ROTATION if joint else f'{_POSITION} {_ROTATION}'}"]
    for child in children:
        inside += _block(child, count, rest)
    if not children:
        inside += ["End Site", "{", f"  {_offset(_end(joint, rest))}", "}"]
    return [f"{'JOINT' if joint else 'ROOT'} {JOINT_NAMES[joint]}", "{", *(f"  {line}" for line in inside), "}"]


def _children(joint: int, count: int) -> list[int]:
    return [child for child in range(joint + 1, count) if PARENTS[child] == joint]


def _below(joint: int, count: int) -> list[int]:
    """A joint and all below it, in the order of their blocks."""
    return [joint, *(other for child in _children(joint, count) for other in _below(child, count))]


def _end(joint: int, rest: Float[Tensor, "52 3"]) -> Float[Tensor, "3"]:
    """From the last joint of a limb to its end, meters: some programs drop bones without length."""
    if joint == HEAD:
        return torch.tensor([0.0, _CROWN, 0.0])
    if joint in _MIDDLE_FINGERS:
        return rest[_MIDDLE_FINGERS[joint]] - rest[joint]
    bone = rest[joint] - rest[PARENTS[joint]]
    if joint < NUM_BODY_AND_ROOT:  # a toe base, whose bone comes down from the ankle
        bone = bone * torch.tensor([0.0, 0.0, 1.0])
    return _TIP * bone


def _offset(meters: Float[Tensor, "3"]) -> str:
    return f"OFFSET {' '.join(f'{value:.6f}' for value in (UNITS_PER_METRE * meters).tolist())}"
