"""The importer of a folder of BVH files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.data.clips import Clip
from motion_grpo.data.importers.base import Job
from motion_grpo.data.importers.source_clips import clips_of
from motion_grpo.files import source_files
from motion_grpo.io.bvh import joint_names, read_bvh
from motion_grpo.io.source_motion import SourceMotion
from motion_grpo.io.y_up import Z_TO_Y_UP
from motion_grpo.retargeting.retarget import t_pose_from_frame, zero_pose_up
from motion_grpo.retargeting.rigs import RIGS, Rig, find_rig, read_joint_map


@dataclass(frozen=True)
class BvhImporter:
    """Every ``*.bvh`` below a folder."""

    folder: Path
    rig: str = "auto"
    """A name of :data:`RIGS`, a YAML file with a joint map, or ``auto``: by the joints' names."""
    stature: float | None = None
    """Of the actor, meters; None: the rig's, or estimated from the skeleton."""
    metres_per_unit: float | None = None
    """None: the rig's."""
    up: Literal["y", "z"] = "y"
    fps: float | None = None
    """Frames per second; None: as the file's frame time says."""
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
        files = [p for p in source_files(self.folder) if p.suffix.lower() == ".bvh"]
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
        names = joint_names(job.path)
        rig = find_rig(names) if self.rig == "auto" else RIGS.get(self.rig) or read_joint_map(self.rig)
        missing = rig.missing(rig.rename(names))
        if missing:
            raise ValueError(
                f"the skeleton does not fit rig '{rig.name}': nothing drives {', '.join(missing)}; the file's joints "
                f"are {', '.join(names)}. Name another rig or a joint map's file (--rig)."
            )
        if self.metres_per_unit is not None:
            rig = replace(rig, metres_per_unit=self.metres_per_unit)
        source = read_bvh(
            job.path, metres_per_unit=rig.metres_per_unit, root_offset_added=rig.root_offset_added, up=self.up
        )
        source = replace(source, names=tuple(rig.rename(names)), fps=self.fps or source.fps)
        up = zero_pose_up(source, rig)
        if up is not None:
            self._check_up(source, rig, up)
            rig = replace(rig, t_pose=None) if rig.folded else rig
        if self.t_pose_frame is not None:
            rig = replace(t_pose_from_frame(source, rig, self.t_pose_frame), references={})
        return clips_of(
            job, source, rig, self.min_seconds, source_name=self.name, license=self.license, stature=self.stature
        )

    def _check_up(self, source: SourceMotion, rig: Rig, zero_pose: Float[Tensor, "3"]) -> None:
        # In a file of another up axis both the zero pose and the actor stand along that axis. Who lies in a y-up file
        # has a zero pose that stands along y.
        hips = (source.p(rig.bone("L_hip")) + source.p(rig.bone("R_hip"))) / 2
        trunk = torch.nn.functional.normalize(source.p(rig.bone("head")) - hips, dim=-1).mean(0)
        trunk, up = (trunk, 1) if self.up == "y" else (Z_TO_Y_UP.mT @ trunk, 2)
        if zero_pose[up] > 0.5 or trunk @ zero_pose < max(0.7, float(trunk[up])):
            return
        axis = f"{'-' if zero_pose.min() < 0 else '+'}{'xyz'[int(zero_pose.abs().argmax())]}"
        remedy = f"give --up {axis[1]}" if axis in ("+y", "+z") else "turn it so that y or z is up (--up)"
        raise ValueError(
            f"the actor stands along the file's {axis} axis in the whole take, as in the zero pose, but {self.up} is "
            f"taken for up: {remedy}."
        )

    def _no_rig(self) -> None:
        raise ValueError(f"rig {self.rig} is neither a joint map's file nor one of auto, {', '.join(RIGS)}.")
