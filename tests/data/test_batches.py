"""A training batch holds what the pipeline would see, and augmented windows are real motions."""

import pytest
import torch

from motion_grpo.body import MIRROR, Skeleton, cpf_of
from motion_grpo.data import MotionWindows, mirror_contacts
from motion_grpo.data.batches import Augmentation, TrainingBatch, training_batch
from motion_grpo.models.conditioning import head_features
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import moving_clip

TOES = [10, 11]
FLIP = torch.tensor([-1.0, 1.0, 1.0])


def windows_of(*frames: int, length: int) -> dict[str, torch.Tensor]:
    dataset = MotionWindows([moving_clip(n, seed) for seed, n in enumerate(frames)], length, random=False)
    return torch.utils.data.default_collate([dataset[i] for i in range(len(dataset))])


def batch_of(windows: dict, augmentation: Augmentation | None = None, hands: bool = False) -> TrainingBatch:
    return training_batch(windows, Skeleton.default(), hands, augmentation)


class TestHeadPoses:
    def test_those_of_the_pipeline_for_the_same_clip(self):
        """Also in the first frame, to which no step leads."""
        clip = moving_clip(20)
        batch = batch_of(windows_of(20, length=20))
        R, p = cpf_of(clip.motion.posed, clip.motion.body.cpf_offset(clip.motion.betas))
        for ours, theirs in zip(batch.head, HeadPoses.from_world(R, p), strict=True):
            torch.testing.assert_close(ours[0], theirs, rtol=0, atol=1e-5)

    def test_later_windows_know_the_step_that_led_to_them(self):
        whole, cut = batch_of(windows_of(20, length=20)).head, batch_of(windows_of(20, length=10)).head
        for ours, theirs in zip(cut, whole, strict=True):
            torch.testing.assert_close(ours[1], theirs[0, 10:], rtol=0, atol=1e-5)
            torch.testing.assert_close(ours[0], theirs[0, :10], rtol=0, atol=1e-5)

    def test_body_hung_from_the_head_is_the_recorded_one(self):
        batch = batch_of(windows_of(12, 30, length=15))
        body = Skeleton.default().place_by_head(
            batch.state.betas, batch.state.body_rotmats, batch.head.R_world_cpf, batch.head.p_world_cpf
        )
        torch.testing.assert_close(body.joints, batch.joints, rtol=0, atol=1e-5)
        torch.testing.assert_close(body.rotmats[:, :, 0], batch.rotmats[:, :, 0], rtol=0, atol=1e-5)


def test_state_and_joints_are_the_clips():
    clip = moving_clip(20)
    batch = batch_of(windows_of(20, length=8))
    assert batch.mask.tolist() == [[True] * 8, [True] * 8, [True] * 4 + [False] * 4]
    torch.testing.assert_close(batch.joints[1], clip.motion.joints[8:16, :22], rtol=0, atol=1e-5)
    torch.testing.assert_close(batch.state.body_rotmats[1], clip.motion.body_rotmats[8:16])
    torch.testing.assert_close(batch.state.contacts[1], clip.motion.contacts[8:16])
    torch.testing.assert_close(batch.state.betas[1], clip.motion.betas.expand(8, -1))
    torch.testing.assert_close(batch.state.body_rotmats, batch.rotmats[:, :, 1:])
    assert batch.state.hand_rotmats is None


def test_hands_are_flat_where_the_network_has_them():
    hands = batch_of(windows_of(9, length=9), hands=True).state.hand_rotmats
    assert hands.shape == (1, 9, 30, 3, 3)
    assert torch.equal(hands, torch.eye(3).expand_as(hands))


