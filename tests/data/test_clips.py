"""Contact labels, resampling and mirroring, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_grpo.body import FOOT_JOINTS, MIRROR, Skeleton, cpf_of, forward_kinematics
from motion_grpo.data import mirror, mirror_contacts, resample
from motion_grpo.data.preprocessing import prepare
from motion_grpo.motion import Motion, label_contacts, with_contacts
from tests.data.importers.recordings import recording_of
from tests.tiny import moving_motion

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
few = settings(max_examples=15, deadline=None, derandomize=True)
KNEE, ANKLE, TOE, HEAD, WRIST = 4, 7, 10, 15, 20


def high_joints(frames: int) -> torch.Tensor:
    joints = torch.zeros(frames, 22, 3)
    joints[..., 2] = 1.0
    return joints


def spinning(frames: int, fps: float, turns_per_second: float = 0.25, start: float = 0.0) -> Motion:
    """The root turns about z at a constant rate and travels 1 m/s along x; the left knee bends likewise."""
    time = torch.arange(frames, dtype=torch.float64) / fps
    axis = torch.tensor([0.0, 0.0, 1.0])
    turn = roma.rotvec_to_rotmat((2 * torch.pi * turns_per_second * time[:, None] * axis).float())
    body = torch.eye(3).repeat(frames, 21, 1, 1)
    body[:, 3] = turn
    return Motion(
        root_rotmats=turn,
        root_positions=(time[:, None] * torch.tensor([1.0, 0.0, 0.0])).float(),
        body_rotmats=body,
        betas=torch.zeros(16),
        contacts=torch.zeros(frames, 21),
        timestamps=time + start,
        hand_rotmats=turn[:, None].repeat(1, 30, 1, 1),
    )


class TestContacts:
    def test_one_frame_has_no_speed(self) -> None:
        joints = high_joints(1)
        joints[:, TOE, 2] = 0.02
        assert label_contacts(joints, 30.0).nonzero().tolist() == [[0, TOE - 1]]

    @pytest.mark.parametrize(
        ("joint", "height", "speed", "touches"),
        [
            (TOE, 0.02, 0.0, True),
            (TOE, 0.049, 0.0, True),  # 4 cm over a toe that stands 1 cm over the floor
            (TOE, 0.051, 0.0, False),
            (ANKLE, 0.089, 0.0, True),
            (ANKLE, 0.091, 0.0, False),
            (KNEE, 0.089, 0.0, True),
            (KNEE, 0.091, 0.0, False),
            (WRIST, 0.089, 0.0, True),
            (WRIST, 0.091, 0.0, False),
            (TOE, 0.02, 0.59, True),
            (TOE, 0.02, 0.61, False),
            (TOE, -0.05, 0.0, True),
            (HEAD, 0.0, 0.0, False),
            (0, 0.0, 0.0, False),
        ],
    )
    @pytest.mark.parametrize("fps", [30.0, 120.0])
    def test_low_and_slow(self, joint, height, speed, touches, fps):
        joints = high_joints(6)
        joints[:, joint, 2] = height
        joints[:, joint, 1] = speed * torch.arange(6) / fps
        contacts = label_contacts(joints, fps)
        assert contacts.shape == (6, 21)
        expected = torch.zeros(6, 21)
        if touches:
            expected[:, joint - 1] = 1.0
        assert torch.equal(contacts, expected)

    def test_a_step(self):
        """Planted, lifted in one frame, set down in one frame; a frame's speed is that of the step that follows it."""
        joints = high_joints(6)
        joints[:, TOE, 2] = torch.tensor([0.02, 0.02, 0.10, 0.10, 0.02, 0.02])
        assert label_contacts(joints, 30.0)[:, TOE - 1].tolist() == [1, 0, 0, 0, 1, 1]

    def test_the_last_frame_has_the_speed_of_the_one_before(self):
        joints = high_joints(3)
        joints[:, TOE] = torch.tensor([[0.0, 0, 0.02], [0.0, 0, 0.02], [0.1, 0, 0.02]])
        assert label_contacts(joints, 30.0)[:, TOE - 1].tolist() == [1, 0, 0]

    def test_the_floor_may_lie_elsewhere(self):
        joints = high_joints(4)
        joints[:, TOE, 2] = 0.02
        assert torch.equal(
            label_contacts(joints + torch.tensor([0.0, 0.0, 3.0]), 30.0, 3.0), label_contacts(joints, 30.0)
        )

    def test_an_importer_labels_as_augmentation_does(self):
        """Whoever labels a motion, at its source's frame rate or when it is resampled, labels the same."""
        motion = with_contacts(Motion.load(EXAMPLES / "walk_turns.npz"))
        imported = prepare(recording_of(motion), keep=1.0)
        assert imported.contacts[:, [9, 10]].mean() > 0.4
        assert torch.equal(with_contacts(imported).contacts, imported.contacts)
        assert torch.equal(resample(imported, 30.0).contacts, imported.contacts)

    def test_a_motion_is_labeled_against_its_own_floor(self):
        motion = moving_motion(20)
        assert motion.contacts.any()
        upstairs = replace(
            motion, root_positions=motion.root_positions + torch.tensor([0.0, 0.0, 3.0]), floor_height=3.0
        )
        assert torch.equal(with_contacts(upstairs).contacts, motion.contacts)


