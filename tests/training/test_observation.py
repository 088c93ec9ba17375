"""What a device would have seen: errors as large as asked for, and a true body that still fits what was seen."""

import pytest
import roma
import torch

from motion_grpo.body import HEAD, Skeleton
from motion_grpo.data import MotionWindows
from motion_grpo.data.batches import TrainingBatch, training_batch
from motion_grpo.training.observation import DeviceErrors, Observation, WristPatterns, observe
from motion_grpo.trajectory.head_poses import HeadPoses
from tests.tiny import moving_clip

SKELETON = Skeleton.default()
FRAMES = 60


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def truth(windows: int = 1) -> TrainingBatch:
    data = MotionWindows([moving_clip(FRAMES, seed) for seed in range(windows)], FRAMES, random=False)
    return training_batch(torch.utils.data.default_collate(list(data)), SKELETON, False)


def hung(seen: Observation, anchor: HeadPoses):
    state = seen.state
    return SKELETON.place_by_head(state.betas, state.body_rotmats, anchor.R_world_cpf, anchor.p_world_cpf)


def turn_between(R1: torch.Tensor, R2: torch.Tensor) -> torch.Tensor:
    return torch.rad2deg(roma.rotmat_geodesic_distance(R1, R2))


def test_without_errors_all_is_seen_as_it_is():
    batch = truth(2)
    seen = observe(batch, SKELETON, DeviceErrors(wrist_metres=0.0), WristPatterns(both=1.0), 1.0)
    for ours, theirs in zip(seen.head, batch.head, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    torch.testing.assert_close(hung(seen, seen.anchor).joints, batch.joints, rtol=0, atol=1e-5)
    assert seen.wrists.visible.all()
    assert seen.body_known.all()
    R, p = batch.head.R_world_cpf[:, :, None], batch.head.p_world_cpf[:, :, None]
    in_world = (R @ seen.wrists.p_cpf_wrist[..., None]).squeeze(-1) + p
    torch.testing.assert_close(in_world, batch.joints[:, :, [20, 21]], rtol=0, atol=1e-5)
    torch.testing.assert_close(R @ seen.wrists.R_cpf_wrist, batch.world_rotmats[:, :, [20, 21]], rtol=0, atol=1e-5)


class TestExtrinsicError:
    def test_turned_device_leaves_the_body_where_it_is(self):
        """But for what the eyes' offset from the head joint makes of the turn."""
        batch = truth(8)
        seen = observe(batch, SKELETON, DeviceErrors(head_degrees=4.0, clean_probability=0.0))
        turn = turn_between(seen.head.R_world_cpf, batch.head.R_world_cpf)
        assert turn.mean() > 3
        torch.testing.assert_close(turn, turn[:, :1].expand_as(turn), rtol=0, atol=0.1)  # constant in a window
        body = hung(seen, seen.anchor)
        torch.testing.assert_close(body.rotmats[:, :, 0], batch.rotmats[:, :, 0], rtol=0, atol=1e-5)
        assert (body.joints - batch.joints).norm(dim=-1).max() < 0.05
        others = [j for j in range(21) if j != HEAD - 1]
        assert torch.equal(seen.state.body_rotmats[:, :, others], batch.state.body_rotmats[:, :, others])

    def test_offset_moves_the_body_by_as_much(self):
        batch = truth(64)
        seen = observe(batch, SKELETON, DeviceErrors(head_metres=0.02, clean_probability=0.0))
        moved = hung(seen, seen.anchor).joints - batch.joints
        torch.testing.assert_close(moved, moved[:, :, :1].expand_as(moved), rtol=0, atol=1e-5)
        assert 0.015 < moved[:, 0, 0].std() < 0.025


def test_floor_error_is_in_the_condition_alone():
    batch = truth(64)
    seen = observe(batch, SKELETON, DeviceErrors(floor_metres=0.03, clean_probability=0.0))
    for ours, theirs in zip(seen.anchor, batch.head, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    error = seen.head.p_world_cpf - batch.head.p_world_cpf
    assert error[..., :2].abs().max() < 1e-5
    torch.testing.assert_close(error[:, :1].expand_as(error), error, rtol=0, atol=1e-5)
    assert 0.02 < error[:, 0, 2].std() < 0.04


def test_jitter_is_new_in_each_frame_and_the_body_does_not_hang_from_it():
    batch = truth(8)
    seen = observe(batch, SKELETON, DeviceErrors(jitter_metres=0.002, clean_probability=0.0))
    error = seen.head.p_world_cpf - batch.head.p_world_cpf
    assert 0.0018 < error.std() < 0.0022
    assert abs(float((error[:, 1:] * error[:, :-1]).mean() / error.square().mean())) < 0.15
    torch.testing.assert_close(seen.anchor.p_world_cpf, batch.head.p_world_cpf, rtol=0, atol=2e-6)
    # Steps are those between the poses that were seen.
    again = HeadPoses.from_world(seen.head.R_world_cpf, seen.head.p_world_cpf)
    torch.testing.assert_close(seen.head.p_prev_cpf[:, 1:], again.p_prev_cpf[:, 1:], rtol=0, atol=1e-5)


def test_gap_is_a_straight_line_of_at_most_half_a_second():
    batch = truth(16)
    seen = observe(batch, SKELETON, DeviceErrors(gap_probability=1.0, clean_probability=0.0))
    changed = (seen.head.p_world_cpf - batch.head.p_world_cpf).norm(dim=-1) > 1e-5
    for row, p in zip(changed, seen.head.p_world_cpf, strict=True):
        frames = row.nonzero().flatten()
        assert 1 <= len(frames) <= 16
        first, last = int(frames[0]) - 1, int(frames[-1]) + 1
        if first < 0 or last >= FRAMES:
            continue
        line = torch.lerp(p[first], p[last], torch.linspace(0, 1, last - first + 1)[:, None])
        torch.testing.assert_close(p[first : last + 1], line, rtol=0, atol=1e-4)


def test_clean_windows_are_as_frequent_as_asked_for():
    batch = truth(4)
    clean = 0
    for _ in range(100):
        seen = observe(batch, SKELETON, DeviceErrors(floor_metres=0.05, clean_probability=0.25))
        clean += int(((seen.head.p_world_cpf - batch.head.p_world_cpf)[:, 0, 2].abs() < 1e-6).sum())
    assert 75 < clean < 125


class TestWrists:
    def test_shares_of_the_patterns(self):
        batch = truth(600)
        counts = {"both": 0, "left or right": 0, "bursts": 0, "neither": 0}
        for visible in observe(batch, SKELETON, wrists=WristPatterns(0.3, 0.2, 0.3)).wrists.visible:
            seen = visible.any(0).tolist()
            if visible.all():
                counts["both"] += 1
            elif sum(seen) == 2:
                counts["bursts"] += 1
            elif sum(seen) == 1:
                counts["left or right"] += 1
            else:
                counts["neither"] += 1
        assert 130 < counts["both"] < 230
        assert 90 < counts["left or right"] < 200  # and bursts of one side alone
        assert 90 < counts["bursts"] < 200
        assert 80 < counts["neither"] < 180

    def test_bursts_last_about_a_second(self):
        batch = truth(16)
        visible = torch.cat([observe(batch, SKELETON, wrists=WristPatterns(bursts=1.0)).wrists.visible for _ in "abcd"])
        assert 0.4 < visible.float().mean() < 0.6
        switches = (visible[:, 1:] != visible[:, :-1]).float().mean()
        assert 0.8 / 30 < switches < 1.2 / 30

    def test_error_is_as_large_as_asked_for(self):
        batch = truth(32)
        exact = observe(batch, SKELETON, DeviceErrors(wrist_metres=0.0), WristPatterns(both=1.0)).wrists.p_cpf_wrist
        seen = observe(batch, SKELETON, DeviceErrors(wrist_metres=0.02), WristPatterns(both=1.0)).wrists.p_cpf_wrist
        assert 0.012 < (seen - exact).std() < 0.018  # most of it stays, a third of it is new in each frame


def test_body_is_known_in_whole_windows():
    batch = truth(40)
    known = observe(batch, SKELETON, body_known_probability=0.5).body_known
    assert 8 < known[:, 0].sum() < 32
    assert torch.equal(known, known[:, :1].expand_as(known))
