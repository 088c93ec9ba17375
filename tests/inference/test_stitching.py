"""Windows, their weights, and the blend of them, held against a loop over single frames."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_grpo.inference.stitching import (
    StitchedDenoiser,
    crossfade_weights,
    egoallo_weights,
    egoallo_window_starts,
    window_starts,
)
from motion_grpo.models import EgoMotionDenoiser
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import head_poses, tiny_denoiser


class Stub(EgoMotionDenoiser):
    """Stands in for the network and keeps a record of how it is called."""

    def __init__(self, answer, **config):
        super().__init__(d_latent=4, d_feedforward=4, d_noise_emb=4, num_heads=1, **config)
        self.answer, self.calls, self.encoder_calls = answer, [], []

    def forward(self, sample, timestep, cond, mask=None, encoded=None, return_dict=True):
        self.calls.append((tuple(sample.shape[:2]), timestep.tolist(), mask))
        return (self.answer(sample, cond),)

    def encode(self, cond, noise_level=None, mask=None):
        self.encoder_calls.append(tuple(cond.shape[:2]))
        return cond[:, :, :4]


def place_in_window(sample, cond):
    """An answer that depends on the row, the frame, the condition and the place in the window."""
    return sample + cond[..., :3] * torch.arange(1.0, sample.shape[1] + 1)[:, None]


def blended_by_hand(sample, cond, window, starts, weight):
    """Frame by frame: every window that holds it, by its weight there."""
    samples, n, _ = sample.shape
    result = torch.zeros_like(sample)
    for row in range(samples):
        for frame in range(n):
            total, weights = torch.zeros(sample.shape[-1]), 0.0
            for start in starts:
                i = frame - start
                if not 0 <= i < window:
                    continue
                total += weight(start, i) * (sample[row, frame] + cond[frame, :3] * (i + 1))
                weights += weight(start, i)
            result[row, frame] = total / weights
    return result


def test_starts_by_hand():
    assert window_starts(1, 128, 32) == window_starts(97, 128, 32) == window_starts(128, 128, 32) == [0]
    assert window_starts(129, 128, 32) == [0, 1]
    assert window_starts(224, 128, 32) == [0, 96]
    assert window_starts(300, 128, 32) == [0, 86, 172]
    assert window_starts(321, 128, 32) == [0, 64, 129, 193]


@given(st.integers(2, 2000), st.sampled_from([16, 64, 128]), st.integers(1, 15))
def test_windows_are_full_and_share_the_overlap_and_none_is_superfluous(frames, window, overlap):
    starts = window_starts(frames, window, overlap)
    assert starts[0] == 0
    assert starts[-1] + window >= frames
    steps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(0 < step <= window - overlap for step in steps)
    if len(starts) > 1:
        assert starts[-1] + window == frames
        assert (len(starts) - 1) * (window - overlap) + overlap < frames  # one window less would not do


def test_egoallos_starts_by_hand():
    assert egoallo_window_starts(96, 128, 32) == [0]
    assert egoallo_window_starts(97, 128, 32) == [0, 96]
    assert egoallo_window_starts(161, 128, 32) == [0, 96]
    assert egoallo_window_starts(300, 128, 32) == [0, 96, 192, 288]


def test_weights_by_hand():
    assert egoallo_weights(8, 3).tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 2 / 3, 1 / 3])
    assert egoallo_weights(3, 32).tolist() == pytest.approx([1 / 32, 2 / 32, 1 / 32])
    assert crossfade_weights(5, first=False, last=False).tolist() == [1, 2, 3, 2, 1]
    assert crossfade_weights(4, first=True, last=False).tolist() == [4, 3, 2, 1]
    assert crossfade_weights(4, first=False, last=True).tolist() == [1, 2, 3, 4]
    assert crossfade_weights(2, first=True, last=True).tolist() == [2, 2]


@pytest.mark.parametrize("frames", [1, 5, 7, 8, 9, 20, 23])
@pytest.mark.parametrize(("window", "overlap"), [(8, 3), (8, 1), (8, 7)])
def test_blend_equals_the_loop(frames, window, overlap):
    cond, sample = torch.randn(frames, 154), torch.randn(2, frames, 3)
    network = StitchedDenoiser(Stub(place_in_window), cond, window=window, overlap=overlap)

    def weight(start, place):
        up = window if start == 0 else place + 1
        down = window if start + window >= frames else window - place
        return min(up, down)

    expected = blended_by_hand(sample, cond, window, window_starts(frames, window, overlap), weight)
    torch.testing.assert_close(network(sample, 5), expected)


@pytest.mark.parametrize("frames", [1, 5, 7, 8, 9, 20, 23])
@pytest.mark.parametrize(("window", "overlap"), [(8, 3), (8, 1), (8, 7)])
def test_egoallos_blend_equals_the_loop(frames, window, overlap):
    """The trapezoid falls at the recording's end, not at a window's."""
    cond, sample = torch.randn(frames, 154), torch.randn(2, frames, 3)
    network = StitchedDenoiser(Stub(place_in_window), cond, window=window, overlap=overlap, stitching="egoallo")
    starts = range(0, frames, window - overlap)

    def weight(_, place):
        return min(overlap, place + 1, frames - place) / overlap

    expected = blended_by_hand(sample, cond, window, starts, weight)
    torch.testing.assert_close(network(sample, 5), expected)


@pytest.mark.parametrize("frames", [129, 200, 300, 321, 1000])
def test_no_window_comes_or_goes_with_a_jump(frames):
    """Windows that disagree by 1 throughout: the blend moves by a thirtieth of that a frame at most."""
    numbers = itertools.count()
    stub = Stub(lambda sample, cond: torch.stack([torch.full_like(x, float(next(numbers) % 2)) for x in sample]))
    out = StitchedDenoiser(stub, torch.zeros(frames, 154))(torch.randn(1, frames, 2), 7)
    assert out[0, 0, 0] == 0
    assert out.amax() > 0.9
    assert out.diff(dim=1).abs().max() < 1 / 30


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_length_is_covered_and_a_constant_comes_back(data):
    frames = data.draw(st.integers(1, 300), "frames")
    window = data.draw(st.sampled_from([4, 16, 128]), "window")
    overlap = data.draw(st.integers(1, window - 1), "overlap")
    samples, rows = data.draw(st.integers(1, 5), "samples"), data.draw(st.integers(1, 12), "rows at once")
    stub = Stub(lambda sample, cond: torch.full_like(sample, 3.0))
    network = StitchedDenoiser(stub, torch.zeros(frames, 154), window=window, overlap=overlap, window_batch_size=rows)
    seen = torch.zeros(frames, dtype=torch.bool)
    for start in network.starts:
        seen[start : start + window] = True
    assert seen.all()
    ticks = []
    out = network(torch.randn(samples, frames, 2), 7, on_batch=lambda: ticks.append(1))
    torch.testing.assert_close(out, torch.full((samples, frames, 2), 3.0), rtol=5e-6, atol=0)
    assert len(ticks) == len(stub.calls) == network.num_batches(samples)
    assert all(shape[0] <= rows and shape[1] <= min(window, frames) for shape, _, _ in stub.calls)
    assert all(mask is None and levels == [7] * shape[0] for shape, levels, mask in stub.calls)
    assert sum(shape[0] for shape, _, _ in stub.calls) == len(network.starts) * samples


def test_a_power_of_two_overlap_returns_a_constant_to_the_last_bit():
    stub = Stub(lambda sample, cond: torch.full_like(sample, -0.75))
    out = StitchedDenoiser(stub, torch.zeros(289, 154), stitching="egoallo")(torch.randn(1, 289, 2), 1)
    assert out.eq(-0.75).all()


@pytest.mark.parametrize(
    ("samples", "rows", "batches"),
    # EgoAllo's: 10 full windows of 8 every 4 frames in 44 frames, then a short one.
    [(1, 32, 2), (1, 4, 4), (3, 6, 6), (1, 1, 11), (5, 2, 33), (2, 20, 2), (2, 19, 3)],
)
def test_number_of_batches_by_hand(samples, rows, batches):
    network = StitchedDenoiser(
        Stub(place_in_window), torch.zeros(44, 154), window=8, overlap=4, stitching="egoallo", window_batch_size=rows
    )
    assert network.num_batches(samples) == batches


@pytest.mark.parametrize("noise_in_encoder", [True, False])
def test_result_does_not_depend_on_the_batching(noise_in_encoder):
    denoiser = tiny_denoiser(noise_in_encoder=noise_in_encoder)
    poses = head_poses(60)
    cond = denoiser.condition(HeadPoses.from_world(poses[:, :3, :3], poses[:, :3, 3]))
    sample = torch.randn(3, 60, 226)
    with torch.no_grad():
        whole, *others = (
            StitchedDenoiser(denoiser, cond, window=16, overlap=4, window_batch_size=rows)(sample, 700)
            for rows in (64, 1, 2, 5)
        )
        alone = StitchedDenoiser(denoiser, cond, window=16, overlap=4)(sample[1:2], 700)
    for other in others:
        torch.testing.assert_close(other, whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone, whole[1:2], rtol=0, atol=1e-5)


def test_an_encoder_that_does_not_see_the_noise_runs_once_a_window():
    stub = Stub(place_in_window, noise_conditioning="film", noise_in_encoder=False)
    network = StitchedDenoiser(stub, torch.randn(20, 154), window=8, overlap=2)
    for level in (9, 5, 1):
        network(torch.randn(2, 20, 3), level)
    assert stub.encoder_calls == [(3, 8)]  # windows of 8 frames at 0, 6 and 12


def test_an_encoder_that_sees_the_noise_is_left_to_the_network():
    stub = Stub(place_in_window)
    StitchedDenoiser(stub, torch.randn(20, 154), window=8, overlap=2)(torch.randn(1, 20, 3), 4)
    assert stub.encoder_calls == []