class TestResample:
    def test_same_rate_is_the_same_motion(self):
        motion = moving_motion(25)
        same = resample(motion, 30.0)
        assert len(same) == 25
        for name in ("root_rotmats", "root_positions", "body_rotmats", "contacts", "betas"):
            torch.testing.assert_close(getattr(same, name), getattr(motion, name), rtol=0, atol=1e-5)
        torch.testing.assert_close(same.timestamps, motion.timestamps)

    @pytest.mark.parametrize(("fps", "frames"), [(120.0, 121), (60.0, 61), (25.0, 26), (30.0, 31)])
    def test_known_motion_at_another_rate(self, fps, frames):
        converted, expected = resample(spinning(frames, fps, start=7.0), 30.0), spinning(31, 30.0)
        assert converted.fps == pytest.approx(30.0)
        for name in ("root_rotmats", "root_positions", "body_rotmats", "hand_rotmats"):
            torch.testing.assert_close(getattr(converted, name), getattr(expected, name), rtol=0, atol=1e-5)
        torch.testing.assert_close(converted.timestamps, expected.timestamps)

    def test_double_speed_takes_half_the_time_and_doubles_the_velocities(self):
        fast = resample(spinning(61, 30.0), 30.0, speed=2.0)
        assert len(fast) == 31
        twice = spinning(31, 30.0, turns_per_second=0.5)
        torch.testing.assert_close(fast.root_rotmats, twice.root_rotmats, rtol=0, atol=1e-5)
        torch.testing.assert_close(fast.root_positions, 2 * twice.root_positions, rtol=0, atol=1e-5)

    def test_contacts_depend_on_the_speed(self):
        """0.4 m/s is a planted foot, and 0.8 m/s is none."""
        rest = Skeleton.default().rest_joints(torch.zeros(16))
        motion = spinning(61, 30.0, turns_per_second=0.0)
        height = float(rest[0, 1] - rest[10:12, 1].mean()) + 0.02
        place = torch.stack([0.4 * motion.root_positions[:, 0], torch.zeros(61), torch.full((61,), height)], 1)
        upright = roma.rotvec_to_rotmat(torch.tensor([torch.pi / 2, 0.0, 0.0])).expand(61, 3, 3)
        motion = replace(motion, root_rotmats=upright, root_positions=place)
        toes = [9, 10]
        assert resample(motion, 30.0).contacts[:, toes].eq(1).all()
        assert resample(motion, 30.0, speed=2.0).contacts[:, toes].eq(0).all()
        # The labels of the source are not carried over.
        assert resample(replace(motion, contacts=torch.full((61, 21), 0.5)), 30.0).contacts.unique().tolist() == [0, 1]

    def test_rotations_stay_rotations(self):
        R = resample(moving_motion(40, seed=3), 24.0, speed=0.85).body_rotmats
        torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), rtol=0, atol=1e-5)


