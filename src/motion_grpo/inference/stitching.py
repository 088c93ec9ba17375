"""Denoises sequences of any length with a network of fixed window: overlapping windows, blended at every step."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.models import EgoMotionDenoiser


def window_starts(frames: int, window: int, overlap: int) -> list[int]:
    """First frames of the windows; the last window may be shorter (EgoAllo's cutting)."""
    return list(range(0, frames, window - overlap))


def blend_weights(frames: int, overlap: int) -> Float[Tensor, "frames"]:
    """EgoAllo's weights by place in a window: a ramp up over the overlap, and one down at the sequence's own length."""
    place = torch.arange(frames)
    return torch.minimum(place + 1, frames - place).clamp(max=overlap) / overlap


class StitchedDenoiser:
    """The network over a whole sequence, at one noise level at a time.

    Windows are stacked into batches of at most ``window_batch_size`` rows, so memory beyond the sequence itself does
    not grow with its length. A shorter last window runs on its own rather than padded: EgoAllo's weights see padding.

    Args:
        denoiser: the network.
        cond: head features of the sequence.
        window: frames of a window.
        overlap: frames that two windows share.
        window_batch_size: windows (of all samples together) denoised at once.
    """

    def __init__(
        self,
        denoiser: EgoMotionDenoiser,
        cond: Float[Tensor, "frames d_cond"],
        *,
        window: int = 128,
        overlap: int = 32,
        window_batch_size: int = 32,
    ) -> None:
        self.denoiser, self.cond, self.window, self.window_batch_size = denoiser, cond, window, window_batch_size
        frames = len(cond)
        self.starts = window_starts(frames, window, overlap)
        self.weights = blend_weights(frames, overlap)[:window].to(cond.device)
        self.total = torch.zeros(frames, device=cond.device)
        for start in self.starts:
            length = min(window, frames - start)
            self.total[start : start + length] += self.weights[:length]
        # An encoder that does not see the noise runs once a trajectory.
        self.encoded: dict[int, Tensor] = {}
        if not denoiser.config.noise_in_encoder:
            for starts, _, length in self._batches(1):
                codes = denoiser.encode(self._cut(cond, starts, length))
                self.encoded |= dict(zip(starts, codes, strict=True))

    def __call__(
        self,
        sample: Float[Tensor, "samples frames d_state"],
        noise_level: int,
        on_batch: Callable[[], None] | None = None,
    ) -> Float[Tensor, "samples frames d_state"]:
        """Predicted clean state, blended over windows, float32; its rotations are not projected."""
        blended = torch.zeros_like(sample, dtype=torch.float32)
        for starts, rows, length in self._batches(len(sample)):
            x = torch.cat([sample[rows, s : s + length] for s in starts])
            samples = len(x) // len(starts)
            cond = self._cut(self.cond, starts, length).repeat_interleave(samples, dim=0)
            encoded = None
            if self.encoded:
                encoded = torch.stack([self.encoded[s] for s in starts]).repeat_interleave(samples, dim=0)
            level = torch.full((len(x),), noise_level, device=x.device)
            x0 = self.denoiser(x, level, cond, encoded=encoded, return_dict=False)[0].float()
            for start, part in zip(starts, x0.split(samples), strict=True):
                blended[rows, start : start + length] += part * self.weights[:length, None]
            if on_batch is not None:
                on_batch()
        return blended / self.total[:, None]

    def num_batches(self, samples: int) -> int:
        """Forward passes that one call takes."""
        return len(self._batches(samples))

    def _batches(self, samples: int) -> list[tuple[list[int], slice, int]]:
        """Starts of the windows of each batch, the samples in it, and the windows' length, equal within a batch."""
        size = max(1, self.window_batch_size // samples)
        frames = len(self.cond)
        full = [s for s in self.starts if s + self.window <= frames]
        batches = [(full[i : i + size], self.window) for i in range(0, len(full), size)]
        batches += [([s], frames - s) for s in self.starts if s + self.window > frames]
        rows = min(samples, self.window_batch_size)
        return [(starts, slice(i, i + rows), length) for starts, length in batches for i in range(0, samples, rows)]

    @staticmethod
    def _cut(x: Tensor, starts: list[int], length: int) -> Tensor:
        return torch.stack([x[s : s + length] for s in starts])
