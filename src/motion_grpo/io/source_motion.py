"""Motion of a skeleton as a file describes it, before it is put on a body."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.geometry.resampling import Between


@dataclass(frozen=True, eq=False)
class SourceMotion:
    """A recording on the skeleton it was made on; y up, meters, float64."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    """-1 for the root; a parent stands before its children."""
    rotmats: Float[Tensor, "frames joints 3 3"]
    """R_world_joint."""
    positions: Float[Tensor, "frames joints 3"]
    fps: float

    def __len__(self) -> int:
        return len(self.rotmats)

    def R(self, name: str) -> Float[Tensor, "frames 3 3"]:
        """R_world_joint of one joint."""
        return self.rotmats[:, self.names.index(name)]

    def p(self, name: str) -> Float[Tensor, "frames 3"]:
        """Position of one joint, meters."""
        return self.positions[:, self.names.index(name)]

    @property
    def offsets(self) -> Float[Tensor, "joints 3"]:
        """Joints in their parent's frame, meters; the root's is zero. Bones are taken not to stretch."""
        parents = list(self.parents[1:])
        bones = self.rotmats[0, parents].mT @ (self.positions[0, 1:] - self.positions[0, parents])[..., None]
        return torch.cat([torch.zeros(1, 3, dtype=bones.dtype), bones[..., 0]])

    def at_fps(self, fps: float) -> "SourceMotion":
        """Every n-th frame where that is the rate asked for, else interpolated by time (slerp and linear)."""
        ratio = self.fps / fps
        if abs(ratio - round(ratio)) < 1e-6:
            step = round(ratio)
            return replace(self, rotmats=self.rotmats[::step], positions=self.positions[::step], fps=fps)
        if len(self) == 1:
            return self
        time = torch.arange(int((len(self) - 1) / ratio + 1e-6) + 1, dtype=torch.float64) * ratio
        between = Between.of(torch.arange(len(self), dtype=torch.float64), time)
        return replace(self, rotmats=between.rotations(self.rotmats), positions=between.points(self.positions), fps=fps)
