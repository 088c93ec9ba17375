"""What is written as BVH is the same motion to a reader of somebody else's, and to our own."""

from dataclasses import replace
from pathlib import Path

import bvhio
import numpy as np
import pytest
import roma
import torch
from numpy.testing import assert_allclose

from motion_grpo.body import JOINT_NAMES
from motion_grpo.io.bvh import read_bvh
from motion_grpo.io.y_up import Z_TO_Y_UP
from motion_grpo.motion import Motion
from tests.tiny import moving_motion

EXAMPLE = Path(__file__).parents[2] / "examples" / "walk_turns.npz"


def with_hands(motion: Motion) -> Motion:
    generator = torch.Generator().manual_seed(3)
    fingers = 0.4 * torch.randn(len(motion), 30, 3, generator=generator)
    return replace(motion, hand_rotmats=roma.rotvec_to_rotmat(fingers))


def y_up_joints(motion: Motion) -> np.ndarray:
    return motion.above_floor().joints.double().numpy() @ Z_TO_Y_UP.numpy().T


@pytest.mark.parametrize("hands", [False, True])
def test_bvhio_reads_every_joint_within_a_millimetre(hands: bool, tmp_path) -> None:
    motion = replace(moving_motion(5), floor_height=-0.4)
    motion = with_hands(motion) if hands else motion
    root = bvhio.readAsHierarchy(str(motion.save(tmp_path / "walk.bvh")))
    names = JOINT_NAMES if hands else JOINT_NAMES[:22]
    assert {joint.Name for joint, _, _ in root.layout()} >= set(names)
    for frame in range(len(motion)):
        root.loadPose(frame, recursive=True)
        read = {joint.Name: tuple(joint.PositionWorld) for joint, _, _ in root.layout()}
        found = np.array([read[name] for name in names]) / 100
        assert np.linalg.norm(found - y_up_joints(motion)[frame, : len(names)], axis=-1).max() < 1e-3


def test_our_reader_agrees(tmp_path) -> None:
    motion = Motion.load(EXAMPLE)
    read = read_bvh(motion.save(tmp_path / "walk.bvh"))
    assert read.fps == pytest.approx(30)
    order = [read.names.index(name) for name in JOINT_NAMES[:22]]
    assert len(read.names) == 22
    assert_allclose(read.positions[:, order].numpy(), y_up_joints(motion)[:, :22], atol=1e-4)


def test_every_channel_zero_is_the_rest_pose(tmp_path) -> None:
    motion = with_hands(moving_motion(2))
    lines = motion.save(tmp_path / "walk.bvh").read_text().splitlines()
    for row in (-2, -1):
        lines[row] = " ".join("0" for _ in lines[row].split())
    (tmp_path / "rest.bvh").write_text("\n".join(lines))
    rest = motion.body.rest_joints(motion.betas).numpy()
    read = read_bvh(tmp_path / "rest.bvh")
    order = [read.names.index(name) for name in JOINT_NAMES]
    assert_allclose(read.positions[0, order].numpy(), rest - rest[0], atol=1e-6)
    assert read.positions[0, read.names.index("head"), 1] > 0.5  # y up


def test_no_bone_ends_in_itself(tmp_path) -> None:
    text = with_hands(moving_motion(1)).save(tmp_path / "walk.bvh").read_text()
    offsets = np.array([line.split()[1:] for line in text.splitlines() if "OFFSET" in line], dtype=float)
    assert len(offsets) == 52 + 13  # ten fingers, two feet, the head
    assert (np.linalg.norm(offsets[1:], axis=1) > 0.5).all()  # centimeters


@pytest.mark.parametrize(
    ("frame_time", "fps"),
    [
        ("0.033333", 30), ("0.0333", 30), ("0.033", 30), ("0.01666", 60), ("0.0167", 60), ("0.00833", 120),
        ("0.0417", 24), ("0.04", 25), ("0.0333667", 29.97), ("0.016683", 59.94), ("0.0083", 120.48), ("3.3333e-2", 30),
    ],
)  # fmt: skip
def test_a_rounded_frame_time_means_the_rate_that_it_was_rounded_from(tmp_path, frame_time, fps) -> None:
    path = moving_motion(3).save(tmp_path / "walk.bvh")
    lines = path.read_text().splitlines()
    lines[next(i for i, line in enumerate(lines) if "Frame Time" in line)] = f"Frame Time: {frame_time}"
    path.write_text("\n".join(lines))
    read = read_bvh(path).fps
    assert read == fps if isinstance(fps, int) else read == pytest.approx(fps, abs=0.005)


def test_frames_a_second_for_a_frame_time_are_refused_with_what_is_meant(tmp_path) -> None:
    path = moving_motion(3).save(tmp_path / "walk.bvh")
    path.write_text("\n".join("Frame Time: 30" if "Time" in line else line for line in path.read_text().splitlines()))
    with pytest.raises(ValueError, match=r"a frame time of 30 s is not one: write the seconds from frame to frame"):
        read_bvh(path)