class TestMirror:
    @pytest.mark.parametrize("joints", [22, 52])
    def test_twice_is_nothing(self, joints):
        R, p = roma.random_rotmat((5, joints)), torch.randn(5, 3)
        again = mirror(*mirror(R, p))
        torch.testing.assert_close(again, (R, p), rtol=0, atol=1e-6)
        once, _ = mirror(R, p)
        assert (torch.linalg.det(once) > 0.99).all()
        assert not torch.allclose(once, R)

    @few
    @given(
        betas=st.lists(st.floats(-3, 3, width=32), min_size=16, max_size=16),
        seed=st.integers(0, 2**16),
        joints=st.sampled_from([22, 52]),
    )
    def test_posed_joints_and_eyes_are_the_mirror_image(self, betas, seed, joints):
        flip, skeleton = torch.tensor([-1.0, 1.0, 1.0]), Skeleton.default()
        betas, generator = torch.tensor(betas), torch.Generator().manual_seed(seed)
        R = roma.rotvec_to_rotmat(torch.randn(4, joints, 3, generator=generator))
        p = torch.randn(4, 3, generator=generator)
        rest = skeleton.rest_joints(betas)[:joints]
        straight, mirrored = forward_kinematics(rest, R, p), forward_kinematics(rest, *mirror(R, p))
        swapped = [j for j in MIRROR if j < joints]
        torch.testing.assert_close(mirrored.joints, straight.joints[:, swapped] * flip, rtol=0, atol=1e-5)
        eyes, mirrored_eyes = (cpf_of(body, skeleton.cpf_offset(betas))[1] for body in (straight, mirrored))
        torch.testing.assert_close(mirrored_eyes, eyes * flip, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", ["walk_turns", "brisk_walk", "look_around"])
    def test_planted_feet_of_a_recording_stay_planted(self, name):
        motion = with_contacts(Motion.load(EXAMPLES / f"{name}.npz"))
        R, p = mirror(torch.cat([motion.root_rotmats[:, None], motion.body_rotmats], 1), motion.root_positions)
        other = with_contacts(replace(motion, root_rotmats=R[:, 0], body_rotmats=R[:, 1:], root_positions=p))
        assert torch.equal(other.contacts, mirror_contacts(motion.contacts))
        planted = motion.contacts[:, [j - 1 for j in FOOT_JOINTS]].bool()
        assert planted.float().mean() > 0.2
        heights = motion.joints[:, FOOT_JOINTS, 2], other.joints[:, [MIRROR[j] for j in FOOT_JOINTS], 2]
        assert (heights[0] - heights[1])[planted].abs().max() < 1e-4

    def test_contacts_change_sides(self):
        contacts = torch.zeros(2, 21)
        contacts[0, [3, 9]] = 1.0  # left knee, left toe
        contacts[1, [14, 20]] = 1.0  # head, right wrist
        expected = torch.zeros(2, 21)
        expected[0, [4, 10]] = 1.0
        expected[1, [14, 19]] = 1.0
        assert torch.equal(mirror_contacts(contacts), expected)

    def test_labels_of_the_mirrored_motion_are_the_mirrored_labels(self):
        motion = moving_motion(30, seed=2)
        motion.body_rotmats[:, 0] = roma.rotvec_to_rotmat(torch.tensor([-0.8, 0.0, 0.0]))  # the left leg is lifted
        motion = with_contacts(motion)
        R, p = mirror(torch.cat([motion.root_rotmats[:, None], motion.body_rotmats], 1), motion.root_positions)
        other = with_contacts(replace(motion, root_rotmats=R[:, 0], body_rotmats=R[:, 1:], root_positions=p))
        assert torch.equal(other.contacts, mirror_contacts(motion.contacts))
        assert motion.contacts.sum() > 10
        assert not torch.equal(other.contacts, motion.contacts)
