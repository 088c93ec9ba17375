"""Values at other times than those they were sampled at: one rule for heads, wrists, recordings and source files."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from motion_grpo.geometry.rotations import interpolate_rotations


class Between(NamedTuple):
    """Where times lie among samples: ``weight`` of the way from sample ``left`` to the one after it."""

    left: Int[Tensor, " times"]
    weight: Float64[Tensor, " times"]

    @staticmethod
    def of(samples: Float64[Tensor, " samples"], times: Float64[Tensor, " times"]) -> "Between":
        """Finds each time, in seconds, among two or more increasing ones; outside of them it goes on in a line."""
        left = (torch.searchsorted(samples, times, right=True) - 1).clamp(0, len(samples) - 2)
        return Between(left, (times - samples[left]) / (samples[left + 1] - samples[left]))

    def rotations(self, R: Float[Tensor, "samples *batch 3 3"]) -> Float[Tensor, "times *batch 3 3"]:
        """Spherical interpolation."""
        weight = self.weight.to(R.dtype).view(-1, *[1] * (R.ndim - 3))
        return interpolate_rotations(R[self.left], R[self.left + 1], weight)

    def points(self, p: Float[Tensor, " samples *batch"]) -> Float[Tensor, " times *batch"]:
        """Linear interpolation."""
        return torch.lerp(p[self.left], p[self.left + 1], self.weight.to(p.dtype).view(-1, *[1] * (p.ndim - 1)))
