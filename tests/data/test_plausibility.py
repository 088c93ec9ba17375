"""What a whole take may look like: people in any pose pass; wrong axes, units and rates are refused or reported."""

from dataclasses import replace
from pathlib import Path

import pytest
import roma
import torch

from motion_grpo.data import read_mocap_pack
from motion_grpo.data.clips import resample
from motion_grpo.data.plausibility import doubts
from motion_grpo.io.bvh import read_bvh
from motion_grpo.motion import Motion
from motion_grpo.retargeting.retarget import retarget
from motion_grpo.retargeting.rigs import MIXAMO
from tests.conftest import shared_path
from tests.data.importers.skeletons import NAMES, rotation, t_pose, walk, write_bvh
from tests.tiny import moving_motion


@pytest.fixture
def walker(tmp_path: Path) -> Motion:
    return retarget(read_bvh(write_bvh(tmp_path / "a.bvh", *walk(150))), MIXAMO)


def turned(motion: Motion, axis: str, degrees: float) -> Motion:
    R = roma.euler_to_rotmat(axis, torch.tensor([degrees]), degrees=True)
    return replace(motion, root_rotmats=R @ motion.root_rotmats, root_positions=motion.root_positions @ R.mT)


def still(tmp_path: Path) -> Motion:
    """Stands in a T-pose."""
    R, p = t_pose(60)
    return retarget(read_bvh(write_bvh(tmp_path / "still.bvh", R, p)), MIXAMO)


def test_people_who_walk_and_stand_pass(walker, tmp_path):
    for motion in (walker, still(tmp_path), moving_motion(60), turned(walker, "Z", 130), turned(walker, "X", 25)):
        assert doubts(motion) == []


@pytest.mark.parametrize(("axis", "degrees"), [("X", 90), ("X", -90), ("Y", 90), ("Y", -90)])
def test_a_walk_on_its_side_is_refused(walker, axis, degrees):
    (doubt,) = doubts(turned(walker, axis, degrees))
    assert doubt.refused
    assert "on its side" in doubt.sentence
    assert doubt.options[0] == "up"


@pytest.mark.parametrize("axis", ["X", "Y"])
def test_a_walk_upside_down_is_refused(walker, axis):
    (doubt, *_) = doubts(turned(walker, axis, 180))
    assert doubt.refused
    assert "upside down" in doubt.sentence


def test_who_lies_is_reported_and_not_refused(tmp_path):
    (doubt,) = doubts(turned(still(tmp_path), "X", -90))
    assert not doubt.refused


def test_who_stands_on_his_hands_is_not_refused(tmp_path):
    R, p = t_pose(60)
    for name, angle in (("LeftArm", 80.0), ("RightArm", -80.0)):
        R[:, NAMES.index(name)] = rotation("Z", angle)  # arms up
    motion = turned(retarget(read_bvh(write_bvh(tmp_path / "a.bvh", R, p)), MIXAMO), "X", 180)
    lowest = motion.joints[:, :22, 2].min()
    motion = replace(motion, root_positions=motion.root_positions - lowest * torch.tensor([0.0, 0, 1]))
    (doubt,) = doubts(motion)
    assert not doubt.refused


def test_who_lies_down_and_gets_up_passes(walker, tmp_path):
    lying = turned(still(tmp_path), "X", -90)
    n = len(lying)
    motion = replace(
        walker,
        root_rotmats=torch.cat([lying.root_rotmats, walker.root_rotmats[: n + 10]]),
        root_positions=torch.cat([lying.root_positions, walker.root_positions[: n + 10]]),
        body_rotmats=torch.cat([lying.body_rotmats, walker.body_rotmats[: n + 10]]),
        contacts=torch.zeros(2 * n + 10, 21),
        timestamps=torch.arange(2 * n + 10, dtype=torch.float64) / 30.0,
    )
    assert doubts(motion) == []


def test_who_crawls_passes(walker):
    """Trunk level, thighs down, and on."""
    body = walker.body_rotmats.clone()
    for joint, angle in ((1, -90.0), (2, -90.0), (4, 90.0), (5, 90.0)):
        body[:, joint - 1] = roma.euler_to_rotmat("X", torch.tensor([angle]), degrees=True)
    motion = turned(replace(walker, body_rotmats=body), "X", 90)
    motion = replace(motion, root_positions=walker.root_positions - torch.tensor([0.0, 0, 0.4]))
    assert not any(doubt.refused for doubt in doubts(motion))
    assert not any("lies" in doubt.sentence for doubt in doubts(motion))


def test_a_walk_at_twice_its_rate_is_reported(walker):
    (doubt,) = doubts(resample(walker, 30.0, speed=2.0))
    assert "3.8 steps a second" in doubt.sentence
    assert doubt.options == ("fps",)
    assert doubts(resample(walker, 30.0, speed=1.5)) == []


@pytest.mark.parametrize("rate", [0.5, 0.33])
def test_a_walk_at_half_its_rate_is_reported(tmp_path, rate):
    motion = retarget(read_bvh(write_bvh(tmp_path / "a.bvh", *walk(150, speed=1.2))), MIXAMO)
    assert doubts(motion) == []
    (doubt,) = doubts(resample(motion, 30.0, speed=rate))
    assert "plays too slowly" in doubt.sentence
    assert doubt.options == ("fps",)


def test_swapped_sides_are_reported(tmp_path):
    """Bent arms tell a body that was turned about from one that walks backwards."""
    R, p = walk(90)
    for side, angle in (("Left", -60.0), ("Right", 60.0)):
        R[:, NAMES.index(f"{side}ForeArm")] = rotation("y", angle).double()
    path = write_bvh(tmp_path / "a.bvh", R, p)
    assert doubts(retarget(read_bvh(path), MIXAMO)) == []
    text = path.read_text().replace("Left", "@").replace("Right", "Left").replace("@", "Right")
    path.write_text(text)
    (doubt,) = doubts(retarget(read_bvh(path), MIXAMO))
    assert "walks backwards: left and right of the file may be swapped" in doubt.sentence
    assert not doubt.refused


def test_who_walks_backwards_passes(tmp_path):
    R, p = walk(90)
    for side, angle in (("Left", -60.0), ("Right", 60.0)):
        R[:, NAMES.index(f"{side}ForeArm")] = rotation("y", angle).double()
    motion = retarget(read_bvh(write_bvh(tmp_path / "a.bvh", R.flip(0), p.flip(0))), MIXAMO)
    assert doubts(motion) == []


@pytest.mark.parametrize(("factor", "refused"), [(10.0, False), (100.0, True)])
def test_a_path_in_another_unit(walker, factor, refused):
    path = walker.root_positions * torch.tensor([factor, factor, 1.0])
    (doubt,) = doubts(replace(walker, root_positions=path))
    assert doubt.refused == refused
    assert "metres_per_unit" in doubt.options


def test_the_captures_pass():
    """No clip of 2,976 may be refused, and few reported; the slow ones are looked at in the smaller splits here."""
    pack = shared_path("mocap")
    clips = [clip for split in ("val", "test") for clip in read_mocap_pack(pack, split, ["cmu", "bandai1"])]
    # Of these subjects the pack's own notes say that the second pack has the better originals.
    clips = [clip for clip in clips if not clip.id.startswith(("cmu/05_", "cmu/07_"))]
    found = [doubt for clip in clips for doubt in doubts(clip.motion)]
    assert not any(doubt.refused for doubt in found)
    assert len(found) <= len(clips) / 50
