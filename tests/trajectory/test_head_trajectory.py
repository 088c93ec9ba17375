"""The trajectory itself: construction, checks, resampling, gaps."""

import warnings

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_grpo.timing import frame_rate
from motion_grpo.trajectory import HeadTrajectory
from tests.trajectory.helpers import FPS, in_axes, walk, wxyz_xyz


def angle(R: torch.Tensor, S: torch.Tensor) -> float:
    """Largest angle between two sequences of rotations, radians (accurate near 0, where arccos is not)."""
    return (2 * torch.arcsin((R - S).double().norm(dim=(-2, -1)).clamp(max=8**0.5) / 8**0.5)).max().item()


def test_matrices_quaternions_and_rotations_give_the_same_trajectory():
    poses, times = walk()
    a = HeadTrajectory.from_matrices(poses, timestamps=times)
    b = HeadTrajectory.from_wxyz_xyz(torch.from_numpy(wxyz_xyz(poses)), fps=FPS)
    c = HeadTrajectory.from_rotations(poses[:, :3, :3], poses[:, :3, 3], timestamps=times.tolist(), floor_height=0)
    torch.testing.assert_close(a.R_world_cpf, torch.from_numpy(poses[:, :3, :3]).float())
    torch.testing.assert_close(a.p_world_cpf, torch.from_numpy(poses[:, :3, 3]).float())
    for other in (b, c):
        torch.testing.assert_close(a.R_world_cpf, other.R_world_cpf, atol=1e-6, rtol=0)
        torch.testing.assert_close(a.p_world_cpf, other.p_world_cpf)
    assert (len(a), a.source, a.source_frame) == (60, "array", "cpf")
    assert a.fps == pytest.approx(FPS)
    assert a.duration == pytest.approx(59 / FPS)
    assert b.timestamps[0] == 0
    assert (c.floor_height, c.floor_source) == (0.0, "given")
    assert a.timestamps.dtype == torch.float64


def test_T_world_cpf_is_w_first_and_rebuilds_the_trajectory():
    poses, times = walk()
    trajectory = HeadTrajectory.from_matrices(poses, timestamps=times)
    again = HeadTrajectory.from_wxyz_xyz(trajectory.T_world_cpf, timestamps=times)
    assert angle(again.R_world_cpf, trajectory.R_world_cpf) < 1e-6
    # Heading 0, level: forward is +x, so the rotation is a third of a turn about (1, 1, 1).
    torch.testing.assert_close(trajectory.T_world_cpf[0].abs(), torch.tensor([0.5, 0.5, 0.5, 0.5, 2.0, 0.0, 1.6]))


def test_above_floor_moves_only_the_height():
    poses, times = walk()
    trajectory = HeadTrajectory.from_matrices(poses, timestamps=times, floor_height=0.25)
    above = trajectory.above_floor()
    torch.testing.assert_close(trajectory.p_world_cpf - above.p_world_cpf, torch.tensor([0.0, 0.0, 0.25]).expand(60, 3))
    assert above.floor_height == 0.0
    assert above.above_floor().p_world_cpf.equal(above.p_world_cpf)


def test_slice_keeps_consecutive_frames_and_refuses_strides():
    trajectory = HeadTrajectory.from_matrices(walk()[0], fps=FPS)
    piece = trajectory[10:20]
    assert len(piece) == 10
    assert piece.p_world_cpf.equal(trajectory.p_world_cpf[10:20])
    with pytest.raises(ValueError, match="resample it"):
        trajectory[::2]
    with pytest.raises(ValueError, match="at least 2"):
        trajectory[5:6]


