"""Denoises sequences of any length with a network of fixed window: overlapping windows, blended at every step."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.models import EgoMotionDenoiser

Stitching = Literal["crossfade", "egoallo"]
"""``crossfade``: full windows, spread evenly, each faded in and out over what it shares with its neighbors.

``egoallo``: EgoAllo's, for its checkpoint and tables. A window is faded in but not out, so at its end its share falls
from half to nothing within a frame, and a recording may end with a window that lies wholly inside the one before.
"""
STITCHINGS: tuple[str, ...] = get_args(Stitching)


def window_starts(frames: int, window: int, overlap: int) -> list[int]:
    """First frames of as few windows as cover all frames and share ``overlap`` or more; one may be shorter if alone."""
    if frames <= window:
        return [0]
    last = math.ceil((frames - window) / (window - overlap))
    return [round(i * (frames - window) / last) for i in range(last + 1)]


def crossfade_weights(frames: int, *, first: bool, last: bool) -> Float[Tensor, " frames"]:
    """Weights by place in a window: up from its start and down to its end, but for those of the whole sequence.

    Two windows fade into each other over all that they share.
    """
    place = torch.arange(frames)
    ramps = [frames - place] * (not last) + [place + 1] * (not first)
    return torch.stack([torch.full_like(place, frames), *ramps]).amin(dim=0).float()


def egoallo_window_starts(frames: int, window: int, overlap: int) -> list[int]:
    """First frames of EgoAllo's windows; the last one may be shorter."""
    return list(range(0, frames, window - overlap))


def egoallo_weights(frames: int, overlap: int) -> Float[Tensor, " frames"]:
    """EgoAllo's weights by place in a window: a ramp up over the overlap, and one down at the sequence's own length."""
    place = torch.arange(frames)
    return torch.minimum(place + 1, frames - place).clamp(max=overlap) / overlap


class StitchedDenoiser:
    """The network over a whole sequence, at one noise level at a time.

    Windows are stacked into batches of at most ``window_batch_size`` rows, so memory beyond the sequence itself does
    not grow with its length. A shorter window runs on its own rather than padded: EgoAllo's weights see padding.

    Args:
        denoiser: the network.
        cond: head features of the sequence.
        window: frames of a window.
        overlap: frames that two windows share, at least.
        stitching: see :data:`Stitching`.
        window_batch_size: windows (of all samples together) denoised at once.
        cond_of: features of a window from its first frame to before its last, for features that depend on where a
            window begins; cut out of ``cond`` when None.
    """

    def __init__(
        self,
        denoiser: EgoMotionDenoiser,
        cond: Float[Tensor, "frames d_cond"],
        *,
        window: int = 128,
        overlap: int = 32,
        stitching: Stitching = "crossfade",
        window_batch_size: int = 32,
        cond_of: Callable[[int, int], Float[Tensor, "window d_cond"]] | None = None,
    ) -> None:
        self.denoiser, self.cond, self.window, self.window_batch_size = denoiser, cond, window, window_batch_size
        frames = len(cond)
        if stitching == "egoallo":
            self.starts = egoallo_window_starts(frames, window, overlap)
            weights = [egoallo_weights(frames, overlap)[: min(window, frames - start)] for start in self.starts]
        else:
            self.starts = window_starts(frames, window, overlap)
            ends = [{"first": start == 0, "last": start + window >= frames} for start in self.starts]
            weights = [crossfade_weights(min(window, frames), **end) for end in ends]
        self.weights = {start: w.to(cond.device) for start, w in zip(self.starts, weights, strict=True)}
        self.total = torch.zeros(frames, device=cond.device)
        for start, weight in self.weights.items():
            self.total[start : start + len(weight)] += weight
        stops = [min(start + window, frames) for start in self.starts]
        self.conds = {
            s: cond[s:stop] if cond_of is None else cond_of(s, stop) for s, stop in zip(self.starts, stops, strict=True)
        }
        # An encoder that does not see the noise runs once a trajectory.
        self.encoded: dict[int, Tensor] = {}
        if not denoiser.config.noise_in_encoder:
            for starts, _, _ in self._batches(1):
                codes = denoiser.encode(torch.stack([self.conds[s] for s in starts]))
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
            cond = torch.stack([self.conds[s] for s in starts]).repeat_interleave(samples, dim=0)
            encoded = None
            if self.encoded:
                encoded = torch.stack([self.encoded[s] for s in starts]).repeat_interleave(samples, dim=0)
            level = torch.full((len(x),), noise_level, device=x.device)
            x0 = self.denoiser(x, level, cond, encoded=encoded, return_dict=False)[0].float()
            for start, part in zip(starts, x0.split(samples), strict=True):
                blended[rows, start : start + length] += part * self.weights[start][:, None]
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
