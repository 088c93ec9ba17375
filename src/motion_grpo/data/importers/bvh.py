"""BVH (Biovision Hierarchy): a reader, and the importer of a folder of such files.

Own reader because none on PyPI copes with what is found in the wild: pybvh 0.9 refuses position channels on joints
other than the root (Bandai-Namco's files), bvhTools 1.6 fails on tabs, and bvhio 1.5 never returns from a truncated
file.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import roma
import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from motion_grpo.data.clips import Clip
from motion_grpo.data.importers.cutting import cut
from motion_grpo.data.importers.retarget import SourceMotion, retarget, t_pose_from_frame
from motion_grpo.data.importers.rigs import RIGS, Halfway, Rig, find_rig
from motion_grpo.data.importing import ClipError, Job
from motion_grpo.motion import FPS

_CHANNELS = {f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")}


@dataclass
class _Joint:
    name: str
    parent: int
    offset: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    channels: list[str] = field(default_factory=list)


def read_bvh(
    path: str | Path, *, metres_per_unit: float = 0.01, root_offset_added: bool = False, up: Literal["y", "z"] = "y"
) -> SourceMotion:
    """Reads a BVH: any order of rotations, position channels on any joint (they replace its OFFSET), tabs or blanks.

    Namespaces before a colon (``mixamorig:Hips``) are taken off the names. Frame times are often cut off: a rate within
    0.02% of a whole number is that number.

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
        to_y_up = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)
        rotmats, positions = to_y_up @ rotmats, positions @ to_y_up.mT
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
    """The file's lines and which of them says MOTION."""
    lines = Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip() == "MOTION"), None)
    if start is None:
        raise ValueError(f"{path} is no whole BVH file: it has no line MOTION.")
    return lines, start


def _read_hierarchy(path: str | Path, lines: list[str]) -> list[_Joint]:
    joints: list[_Joint] = []
    open_blocks: list[int] = []  # index of the joint, -1 for an end site
    pending = None
    for number, line in enumerate(lines, 1):
        words = line.split()
        try:
            match words:
                case [] | ["HIERARCHY"]:
                    pass
                case [("ROOT" | "JOINT"), *name] if name:
                    parent = open_blocks[-1] if open_blocks else -1
                    if (words[0] == "ROOT") != (not joints) or (words[0] == "JOINT" and parent < 0):
                        raise ValueError(f"{words[0]} {name[0]} at this place")
                    pending = len(joints)
                    joints.append(_Joint(" ".join(name).split(":")[-1], parent))
                case ["End", *_]:
                    pending = -1
                case ["{"] if pending is not None:
                    open_blocks.append(pending)
                    pending = None
                case ["}"]:
                    open_blocks.pop()
                case ["OFFSET", x, y, z]:
                    if open_blocks[-1] >= 0:
                        joints[open_blocks[-1]].offset = [float(x), float(y), float(z)]
                case ["CHANNELS", count, *channels]:
                    if int(count) != len(channels) or not _CHANNELS.issuperset(channels):
                        raise ValueError("channels are miscounted or unknown")
                    joints[open_blocks[-1]].channels = channels
                case _:
                    raise ValueError("not part of a hierarchy")
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path}, line {number}: '{line.strip()[:60]}' cannot be read ({error}).") from error
    if open_blocks or not joints:
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
    header = " ".join(lines[start + 1 : start + 3]).replace(":", ": ").split()
    match header:
        case ["Frames:", count, "Frame", "Time:", seconds]:
            frames, frame_time = int(count), float(seconds)
        case _:
            raise ValueError(f"{path}, line {start + 2}: 'Frames: N' and 'Frame Time: SECONDS' have to follow MOTION.")
    if not 1e-4 < frame_time < 10:
        raise ValueError(f"{path}, line {start + 3}: a frame time of {frame_time:g} s is not one.")
    rows, row_lines = [], []
    for number, line in enumerate(lines[start + 3 :], start + 4):
        row = line.split()
        if row and len(row) != len(channels):
            raise ValueError(
                f"{path}, line {number}: {len(row)} values for {len(channels)} channels; the file is truncated or "
                "broken."
            )
        if row:
            rows.append(row)
            row_lines.append(number)
    if len(rows) != frames or frames == 0:
        raise ValueError(f"{path} announces {frames} frames and holds {len(rows)}; it is truncated or broken.")
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: a row of the motion holds what is no number ({error}).") from error
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{path}, line {row_lines[row]}: {channels[column]} is {values[row, column]}, not a finite number."
        )
    fps = 1 / frame_time
    return torch.from_numpy(values), float(round(fps)) if abs(fps - round(fps)) < 2e-4 * fps else fps