def test_resample_interpolates_by_time_not_by_count():
    # Irregular times; the head moves 1 m/s along x and turns 1 rad/s about z, so any time's pose is known.
    times = np.array([0.0, 0.1, 0.13, 0.4, 0.41, 0.8, 1.0])
    start = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)

    def turned(t):
        return roma.rotvec_to_rotmat(torch.as_tensor(t)[:, None] * torch.tensor([0.0, 0.0, 1.0])) @ start

    positions = np.stack([times, 0 * times, 0 * times + 1.6], axis=1)
    trajectory = HeadTrajectory.from_rotations(turned(times), positions, timestamps=times)
    resampled = trajectory.resample(25)
    expected = torch.arange(26, dtype=torch.float64) / 25
    torch.testing.assert_close(resampled.timestamps, expected)
    torch.testing.assert_close(resampled.p_world_cpf[:, 0], expected.float())
    assert angle(resampled.R_world_cpf, turned(expected).float()) < 1e-6
    assert resampled.fps == pytest.approx(25)


def test_resample_keeps_the_last_frame_of_a_clock_that_rounds_down():
    # 1001 poses at a rate of 1/3 of a unit: the end is 10.000000 s only up to rounding.
    poses, _ = walk(1001)
    trajectory = HeadTrajectory.from_matrices(
        poses, timestamps=149.202610 + np.linspace(0, 10, 1001) - 1e-8 * np.linspace(0, 1, 1001)
    )
    assert len(trajectory.resample(30)) == 301


times_strategy = st.lists(st.floats(1e-4, 0.49), min_size=1, max_size=20).map(
    lambda steps: 50.0 + np.cumsum([0.0, *steps])
)


@given(times_strategy)
@settings(max_examples=30, deadline=None)
def test_resampling_at_the_original_times_is_the_identity(times):
    trajectory = HeadTrajectory.from_matrices(walk(len(times))[0], timestamps=times)
    same = trajectory.at(times)
    assert angle(same.R_world_cpf, trajectory.R_world_cpf) < 1e-6
    torch.testing.assert_close(same.p_world_cpf, trajectory.p_world_cpf, atol=1e-6, rtol=0)
    assert same.timestamps.equal(trajectory.timestamps)


@given(times_strategy, st.floats(-3.1, 3.1), st.tuples(*[st.floats(-5, 5)] * 3), st.floats(5, 120))
@settings(max_examples=30, deadline=None)
def test_resampling_commutes_with_a_rigid_change_of_world(times, heading, shift, fps):
    poses, _ = walk(len(times), turn=0.5 * len(times))  # half a turn between poses has no short way
    change = np.eye(4)
    change[:2, :2] = [[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]]
    change[:3, 3] = shift
    moved = HeadTrajectory.from_matrices(change @ poses, timestamps=times).resample(fps)
    still = HeadTrajectory.from_matrices(poses, timestamps=times).resample(fps)
    R = torch.from_numpy(change[:3, :3]).float()
    assert angle(moved.R_world_cpf, R @ still.R_world_cpf) < 3e-6
    expected = still.p_world_cpf @ R.T + torch.tensor(shift)
    torch.testing.assert_close(moved.p_world_cpf, expected, atol=1e-5, rtol=0)


def test_slerp_takes_the_short_way_whatever_the_quaternions_sign():
    poses, times = walk()
    flipped = wxyz_xyz(poses)
    flipped[1::2, :4] *= -1
    trajectory = HeadTrajectory.from_wxyz_xyz(flipped, timestamps=times).resample(60)
    reference = HeadTrajectory.from_matrices(poses, timestamps=times).resample(60)
    assert angle(trajectory.R_world_cpf, reference.R_world_cpf) < 1e-5


def test_a_gap_is_named_and_can_be_split_away():
    poses, times = walk()
    times[20:] += 0.8
    times[59:] += 2.0
    trajectory = HeadTrajectory.from_matrices(poses, timestamps=times, source="visit")
    with pytest.raises(ValueError, match=r"visit has 2 gap\(s\).*lasts 2.03 s, after frame 58 .*split_at_gaps"):
        trajectory.resample()
    pieces = trajectory.split_at_gaps()
    assert [len(piece) for piece in pieces] == [20, 39]  # the single pose after the second gap is no trajectory
    assert pieces[1].p_world_cpf.equal(trajectory.p_world_cpf[20:59])
    assert len(pieces[1].resample(30)) == 39