class TestMirroring:
    @pytest.fixture
    def both(self) -> tuple[TrainingBatch, TrainingBatch]:
        windows, body = windows_of(25, 30, length=15), Skeleton.default()
        return training_batch(windows, body, False), training_batch(windows, body, False, Augmentation(mirror=1.0))

    def test_head_is_seen_in_the_mirror(self, both):
        """And so are its features, the step to the first frame included."""
        plain, mirrored = (batch.head for batch in both)
        M = torch.diag(FLIP)
        expected = HeadPoses(
            M @ plain.R_world_cpf @ M, plain.p_world_cpf * FLIP, M @ plain.R_prev_cpf @ M, plain.p_prev_cpf * FLIP
        )
        for ours, theirs in zip(mirrored, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        torch.testing.assert_close(head_features(mirrored), head_features(expected), rtol=0, atol=1e-4)
        assert (head_features(plain) - head_features(expected)).abs().max() > 0.1

    def test_state_and_joints(self, both):
        plain, mirrored = both
        torch.testing.assert_close(mirrored.state.contacts, mirror_contacts(plain.state.contacts))
        assert torch.equal(mirrored.state.betas, plain.state.betas)
        swapped = plain.joints[:, :, list(MIRROR[:22])] * FLIP
        torch.testing.assert_close(mirrored.joints, swapped, rtol=0, atol=1e-5)
        assert (mirrored.joints - plain.joints).abs().max() > 0.2

    def test_share(self):
        torch.manual_seed(0)
        windows = {k: v[:1].repeat(400, *[1] * (v.ndim - 1)) for k, v in windows_of(4, length=4).items()}
        plain = batch_of(windows).head.p_world_cpf
        for share in (0.0, 0.25, 0.5):
            moved = batch_of(windows, Augmentation(mirror=share)).head.p_world_cpf
            flipped = (moved - plain).abs().amax((1, 2)) > 1e-4
            assert abs(float(flipped.float().mean()) - share) < 0.08


class TestBodySize:
    def test_feet_stay_on_the_floor(self):
        torch.manual_seed(0)
        windows = {k: v.repeat(50, *[1] * (v.ndim - 1)) for k, v in windows_of(12, 12, length=12).items()}
        plain = batch_of(windows)
        resized = batch_of(windows, Augmentation(mirror=0.0, body_size=1.0))
        change = resized.state.betas[:, 0, 0] - plain.state.betas[:, 0, 0]
        assert 0.7 < float(change.std()) < 1.3
        assert torch.equal(resized.state.betas[..., 1:], plain.state.betas[..., 1:])
        assert torch.equal(resized.rotmats, plain.rotmats)

        def sole(batch):
            return batch.joints[:, :, TOES, 2].amin((1, 2)) - 0.018

        # A body 0.2 m taller that was not lifted would stand 0.1 m in the ground.
        assert (sole(resized) - sole(plain)).abs().max() < 0.01
        assert resized.joints[:, 0, 15, 2].std() > 0.05

    def test_travel_scales_with_the_legs(self):
        torch.manual_seed(0)
        windows, skeleton = windows_of(12, 12, length=12), Skeleton.default()
        plain, resized = batch_of(windows), batch_of(windows, Augmentation(mirror=0.0, body_size=1.0))
        scale = skeleton.leg_length(resized.state.betas[:, 0]) / skeleton.leg_length(plain.state.betas[:, 0])

        def travel(batch):
            return (batch.joints[:, -1, 0] - batch.joints[:, 0, 0]).norm(dim=-1)

        torch.testing.assert_close(travel(resized) / travel(plain), scale, rtol=1e-4, atol=0)
        assert (scale - 1).abs().max() > 0.02

    def test_head_poses_are_those_of_the_resized_body(self):
        torch.manual_seed(0)
        batch = batch_of(windows_of(12, length=12), Augmentation(mirror=1.0, body_size=1.0))
        body = Skeleton.default().place_by_head(
            batch.state.betas, batch.state.body_rotmats, batch.head.R_world_cpf, batch.head.p_world_cpf
        )
        torch.testing.assert_close(body.joints, batch.joints, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("share", [0.0, 0.5])
    def test_share(self, share):
        torch.manual_seed(0)
        windows = {k: v.repeat(400, *[1] * (v.ndim - 1)) for k, v in windows_of(3, length=3).items()}
        betas = batch_of(windows, Augmentation(mirror=0.0, body_size=share)).state.betas[:, 0, 0]
        changed = betas != windows["betas"][:, 0]
        assert abs(float(changed.float().mean()) - share) < 0.08


def test_inputs_are_left_alone():
    windows = windows_of(25, length=10)
    before = {k: v.clone() for k, v in windows.items()}
    batch_of(windows, Augmentation(mirror=1.0, body_size=1.0))
    assert all(torch.equal(windows[k], before[k]) for k in before)