def read_joint_map(path: str | Path) -> Rig:
    """A rig from a YAML or JSON file: one line an SMPL-H joint with the name of the source joint that drives it.

    ``neck: [Neck, Neck1]`` is driven by the rotation halfway between two. The zero pose has to be a T- or A-pose unless
    a frame with one is named at import.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a map of joint names.
    """
    content = yaml.safe_load(Path(path).read_text())
    joints = {}
    for joint, driver in content.items() if isinstance(content, dict) else ():
        joints[joint] = Halfway(*driver) if isinstance(driver, list) and len(driver) == 2 else driver
    unknown = sorted(set(map(str, joints)) - {joint for joint in RIGS["lafan1"].joints})
    if not joints or unknown or not all(isinstance(d, str | Halfway) for d in joints.values()):
        raise ValueError(
            f"{path} is no joint map: it needs lines like 'L_hip: LeftUpLeg' for {', '.join(RIGS['lafan1'].joints)}"
            f"{'; it has ' + ', '.join(unknown) if unknown else ''}."
        )
    return Rig(name=Path(path).name, joints=joints)


@dataclass(frozen=True)
class BvhImporter:
    """Every ``*.bvh`` below a folder."""

    folder: Path
    rig: str = "auto"
    """A name of :data:`RIGS`, a YAML file with a joint map, or ``auto``: by the joints' names."""
    stature: float | None = None
    """Of the actor, metres; None: the rig's, or estimated from the skeleton."""
    metres_per_unit: float | None = None
    """None: the rig's."""
    up: Literal["y", "z"] = "y"
    t_pose_frame: int | None = None
    """Frame in which the actor stands in a T-pose; None: as the rig has it."""
    min_seconds: float = 2.0
    """Shorter pieces are dropped."""
    split: str = "train"
    license: str = ""
    name: str = "bvh"

    def jobs(self) -> list[Job]:
        """One a file, by path.

        Raises:
            FileNotFoundError: no such folder, or no BVH in it.
            ValueError: no such rig.
        """
        files = sorted(p for p in Path(self.folder).rglob("*") if p.suffix.lower() == ".bvh")
        if not files:
            raise FileNotFoundError(f"{self.folder} holds no .bvh file.")
        if self.rig not in (*RIGS, "auto"):
            read_joint_map(self.rig) if Path(self.rig).is_file() else self._no_rig()
        root = Path(self.folder)
        return [
            Job(id=f"{self.name}/{p.relative_to(root).with_suffix('').as_posix()}", path=p, split=self.split)
            for p in files
        ]

    def convert(self, job: Job) -> list[Clip]:
        """Reads, retargets and cuts one file.

        Raises:
            ClipError: nothing of ``min_seconds`` is left.
            ValueError: a broken file, or a skeleton that does not fit (lists the joints that did not map).
        """
        rig = None if self.rig == "auto" else RIGS.get(self.rig) or read_joint_map(self.rig)
        rig = rig or find_rig(joint_names(job.path))
        if self.metres_per_unit is not None:
            rig = replace(rig, metres_per_unit=self.metres_per_unit)
        source = read_bvh(
            job.path, metres_per_unit=rig.metres_per_unit, root_offset_added=rig.root_offset_added, up=self.up
        )
        if self.t_pose_frame is not None:
            rig = replace(t_pose_from_frame(source, rig, self.t_pose_frame), references={})
        return clips_of(
            job, source, rig, self.min_seconds, source_name=self.name, license=self.license, stature=self.stature
        )

    def _no_rig(self) -> None:
        raise ValueError(f"rig {self.rig} is neither a joint map's file nor one of auto, {', '.join(RIGS)}.")


def clips_of(
    job: Job,
    source: SourceMotion,
    rig: Rig,
    min_seconds: float,
    *,
    source_name: str,
    license: str,
    subject: str = "",
    stature: float | None = None,
    betas0: float | None = None,
) -> list[Clip]:
    """Retargets a recording and cuts it into clips; ids of several pieces end in ``+0``, ``+1`` and so on.

    Raises:
        ClipError: nothing of ``min_seconds`` is left.
        ValueError: as :func:`retarget`.
    """
    seconds = len(source) / source.fps
    if seconds < min_seconds:
        raise ClipError(f"shorter than {min_seconds:g} s: {seconds:.2f} s ({len(source)} frames)")
    motions = cut(retarget(source, rig, stature=stature, betas0=betas0), int(min_seconds * FPS))
    if not motions:
        raise ClipError(f"no piece of {min_seconds:g} s is left after cutting at breaks")
    return [
        Clip(
            id=job.id if len(motions) == 1 else f"{job.id}+{number}",
            source=source_name,
            motion=motion,
            subject=subject,
            split=job.split,
            license=license,
        )
        for number, motion in enumerate(motions)
    ]
