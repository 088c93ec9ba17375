"""Pops are bridged, takes are cut at breaks."""

from dataclasses import replace

import pytest
import roma
import torch
from torch import Tensor

from motion_grpo.body import NUM_BETAS
from motion_grpo.motion import Motion
from motion_grpo.retargeting.cutting import bridge_pops, cut, whole_pieces
from tests.data.importers.skeletons import rotation


def swinging(frames: int = 100) -> Motion:
    time = torch.arange(frames) / 30
    rotvecs = torch.zeros(frames, 22, 3)
    rotvecs[:, 16, 2] = torch.sin(time)
    R = roma.rotvec_to_rotmat(rotvecs)
    return Motion(
        root_rotmats=rotation("X", 90) @ R[:, 0],
        root_positions=torch.stack([time, 0 * time, 0 * time + 1], dim=1),
        body_rotmats=R[:, 1:],
        betas=torch.zeros(NUM_BETAS),
        contacts=torch.zeros(frames, 21),
        timestamps=torch.arange(frames, dtype=torch.float64) / 30,
    )


def with_pop(motion: Motion, frames: slice, joint: int, degrees: float) -> Motion:
    R = motion.body_rotmats.clone()
    R[frames, joint - 1] = R[frames, joint - 1] @ rotation("Y", degrees)
    return replace(motion, body_rotmats=R)


def parts(motion: Motion) -> tuple[Tensor, Tensor]:
    return motion.local_rotmats[:, :22], motion.joints[:, :22]


def test_what_is_whole_stays_as_it_is() -> None:
    motion = swinging()
    (piece,) = cut(motion, 60)
    torch.testing.assert_close(piece.local_rotmats, motion.local_rotmats)
    torch.testing.assert_close(piece.root_positions, motion.root_positions)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_pops_are_bridged(length: int) -> None:
    motion = swinging()
    popped = with_pop(motion, slice(40, 40 + length), 16, 80)
    torch.testing.assert_close(bridge_pops(parts(popped)[0]), motion.local_rotmats[:, :22], atol=2e-3, rtol=0)
    assert len(cut(popped, 60)) == 1


def test_what_lasts_longer_or_turns_less_is_no_pop() -> None:
    for popped in (with_pop(swinging(), slice(40, 44), 16, 80), with_pop(swinging(), slice(40, 42), 16, 40)):
        assert torch.equal(bridge_pops(parts(popped)[0]), parts(popped)[0])


def test_takes_are_cut_at_breaks_with_a_margin() -> None:
    broken = with_pop(swinging(200), slice(80, None), 1, 70)  # from frame 80 on the hip is elsewhere: break at 79 -> 80
    assert whole_pieces(*parts(broken), 60) == [slice(0, 78), slice(82, 200)]
    first, second = cut(broken, 60)
    assert (len(first), len(second)) == (78, 118)
    assert float(second.timestamps[0]) == 0
    torch.testing.assert_close(second.root_positions[0], broken.root_positions[82])
    assert [len(piece) for piece in cut(broken, 100)] == [118]
    assert cut(broken, 150) == []


def test_wrists_may_turn_that_fast_but_nothing_may_jump() -> None:
    motion = swinging()
    assert len(cut(with_pop(motion, slice(50, None), 20, 100), 60)) == 1
    jump = replace(motion, root_positions=motion.root_positions + 0.4 * (torch.arange(100) >= 70)[:, None])
    assert whole_pieces(*parts(jump), 60) == [slice(0, 68)]


def test_a_t_pose_left_in_the_first_frame_costs_two_frames() -> None:
    motion = with_pop(swinging(), slice(0, 1), 16, 90)
    assert whole_pieces(*parts(motion), 60) == [slice(2, 100)]


def test_one_frame() -> None:
    assert cut(swinging(1), 60) == []
    assert [len(piece) for piece in cut(swinging(1), 0)] == [1]
