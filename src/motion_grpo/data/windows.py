"""Windows of fixed length, cut on the fly out of clips that are kept once, end to end, in memory."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from motion_grpo.data.clips import Clip


class MotionWindows(Dataset):
    """Windows of ``length`` frames and the frame before them, of clips at 30 fps.

    An item holds, for ``length + 1`` frames (the first is the one before the window, repeated at a clip's start):
    ``rotmats`` (length + 1, 22, 3, 3), R_world_root and local rotations; ``root_positions`` (length + 1, 3), metres;
    ``contacts`` (length + 1, 21); and ``betas`` (16,), ``mask`` (length,) True for frames that exist, ``has_previous`` ().

    Args:
        clips: what to cut; all are kept, clips shorter than the window are padded by repeating their last frame.
        length: frames of a window.
        random: one window at a random place per clip and call (training; a clip counts once for every ``length`` frames it
            has); else every clip is cut into windows that do not overlap (evaluation).
    """

    def __init__(self, clips: Iterable[Clip], length: int = 128, *, random: bool = True) -> None:
        motions = [clip.motion for clip in clips]
        self.length, self.random = length, random
        self.rotmats = torch.cat([torch.cat([m.root_rotmats[:, None], m.body_rotmats], 1) for m in motions])
        self.root_positions = torch.cat([m.root_positions for m in motions])
        self.contacts = torch.cat([m.contacts for m in motions])
        self.betas = torch.stack([m.betas for m in motions])
        self.lengths = [len(m) for m in motions]
        ends = torch.tensor(self.lengths).cumsum(0).tolist()
        self.offsets = [end - n for end, n in zip(ends, self.lengths, strict=True)]
        # (clip, start): the start is drawn anew at each call when random.
        self.items = [(i, start) for i, n in enumerate(self.lengths) for start in range(0, n, length)]
        if random:
            self.items = [(i, start) for i, start in self.items if start + length <= max(self.lengths[i], length)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Float[Tensor, "..."] | Bool[Tensor, "..."]]:
        clip, start = self.items[index]
        frames = self.lengths[clip]
        if self.random:
            start = int(torch.randint(max(frames - self.length, 0) + 1, ()))
        places = torch.arange(start - 1, start + self.length)
        rows = self.offsets[clip] + places.clamp(0, frames - 1)
        return {
            "rotmats": self.rotmats[rows],
            "root_positions": self.root_positions[rows],
            "contacts": self.contacts[rows],
            "betas": self.betas[clip],
            "mask": places[1:] < frames,
            "has_previous": torch.tensor(start > 0),
        }
