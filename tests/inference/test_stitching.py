"""Windows, their weights, and the blend of them, held against a loop over single frames."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_grpo.conditioning import HeadPoses
from motion_grpo.inference.stitching import StitchedDenoiser, blend_weights, window_starts
from motion_grpo.models import EgoMotionDenoiser
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


def blended_by_hand(sample, cond, window, overlap):
    """Frame by frame: every window that holds it, weighted by EgoAllo's trapezoid."""
    samples, n, _ = sample.shape
    result = torch.zeros_like(sample)
    for row in range(samples):
        for frame in range(n):
            total, weights = torch.zeros(sample.shape[-1]), 0.0
            for start in range(0, n, window - overlap):
                i = frame - start
                if not 0 <= i < window:
                    continue
                weight = min(overlap, i + 1, n - i) / overlap
                total += weight * (sample[row, frame] + cond[frame, :3] * (i + 1))
                weights += weight
            result[row, frame] = total / weights
    return result


def test_starts_by_hand():
    assert window_starts(96, 128, 32) == [0]
    assert window_starts(97, 128, 32) == [0, 96]
    assert window_starts(161, 128, 32) == [0, 96]
    assert window_starts(300, 128, 32) == [0, 96, 192, 288]


def test_weights_by_hand():
    assert blend_weights(8, 3).tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 2 / 3, 1 / 3])
    assert blend_weights(3, 32).tolist() == pytest.approx([1 / 32, 2 / 32, 1 / 32])


@pytest.mark.parametrize("frames", [1, 5, 7, 8, 9, 20, 23])
@pytest.mark.parametrize(("window", "overlap"), [(8, 3), (8, 1), (8, 7)])
def test_blend_equals_the_loop(frames, window, overlap):
    cond, sample = torch.randn(frames, 154), torch.randn(2, frames, 3)
    network = StitchedDenoiser(Stub(place_in_window), cond, window=window, overlap=overlap)
    torch.testing.assert_close(network(sample, 5), blended_by_hand(sample, cond, window, overlap))


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
    windows = len(range(0, frames, window - overlap))
    assert sum(shape[0] for shape, _, _ in stub.calls) == windows * samples


def test_a_power_of_two_overlap_returns_a_constant_to_the_last_bit():
    stub = Stub(lambda sample, cond: torch.full_like(sample, -0.75))
    out = StitchedDenoiser(stub, torch.zeros(289, 154))(torch.randn(1, 289, 2), 1)
    assert out.eq(-0.75).all()


@pytest.mark.parametrize(
    ("samples", "rows", "batches"),
    # 10 full windows of 8 every 4 frames in 44 frames, then a short one.
    [(1, 32, 2), (1, 4, 4), (3, 6, 6), (1, 1, 11), (5, 2, 33), (2, 20, 2), (2, 19, 3)],
)
def test_number_of_batches_by_hand(samples, rows, batches):
    network = StitchedDenoiser(Stub(place_in_window), torch.zeros(44, 154), window=8, overlap=4, window_batch_size=rows)
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
    assert stub.encoder_calls == [(3, 8), (1, 2)]  # windows at 0, 6 and 12 of 8 frames, and at 18 of 2


def test_an_encoder_that_sees_the_noise_is_left_to_the_network():
    stub = Stub(place_in_window)
    StitchedDenoiser(stub, torch.randn(20, 154), window=8, overlap=2)(torch.randn(1, 20, 3), 4)
    assert stub.encoder_calls == []
