"""Poses as trackers send them, brought to an even rate."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from motion_grpo.geometry.resampling import Between
from motion_grpo.motion import FPS
from motion_grpo.streaming.frames import FrameClock
from tests.tiny import head_poses


def pushed(clock: FrameClock, poses: torch.Tensor, times: list[float]) -> list:
    return [frame for T, t in zip(poses, times, strict=True) for frame in clock.push(T, t)[0]]


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1), rate=st.floats(12.0, 400.0))
def test_frames_are_those_of_a_recording_resampled_at_once(seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.2, 1.8, 25)) / rate
    poses = head_poses(25, fps=rate).double()
    frames = pushed(FrameClock(), poses, times.tolist())
    assert [frame.timestamp - times[0] for frame in frames] == pytest.approx([k / FPS for k in range(len(frames))])
    assert len(frames) == math.floor((times[-1] - times[0] + 1e-3) * FPS) + 1
    at = torch.tensor([frame.timestamp for frame in frames], dtype=torch.float64)
    between = Between.of(torch.from_numpy(times), at)
    # A frame that is due within a millisecond of a pose goes on from the poses before it.
    p, R = between.points(poses[:, :3, 3]), between.rotations(poses[:, :3, :3])
    assert_close(torch.stack([frame.p_world_cpf for frame in frames]), p, rtol=0, atol=3e-3)
    assert_close(torch.stack([frame.R_world_cpf for frame in frames]), R, rtol=0, atol=3e-3)


def test_2_khz_and_1_hz() -> None:
    fast = pushed(FrameClock(), head_poses(1000, fps=2000.0), [i / 2000 for i in range(1000)])
    assert len(fast) == 16
    slow = pushed(FrameClock(), head_poses(2, fps=1.0), [0.0, 1.0])
    assert len(slow) == 31


def test_late_repeated_and_broken_poses_are_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    poses = head_poses(10).double()
    clock = FrameClock()
    times = [i / FPS for i in range(10)]
    clean = pushed(FrameClock(), poses, times)
    nan, skewed, mirrored = poses[5].clone(), poses[5].clone(), poses[5].clone()
    nan[0, 3] = torch.nan
    skewed[:3, :3] *= 2
    mirrored[:3, 0] *= -1
    frames = pushed(clock, poses[:5], times[:5])
    with caplog.at_level(logging.WARNING):
        for bad, t in [(poses[4], times[4]), (poses[2], times[2]), (nan, 0.2), (skewed, 0.2), (mirrored, 0.2)]:
            assert clock.push(bad, t) == ([], False)
        assert clock.push(poses[5], math.nan) == ([], False)
    frames += pushed(clock, poses[5:], times[5:])
    assert clock.left_out == 6
    assert len(caplog.messages) == 1  # the first; the tenth would be the next
    assert caplog.messages[0].startswith("Left out, 1 by now: the pose of 0.133 s came after that of 0.133 s")
    assert_close(torch.stack([f.p_world_cpf for f in frames]), torch.stack([f.p_world_cpf for f in clean]))


@pytest.mark.parametrize(
    ("shift", "time", "reason"),
    [
        (5.0, 5 / FPS, "the head jumped"),
        (0.0, 9.0, "no pose came for 8.9 s"),
        (0.0, -50.0, "the clock was set back by 50.1 s"),
    ],
)
def test_what_does_not_belong_together_starts_anew(
    shift: float, time: float, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    poses = head_poses(6).double()
    clock = FrameClock()
    pushed(clock, poses[:5], [i / FPS for i in range(5)])
    poses[5, 0, 3] += shift
    with caplog.at_level(logging.WARNING):
        frames, anew = clock.push(poses[5], time)
    assert anew
    assert clock.restarts == 1
    assert [frame.timestamp for frame in frames] == [time]
    assert reason in caplog.text


def test_a_wrist_counts_where_both_neighbors_saw_it() -> None:
    clock, poses = FrameClock(), head_poses(3, fps=15.0)
    wrist = torch.eye(4)
    clock.push(poses[0], 0.0, (wrist, None))
    frames, _ = clock.push(poses[1], 1 / 15, (wrist, wrist))
    assert [frame.visible.tolist() for frame in frames] == [[True, False]] * 2
    broken = wrist * torch.nan
    frames, _ = clock.push(poses[2], 2 / 15, (broken, wrist))
    assert [frame.visible.tolist() for frame in frames] == [[False, True]] * 2
    assert clock.left_out == 1


def test_a_pose_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"A pose must be \(4, 4\) or \(7,\).*got the shape \(3,\)"):
        FrameClock().push([1.0, 2.0, 3.0], 0.0)
