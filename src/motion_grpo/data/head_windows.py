"""Windows of heads whose body nobody recorded, for post-training by rewards that need no truth."""

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

from motion_grpo.data.head_clip import row_to_trajectory
from motion_grpo.data.windows import WindowBatch, check_lengths, random_span
from motion_grpo.motion import FPS
from motion_grpo.timing import frame_rate
from motion_grpo.trajectory import HeadTrajectory

_COLUMNS = ["id", "fps", "floor_height", "T_world_cpf"]


class HeadWindows(Dataset):
    """Random windows of ``length`` frames of head trajectories, and the frame before each.

    An item holds ``R_world_cpf`` (length + 1, 3, 3) and ``p_world_cpf`` (length + 1, 3), meters above the floor, for
    the frame before the window (repeated at a trajectory's start) and those in it; ``mask`` (length,) and
    ``has_previous`` (), as in :class:`MotionWindows`. Frames beyond a trajectory's end repeat its last one.

    Args:
        trajectories: at 30 fps, or rows of :data:`~motion_grpo.data.FEATURES`, with a body or without.
        length: frames of a window; a trajectory counts once for every ``length`` frames it has.
        seed: the place of a window is a function of (seed, epoch, index).

    Raises:
        ValueError: another frame rate, nothing to cut, or a length that makes no sense.
    """

    random = True

    def __init__(
        self, trajectories: Iterable[HeadTrajectory] | datasets.Dataset, length: int = 128, *, seed: int = 0
    ) -> None:
        check_lengths(length, None)
        if isinstance(trajectories, datasets.Dataset):
            rows: Any = trajectories.select_columns(_COLUMNS).with_format("numpy")
            trajectories = map(row_to_trajectory, rows)
        self.length, self.seed, self._epoch = length, seed, 0
        self.heads = [_above_floor(trajectory) for trajectory in trajectories]
        if not self.heads:
            raise ValueError("There are no head trajectories to cut windows of; give at least one.")
        lengths = [len(positions) for _, positions in self.heads]
        starts = [(i, start) for i, count in enumerate(lengths) for start in range(0, count, length)]
        self.items = [i for i, start in starts if start + length <= max(lengths[i], length)]

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        """Other windows."""
        self._epoch = epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> WindowBatch:
        """The windows at ``indices``, gathered into a batch."""
        places = np.random.default_rng((self.seed, self._epoch)).random((len(self.items), 2))
        frames, masks, before = [], [], []
        for index in indices:
            R, p = self.heads[self.items[index]]
            start, stop = random_span(len(p), self.length, None, *places[index].tolist())
            chosen = torch.arange(start - 1, start + self.length).clamp(max(start - 1, 0), stop - 1)
            frames.append((R[chosen], p[chosen]))
            masks.append(torch.arange(self.length) < stop - start)
            before.append(start > 0)
        R, p = (torch.stack(parts) for parts in zip(*frames, strict=True))
        found = {"R_world_cpf": R, "p_world_cpf": p, "mask": torch.stack(masks), "has_previous": torch.tensor(before)}
        return WindowBatch(found)


def _above_floor(trajectory: HeadTrajectory) -> tuple[torch.Tensor, torch.Tensor]:
    rate = frame_rate(trajectory.timestamps)
    if abs(rate - FPS) > 0.5:
        raise ValueError(
            f"{trajectory.source or 'A head trajectory'} is at {rate:.4g} fps; training needs {FPS:g}: "
            "`motion-grpo data` resamples what it imports."
        )
    up = torch.tensor([0.0, 0.0, float(trajectory.floor_height)])
    return trajectory.R_world_cpf.float(), trajectory.p_world_cpf.float() - up
