"""Floor, contacts and resampling against motions whose answer is known, and DBSCAN against its definition."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from motion_grpo.body import Skeleton, forward_kinematics
from motion_grpo.data import read_mocap_pack
from motion_grpo.data.clips import ClipError
from motion_grpo.data.preprocessing import (
    Recording,
    dbscan_1d,
    floor_from_toes,
    joint_positions,
    prepare,
)
from motion_grpo.motion import label_contacts
from motion_grpo.motion.contacts import speeds
from tests.conftest import shared_path
from tests.data.importers.recordings import kicking, recording_of, standing

L_ANKLE, R_ANKLE, L_TOE, R_TOE = 6, 7, 9, 10  # body joints, without the root


def brute_force_dbscan(values: list[float], eps: float, min_samples: int) -> list[int]:
    """The textbook: clusters grow from each unvisited core point, in order of the input."""
    near = [[j for j, y in enumerate(values) if abs(x - y) <= eps] for x in values]
    labels = [-1] * len(values)
    cluster = 0
    for seed in range(len(values)):
        if labels[seed] != -1 or len(near[seed]) < min_samples:
            continue
        queue = [seed]
        while queue:
            point = queue.pop()
            if labels[point] != -1:
                continue
            labels[point] = cluster
            if len(near[point]) >= min_samples:
                queue += near[point]
        cluster += 1
    return labels


# Whole numbers, so that "exactly eps apart" happens and is exact.
@given(st.lists(st.integers(0, 60).map(float), max_size=40), st.integers(1, 6), st.integers(1, 5))
def test_dbscan_agrees_with_its_definition(values, eps, min_samples):
    expected = brute_force_dbscan(values, eps, min_samples)

    assert dbscan_1d(np.array(values, float), float(eps), min_samples).tolist() == expected


def test_a_border_point_between_two_clusters_belongs_to_the_first_found():
    two_clusters = [10.0, 11.0, 12.0, 0.0, 1.0, 2.0]

    assert dbscan_1d(np.array([*two_clusters, 6.0]), 4.0, 4).tolist() == brute_force_dbscan([*two_clusters, 6.0], 4, 4)
    assert dbscan_1d(np.array([*two_clusters, 6.0]), 4.0, 4)[-1] == 0


def floor_of(heights: list[float]) -> float | None:
    z = torch.tensor(heights)[:, None]
    return floor_from_toes(z, torch.zeros_like(z))


def test_floor_is_one_centimetre_under_the_lowest_cluster():
    assert floor_of([0.30] * 50 + [0.100, 0.101, 0.102] + [0.5] * 9) == pytest.approx(0.101 - 0.01)


def test_outliers_make_a_floor_only_where_there_is_no_cluster():
    assert floor_of([0.2, 0.2, 0.2, -0.5, -0.4]) == pytest.approx(0.19)
    assert floor_of([0.2, 0.5]) == pytest.approx(0.34)


def test_moving_toes_tell_nothing_about_the_floor():
    heights = torch.tensor([[0.1], [0.1], [0.1], [-0.3], [-0.3], [-0.3]])
    fast = torch.tensor([[0.0], [0.0], [0.5], [0.7], [0.7], [0.7]])

    assert floor_from_toes(heights, fast) == pytest.approx(0.09)
    assert floor_from_toes(heights, torch.ones(6, 1)) is None


def test_speed_is_per_second_and_looks_forward():
    points = torch.tensor([0.0, 0.0, 0.01, 0.03])[:, None, None] * torch.tensor([0.6, 0.0, 0.8])

    torch.testing.assert_close(speeds(points, 120.0), torch.tensor([[0.0], [1.2], [2.4], [2.4]]))


@pytest.mark.parametrize("joints", [22, 52])
def test_lean_kinematics_agree_with_the_librarys(joints):
    rotvecs = np.random.default_rng(0).normal(size=(7, joints, 3))
    rotvecs[0] = 0.0
    rotvecs[1, 3] = [np.pi, 0.0, 0.0]
    betas = torch.randn(16)
    recording = Recording(rotvecs, np.arange(21.0).reshape(7, 3), betas, 120.0)
    rotmats = torch.matrix_exp(_cross(torch.tensor(rotvecs[:, :22])).float())
    rest = Skeleton.default().rest_joints(betas)[:22]

    expected = forward_kinematics(rest, rotmats, torch.tensor(recording.root_positions).float()).joints

    np.testing.assert_allclose(joint_positions(recording), expected.numpy(), atol=1e-5)


def _cross(v: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros_like(v[..., 0])
    x, y, z = v.unbind(-1)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def test_the_floor_of_a_standing_body_is_where_it_was_put():
    motion = prepare(standing(5.0, 120.0, toe_height=0.37))

    assert float(motion.joints[:, 10:12, 2].mean()) == pytest.approx(0.01, abs=1e-5)
    assert motion.floor_height == 0.0
    assert motion.contacts[:, [L_ANKLE, R_ANKLE, L_TOE, R_TOE]].all()
    assert motion.contacts.sum(dim=1).unique().tolist() == [4.0]


def test_steps_and_chairs_are_above_the_floor():
    recording = standing(10.0, 60.0, toe_height=-0.2)
    recording.root_positions[240:, 2] += 0.3

    motion = prepare(recording)

    assert float(motion.joints[:30, 10:12, 2].mean()) == pytest.approx(0.01, abs=1e-5)
    assert float(motion.joints[-30:, 10:12, 2].mean()) == pytest.approx(0.31, abs=1e-5)
    assert not motion.contacts[-30:].any()


def test_the_recordings_own_floor_counts_where_no_foot_stands_still():
    recording = standing(5.0, 100.0, toe_height=0.5)
    recording.root_positions[:, 0] += np.arange(500) * 0.02  # 2 m/s

    motion = prepare(replace(recording, floor_height=0.3))

    assert float(motion.joints[:, 10:12, 2].mean()) == pytest.approx(0.2, abs=1e-5)
    assert not motion.contacts.any()


@pytest.mark.parametrize("fps", [30.0, 59.94, 60.0, 100.0, 120.0, 250.0])
def test_the_source_frame_rate_makes_no_difference(fps):
    finest = prepare(kicking(10.0, 480.0, toe_height=0.1), keep=1.0)

    motion = prepare(kicking(10.0, fps, toe_height=0.1), keep=1.0)

    assert len(motion) in (299, 300)
    torch.testing.assert_close(motion.timestamps, torch.arange(len(motion), dtype=torch.float64) / 30.0)
    difference = (motion.joints - finest.joints[: len(motion)]).abs().max()
    assert float(difference) < 0.002
    assert float((motion.contacts == finest.contacts[: len(motion)]).float().mean()) > 0.99
    assert motion.contacts[:, [R_ANKLE, R_TOE]].all()
    assert 0.1 < float(motion.contacts[:, L_TOE].mean()) < 0.6


def test_a_swinging_foot_is_in_contact_at_its_turning_point_on_the_ground_only():
    motion = prepare(kicking(10.0, 120.0))
    toe = motion.joints[:, 10]
    speed = (toe[1:] - toe[:-1]).norm(dim=-1) * 30

    in_contact = motion.contacts[:-1, L_TOE] == 1

    assert in_contact.any()
    assert float(speed[in_contact].max()) < 0.65
    assert float(toe[:-1][in_contact][:, 2].max()) < 0.05 + 1e-4
    high_and_slow = (toe[:-1, 2] > 0.2) & (speed < 0.3)
    assert high_and_slow.any()
    assert not in_contact[high_and_slow].any()


def test_rotations_are_interpolated_between_frames():
    recording = standing(4.0, 45.0, joints=52)
    recording.rotvecs[:, 20, 2] = np.arange(180) * 0.05
    recording.rotvecs[:, 40, 1] = np.arange(180) * -0.01

    motion = prepare(recording, keep=1.0)

    frame = torch.arange(len(motion)) * 1.5
    elbow, finger = motion.body_rotmats[:, 19], motion.hand_rotmats[:, 18]
    torch.testing.assert_close(elbow[:, 0, 0], torch.cos(0.05 * frame), atol=1e-5, rtol=0)
    torch.testing.assert_close(finger[:, 0, 2], -torch.sin(0.01 * frame), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("frames", "start", "end"), [(100, 10, 90), (30, 3, 27), (101, 10, 90), (1, 0, 0)])
def test_the_middle_is_what_the_reference_keeps(frames, start, end):
    recording = standing(frames, 1.0)
    recording.root_positions[:, 0] = np.arange(frames)

    assert recording.middle(0.8).root_positions[:, 0].tolist() == list(range(start, end))


@pytest.mark.parametrize(("seconds", "fps"), [(1.2, 120.0), (1 / 120, 120.0), (2 / 30, 30.0)])
def test_short_recordings_are_left_out(seconds, fps):
    with pytest.raises(ClipError, match="shorter than 1 s"):
        prepare(standing(seconds, fps))


def test_a_second_is_long_enough():
    assert len(prepare(standing(1.25, 120.0))) == 30


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_frame(value):
    recording = standing(5.0, 60.0)
    recording.rotvecs[17, 4, 1] = value
    recording.root_positions[40, 0] = value

    with pytest.raises(ValueError, match=r"2 frames .* frame 17 the first"):
        prepare(recording)


def test_real_motion_comes_back_from_another_frame_rate():
    clip = next(read_mocap_pack(shared_path("mocap"), "test", ["cmu"]))

    again = prepare(recording_of(clip.motion), keep=1.0)

    assert len(again) == len(clip.motion)
    lift = (again.root_positions - clip.motion.root_positions)[:, 2]
    torch.testing.assert_close(lift, lift[:1].expand(len(lift)), atol=1e-5, rtol=0)
    assert abs(float(lift[0])) < 0.04
    torch.testing.assert_close(again.body_rotmats, clip.motion.body_rotmats, atol=1e-4, rtol=0)
    labels = label_contacts(again.joints, 30.0)
    assert 0.2 < float(labels[:, [L_ANKLE, R_ANKLE, L_TOE, R_TOE]].mean()) < 0.8
    assert torch.equal(again.contacts, labels)
