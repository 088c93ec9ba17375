import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from motion_grpo.training.grpo.perlin import perlin_noise, perturb_head
from motion_grpo.trajectory.head_poses import HeadPoses

few = settings(max_examples=20, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
frequencies = st.floats(0.1, 5.0)


def noise(seed: int, frames: int = 64, **settings) -> Tensor:
    return perlin_noise(frames, [torch.Generator().manual_seed(seed)], **settings)[0]


def head(seed: int, *batch: int, frames: int = 12) -> HeadPoses:
    """A head that walks and looks anywhere; its first step comes from a frame before."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*batch, *shape, generator=generator)

    R = roma.rotvec_to_rotmat(draw(1, 3) + 0.05 * draw(frames + 1, 3).cumsum(-2))
    poses = HeadPoses.from_world(R, 0.02 * draw(frames + 1, 3).cumsum(-2) + torch.tensor([1.0, -2.0, 1.6]))
    return poses.window(1, frames + 1)


def by_hand(draws: Tensor, frame: int, cells_per_frame: float) -> float:
    """Perlin (2002) in one dimension, scalar by scalar; draws are phase, then (slope + 1) / 2 of each lattice point."""
    phase, *slopes = draws.tolist()
    place = phase + frame * cells_per_frame
    cell = int(place)
    u = place - cell
    left, right = (2 * s - 1 for s in slopes[cell : cell + 2])
    fade = 6 * u**5 - 15 * u**4 + 10 * u**3
    return 2 * ((1 - fade) * left * u + fade * right * (u - 1))


def test_values_by_hand() -> None:
    drawn = torch.rand(20, generator=torch.Generator().manual_seed(3))
    expected = torch.tensor([[by_hand(drawn, frame, 2.0 / 30)] for frame in range(100)])
    assert_close(noise(3, 100, frequency=2.0, channels=1), expected, rtol=0.0, atol=1e-5)


@few
@given(seed=seeds, frequency=frequencies, octaves=st.integers(1, 4), persistence=st.floats(0.0, 1.5))
def test_amplitude_is_at_most_one(seed: int, frequency: float, octaves: int, persistence: float) -> None:
    values = noise(seed, 300, frequency=frequency, octaves=octaves, persistence=persistence)
    assert values.shape == (300, 3)
    assert float(values.abs().max()) <= 1.0


def test_amplitude_and_spread() -> None:
    values = perlin_noise(129, [torch.Generator().manual_seed(seed) for seed in range(1000)])
    assert float(values.max()) > 0.97
    assert float(values.min()) < -0.97
    # In every frame alike: the lattice has no fixed place. By integration over a cell the value is 0.2814.
    assert_close(values.std(dim=(0, 2)), torch.full((129,), 0.2814), rtol=0.0, atol=0.02)
    assert_close(values.mean(dim=(0, 2)), torch.zeros(129), rtol=0.0, atol=0.03)


@few
@given(seed=seeds, frequency=frequencies, octaves=st.integers(1, 3), frames=st.integers(1, 120))
def test_a_longer_noise_begins_with_the_shorter_one(seed: int, frequency: float, octaves: int, frames: int) -> None:
    longer = noise(seed, 128, frequency=frequency, octaves=octaves)
    assert torch.equal(noise(seed, frames, frequency=frequency, octaves=octaves), longer[:frames])


@few
@given(seed=seeds)
def test_a_row_is_its_generators_own(seed: int) -> None:
    generators = [torch.Generator().manual_seed(s) for s in (seed, seed + 1)]
    rows = perlin_noise(40, generators, octaves=2)
    assert torch.equal(rows[1], noise(seed + 1, 40, octaves=2))
    assert (rows[0] - rows[1]).abs().max() > 0.01
    again = perlin_noise(40, generators, octaves=2)
    assert not torch.equal(again, rows)  # the generators went on


def test_channels_are_independent() -> None:
    values = perlin_noise(129, [torch.Generator().manual_seed(seed) for seed in range(500)], channels=3)
    correlation = torch.corrcoef(values.flatten(0, 1).T)
    assert_close(correlation, torch.eye(3), rtol=0.0, atol=0.05)


@few
@given(seed=seeds, frequency=st.floats(0.2, 1.9))
def test_it_is_smooth_and_twice_the_rate_samples_the_same_curve(seed: int, frequency: float) -> None:
    fine = noise(seed, 257, frequency=frequency, fps=120.0)
    assert_close(noise(seed, 65, frequency=frequency, fps=30.0), fine[::4], rtol=0.0, atol=1e-4)
    # Slopes are at most 2 * 2.4 a cell: no jump, and no kink either.
    cells_per_frame = frequency / 120
    assert float(fine.diff(dim=0).abs().max()) < 5 * cells_per_frame
    assert float(fine.diff(n=2, dim=0).abs().max()) < 30 * cells_per_frame**2 + 1e-5


def test_frequency_sets_how_often_it_changes() -> None:
    def generators():
        return [torch.Generator().manual_seed(seed) for seed in range(100)]

    crossings = [
        float((values[:, 1:].sign() != values[:, :-1].sign()).float().mean()) * 30
        for values in (perlin_noise(301, generators(), frequency=f) for f in (1.0, 2.0))
    ]
    # One at every lattice point, and one within a cell where both its slopes have one sign.
    assert crossings == pytest.approx([1.5, 3.0], rel=0.05)


@pytest.mark.parametrize(
    "wrong", [{"frequency": 0.0}, {"octaves": 0}, {"persistence": -1.0}, {"fps": 0.0}, {"generators": []}]
)
def test_senseless_settings_are_errors(wrong: dict) -> None:
    settings = {"num_frames": 8, "generators": [torch.Generator()]} | wrong
    with pytest.raises(ValueError, match=f"Perlin noise needs.*{next(iter(wrong))}"):
        perlin_noise(**settings)


def test_no_scale_leaves_the_head_as_it_is() -> None:
    clean = head(0, 2)
    assert perturb_head(clean, torch.randn(2, 13, 3), 0.0) is clean


@few
@given(seed=seeds, scale=st.floats(0.01, 1.0))
def test_steps_follow_the_moved_positions(seed: int, scale: float) -> None:
    clean = head(seed, 2)
    offsets = torch.randn(2, 13, 3, generator=torch.Generator().manual_seed(seed))
    moved = perturb_head(clean, offsets, scale)
    assert torch.equal(moved.R_world_cpf, clean.R_world_cpf)
    assert torch.equal(moved.R_prev_cpf, clean.R_prev_cpf)
    assert_close(moved.p_world_cpf - clean.p_world_cpf, scale * offsets[:, 1:], rtol=0.0, atol=1e-5)
    again = HeadPoses.from_world(moved.R_world_cpf, moved.p_world_cpf)
    assert_close(moved.p_prev_cpf[:, 1:], again.p_prev_cpf[:, 1:], rtol=0.0, atol=1e-5)


@few
@given(seed=seeds)
def test_the_first_step_starts_from_the_moved_frame_before(seed: int) -> None:
    whole = head(seed, frames=13)
    offsets = torch.randn(14, 3, generator=torch.Generator().manual_seed(seed))
    part = perturb_head(whole.window(1, 13), offsets[1:], 0.1)
    assert_close(part, perturb_head(whole, offsets, 0.1).window(1, 13), rtol=0.0, atol=1e-6)


def test_one_offset_for_all_frames_changes_no_step() -> None:
    clean = head(1)
    moved = perturb_head(clean, torch.tensor([1.0, 2.0, 3.0]).expand(13, 3), 0.5)
    assert_close(moved.p_prev_cpf, clean.p_prev_cpf)
    assert_close(moved.p_world_cpf, clean.p_world_cpf + torch.tensor([0.5, 1.0, 1.5]))
