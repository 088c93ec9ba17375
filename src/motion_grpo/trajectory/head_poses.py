"""Poses of the central pupil frame over time, as every part of the library takes them."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motion_grpo.geometry.rotations import wxyz_to_matrix


class HeadPoses(NamedTuple):
    """Poses of the central pupil frame (CPF) in a z-up world whose floor lies at z = 0, and the step to each."""

    R_world_cpf: Float[Tensor, "*batch frames 3 3"]
    p_world_cpf: Float[Tensor, "*batch frames 3"]
    """Meters."""
    R_prev_cpf: Float[Tensor, "*batch frames 3 3"]
    """R_cpf(t-1)_cpf(t)."""
    p_prev_cpf: Float[Tensor, "*batch frames 3"]
    """Position of CPF(t) in CPF(t-1), meters."""

    def rows(self, rows: int | slice | list[int] | Tensor) -> "HeadPoses":
        """Some entries of the first batch axis."""
        return HeadPoses(*(x[rows] for x in self))

    @staticmethod
    def from_world(
        R_world_cpf: Float[Tensor, "*batch frames 3 3"], p_world_cpf: Float[Tensor, "*batch frames 3"]
    ) -> "HeadPoses":
        """Adds the steps; the first frame, which has no predecessor, repeats the second one's (constant velocity).

        Needs two frames or more.
        """
        R_prev, R_next = R_world_cpf[..., :-1, :, :], R_world_cpf[..., 1:, :, :]
        R_step = R_prev.mT @ R_next
        p_step = (R_prev.mT @ (p_world_cpf[..., 1:, :] - p_world_cpf[..., :-1, :])[..., None]).squeeze(-1)
        return HeadPoses(
            R_world_cpf,
            p_world_cpf,
            torch.cat([R_step[..., :1, :, :], R_step], dim=-3),
            torch.cat([p_step[..., :1, :], p_step], dim=-2),
        )

    @staticmethod
    def from_wxyz_xyz(
        T_world_cpf: Float[Tensor, "*batch frames 7"], T_prev_cpf: Float[Tensor, "*batch frames 7"]
    ) -> "HeadPoses":
        """From transforms stored as quaternion (wxyz) and translation."""
        return HeadPoses(
            wxyz_to_matrix(T_world_cpf[..., :4]),
            T_world_cpf[..., 4:],
            wxyz_to_matrix(T_prev_cpf[..., :4]),
            T_prev_cpf[..., 4:],
        )

    def without_previous(self, starts: Bool[Tensor, "*batch"]) -> "HeadPoses":
        """Rows that start with their first frame: it repeats the second one's step, as in :meth:`from_world`."""
        _, _, R_step, p_step = (x.clone() for x in self)
        R_step[starts, 0], p_step[starts, 0] = R_step[starts, 1], p_step[starts, 1]
        return self._replace(R_prev_cpf=R_step, p_prev_cpf=p_step)

    def window(self, start: int, stop: int) -> "HeadPoses":
        """Frames [start, stop)."""
        R, p, dR, dp = self
        return HeadPoses(
            R[..., start:stop, :, :], p[..., start:stop, :], dR[..., start:stop, :, :], dp[..., start:stop, :]
        )