def test_times_in_another_unit_are_recognized():
    poses, times = walk()
    with pytest.raises(ValueError, match=r"33\.3\d* s apart.*must be in seconds"):
        HeadTrajectory.from_matrices(poses, timestamps=times * 1e3).resample()


def test_times_outside_the_recording_are_refused():
    trajectory = HeadTrajectory.from_matrices(walk()[0], fps=FPS)
    for bad in ([-0.1], [5.0], []):
        with pytest.raises(ValueError, match=r"spans 0.000 to 1.967 s"):
            trajectory.at(bad)
    with pytest.raises(ValueError, match="positive rate"):
        trajectory.resample(0)


def spoiled(frame: int, row: int, column: int, value: float) -> np.ndarray:
    poses, _ = walk()
    poses[frame, row, column] = value
    return poses


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        (spoiled(7, 0, 3, np.nan), "Frame 7 of headset has a pose that is missing, NaN or infinite"),
        (spoiled(3, 1, 1, np.inf), "Frame 3 of headset"),
        (spoiled(5, 0, 0, 3.0), "Frame 5 of headset has a 3x3 part that is no rotation"),
        (walk()[0] @ np.diag([-1.0, 1, 1, 1]), r"Frame 0 of headset has a reflection .*from_convention"),
        (walk()[0].transpose(0, 2, 1), "Frame 0 of headset has the last row .*transpose them"),
        (walk()[0][:, :3], r"\(frames, 4, 4\); headset has the shape \(60, 3, 4\)"),
        (walk()[0][0], r"headset has the shape \(4, 4\)"),
        (walk()[0][:1], "at least 2 poses.*headset has 1"),
        (walk()[0][:0], "at least 2 poses.*headset has 0"),
        (np.zeros((0, 7)), "at least 2 poses.*headset has 0"),
        ([[1.0, 2.0], [3.0]], "rectangular array"),
    ],
)  # fmt: skip
def test_bad_matrices_are_named(poses, message):
    with pytest.raises(ValueError, match=message):
        HeadTrajectory.from_matrices(poses, fps=30, source="headset")


def test_bad_quaternions_are_named():
    poses = wxyz_xyz(walk()[0])
    poses[9, :4] = 0
    with pytest.raises(ValueError, match=r"Frame 9 of array has the quaternion .* of norm 0.0000"):
        HeadTrajectory.from_wxyz_xyz(poses, fps=30)
    poses[9, 0] = np.nan
    with pytest.raises(ValueError, match="Frame 9 of array has a quaternion that is missing"):
        HeadTrajectory.from_wxyz_xyz(poses, fps=30)


def test_rounded_rotations_are_renormalized():
    poses, _ = walk()
    for rounded in (
        HeadTrajectory.from_wxyz_xyz(wxyz_xyz(poses).round(3), fps=30),
        HeadTrajectory.from_matrices(poses.round(4), fps=30),
    ):
        R = rounded.R_world_cpf
        torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-6, rtol=0)
        assert 1e-6 < angle(R, torch.from_numpy(poses[:, :3, :3]).float()) < 3e-3


def test_quaternions_with_w_last_are_recognized_once_the_head_turns():
    poses, _ = walk()
    xyzw = np.roll(wxyz_xyz(poses)[:, :4], -1, axis=1)
    with pytest.raises(ValueError, match="array look like x y z w"):
        HeadTrajectory.from_wxyz_xyz(np.concatenate([xyzw, poses[:, :3, 3]], axis=1), fps=30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[::-1], "Frame 1 of array.* runs backwards"),
        (lambda t: np.r_[t[:30], t[29:59]], "Frame 30 of array.* repeats"),
        (lambda t: t.astype(np.float32) + np.float32(1.7e9), "repeats.*float64"),
        (lambda t: np.r_[t[:30], np.nan, t[31:]], "Frame 30 of array has a timestamp that is missing"),
        (lambda t: t[:-1], r"60 poses and timestamps of shape \(59,\)"),
    ],
)
def test_bad_times_are_named(change, message):
    poses, times = walk()
    with pytest.raises(ValueError, match=message):
        HeadTrajectory.from_matrices(poses, timestamps=change(times).copy())


def test_one_of_fps_and_timestamps_is_needed():
    poses, times = walk()
    for options in ({}, {"fps": 30, "timestamps": times}):
        with pytest.raises(ValueError, match="either fps or timestamps"):
            HeadTrajectory.from_matrices(poses, **options)


def test_implausible_heads_give_a_warning():
    poses, _ = walk(turn=0.5)
    y_up = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # (x, y, z) -> (x, z, -y)
    with pytest.warns(UserWarning, match=r"looks y up.*from_convention\(poses, ..., convention='openxr'\)"):
        HeadTrajectory.from_matrices(y_up @ poses, fps=30)
    upside_down = np.diag([1.0, -1, -1, 1])
    with pytest.warns(UserWarning, match=r"not upright.*-0.9"):
        HeadTrajectory.from_matrices(upside_down @ poses, fps=30)
    poses[:, :3, 3] *= 1000
    with pytest.warns(UserWarning, match=r"1[56]\d\d\.\d\d m above the floor.*units"):
        HeadTrajectory.from_matrices(poses, fps=30, floor_height=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HeadTrajectory.from_matrices(walk()[0], fps=30, floor_height=0.0)


def test_camera_axes_in_an_array_are_not_taken_for_swapped_quaternions_alone():
    # Near a heading of 180 degrees both explain what is seen, and an array has no names that decide.
    half_turn = np.diag([-1.0, -1, 1, 1])
    given = in_axes(half_turn @ walk(turn=0.3)[0], "camera")
    with pytest.raises(ValueError, match=r"look like x y z w.*unless other axes explain it: the head's axes look"):
        HeadTrajectory.from_wxyz_xyz(wxyz_xyz(given), fps=30)
    with pytest.warns(UserWarning, match="look like a camera's .*convention='camera'"):
        HeadTrajectory.from_matrices(given, fps=30)


def test_an_estimated_floor_is_said_with_its_remedy():
    with pytest.warns(UserWarning, match=r"estimated from the head .*from_convention\(poses, ..., floor_height=...\)"):
        HeadTrajectory.from_matrices(walk()[0], fps=30)


@pytest.mark.parametrize("start", [0.0, 149.202611, 1_700_000_000.123457])
@pytest.mark.parametrize("rate", [72, 1000])
def test_a_rate_that_was_asked_for_is_that_number(start, rate):
    times = start + (np.arange(3 * rate) / rate).round(6)
    trajectory = HeadTrajectory.from_matrices(walk(3 * rate)[0], timestamps=times, floor_height=0.0)
    for fps in (30.0, 24.0, 120.0, 59.94):
        resampled = trajectory.resample(fps)
        assert resampled.fps == fps
        assert frame_rate(resampled.timestamps) == fps
        assert frame_rate(resampled.timestamps[:2]) == fps


def test_printing_takes_one_line():
    trajectory = HeadTrajectory.from_matrices(walk()[0], fps=30, floor_height=0.25, source="visit")
    assert repr(trajectory) == ("HeadTrajectory(visit: 60 poses, 1.97 s at 30 fps, floor at z = 0.250 m (given), cpf)")
    assert str(trajectory) == repr(trajectory)


def test_a_floor_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="floor_height is nan"):
        HeadTrajectory.from_matrices(walk()[0], fps=30, floor_height=float("nan"))
