"""The BVH reader and importer, on files written here and on the untouched samples."""

import json
from pathlib import Path

import pytest
import torch

from motion_grpo.data.clips import ClipError
from motion_grpo.data.importers.bvh import BvhImporter
from motion_grpo.data.importers.runner import run_import
from motion_grpo.io.bvh import joint_names, read_bvh
from motion_grpo.retargeting.rigs import MIXAMO, Halfway, read_joint_map
from tests.conftest import shared_path
from tests.data.importers.reference import reference
from tests.data.importers.skeletons import FIGURE, rotation, t_pose, write_bvh

ARM = """HIERARCHY
ROOT shoulder
{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT rig:elbow
  {
    OFFSET 10 0 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT hand
    {
      OFFSET 5 0 0
      CHANNELS 6 Xposition Yposition Zposition Xrotation Yrotation Zrotation
      End Site
      {
        OFFSET 1 0 0
      }
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.0083333
0 100 0 90 0 0 0 0 0 6 0 0 0 0 0
0 101 0 0 0 0 0 0 90 7 0 0 0 0 0
"""


@pytest.fixture
def arm(tmp_path: Path) -> Path:
    path = tmp_path / "arm.bvh"
    path.write_text(ARM)
    return path


def test_positions_and_rotations_by_hand(arm: Path) -> None:
    motion = read_bvh(arm)
    assert motion.names == ("shoulder", "elbow", "hand")
    assert motion.parents == (-1, 0, 1)
    assert motion.fps == 120  # 0.0083333 s is a cut-off 1/120
    # Frame 0: the shoulder turns the arm up, the hand's position channels (6 0 0) replace its offset (5 0 0).
    expected = torch.tensor([[0, 1.0, 0], [0, 1.1, 0], [0, 1.16, 0]], dtype=torch.float64)
    torch.testing.assert_close(motion.positions[0], expected)
    # Frame 1: the elbow turns its x axis about y, to -z.
    expected = torch.tensor([[0, 1.01, 0], [0.1, 1.01, 0], [0.1, 1.01, -0.07]], dtype=torch.float64)
    torch.testing.assert_close(motion.positions[1], expected)


def test_root_position_may_count_from_the_offset(arm: Path) -> None:
    motion = read_bvh(arm, root_offset_added=True, metres_per_unit=1.0)
    assert motion.positions[0, 0].tolist() == [1, 102, 3]
    assert motion.positions[0, 2].tolist() == pytest.approx([1, 102 + 16, 3])  # the hand's channels still replace


def test_euler_angles_apply_in_the_order_of_the_channels(arm: Path) -> None:
    arm.write_text(ARM.replace("0 100 0 90 0 0", "0 100 0 90 90 0"))
    R = read_bvh(arm).rotmats[0, 0]
    torch.testing.assert_close(R, (rotation("Z", 90) @ rotation("Y", 90)).double(), atol=1e-6, rtol=0)


def test_z_up_files_are_turned(arm: Path) -> None:
    assert read_bvh(arm, up="z").positions[0, 0].tolist() == pytest.approx([0, 0, -1])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.bvh"
    path.write_bytes(ARM.replace("\n", end).encode())
    assert len(read_bvh(path)) == 2


BROKEN = {
    "no MOTION": (ARM.split("MOTION")[0], "no line MOTION"),
    "empty": ("", "no line MOTION"),
    "binary": ("\x00\x01" * 50, "no line MOTION"),
    "cut in the hierarchy": (ARM[:200] + "\nMOTION\n", "ends within a joint|cannot be read"),
    "cut in a row": (ARM[:-12], "line 25: 9 values for 15 channels"),
    "rows missing": (ARM.replace("Frames: 2", "Frames: 5"), "announces 5 frames and holds 2"),
    "a value too many": (ARM.replace("0 100 0", "0 100 0 0"), "line 24: 16 values for 15 channels"),
    "miscounted channels": (ARM.replace("CHANNELS 3", "CHANNELS 4"), "line 9: .*miscounted"),
    "unknown channel": (ARM.replace("3 Zrotation", "3 Wrotation"), "line 9: .*unknown"),
    "not a number": (ARM.replace("0 100 0", "0 abc 0"), "no number"),
    "NaN": (ARM.replace("0 101 0", "0 nan 0"), "line 25: shoulder Yposition is nan"),
    "infinite": (ARM.replace("0 101 0", "0 inf 0"), "line 25: shoulder Yposition is inf"),
    "no frames": (ARM.split("0 100 0")[0].replace("Frames: 2", "Frames: 0"), "0 frames"),
    "no frame time": (ARM.replace("Frame Time: 0.0083333", ""), "have to follow MOTION"),
    "frame time zero": (ARM.replace("0.0083333", "0"), "frame time of 0 s"),
    "two joints of one name": (ARM.replace("rig:elbow", "hand"), "several joints named hand"),
    "two roots": (ARM.replace("JOINT hand", "ROOT hand"), "line 10: .*ROOT hand"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_say_what_and_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.bvh"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_bvh(path)
    assert "broken.bvh" in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bvh(tmp_path / "none.bvh")


def figure_file(folder: Path, name: str = "stand.bvh", frames: int = 70) -> Path:
    return write_bvh(folder / name, *t_pose(frames))


def test_importer_finds_the_rig_by_the_names(tmp_path: Path) -> None:
    (tmp_path / "day1").mkdir()
    figure_file(tmp_path / "day1")
    importer = BvhImporter(tmp_path, split="val", license="mine")
    (job,) = importer.jobs()
    assert (job.id, job.split) == ("bvh/day1/stand", "val")
    (clip,) = importer.convert(job)
    assert (clip.id, clip.source, clip.split, clip.license) == ("bvh/day1/stand", "bvh", "val", "mine")
    assert len(clip.motion) == 70
    assert clip.motion.fps == pytest.approx(30)
    assert bool(clip.motion.contacts[:, [9, 10]].all())  # toes of who stands still


def test_unknown_skeleton_lists_the_joints_that_did_not_map(arm: Path) -> None:
    importer = BvhImporter(arm.parent)
    with pytest.raises(ValueError, match=r"file's, which are shoulder, elbow, hand; give a joint map.*L_hip.*--rig"):
        importer.convert(importer.jobs()[0])


def test_one_missing_joint_is_named_alone(tmp_path: Path) -> None:
    renamed = [(n.replace("LeftLeg", "Shin"), p.replace("LeftLeg", "Shin"), o) for n, p, o in FIGURE]
    write_bvh(tmp_path / "a.bvh", *t_pose(70), skeleton=renamed)
    importer = BvhImporter(tmp_path)
    with pytest.raises(ValueError, match=r"'mixamo' comes nearest.*L_knee \(LeftLeg\)\. .*--rig") as error:
        importer.convert(importer.jobs()[0])
    # ... and a map that names it, as the message advises, is enough.
    joints = {**MIXAMO.joints, "L_knee": "Shin", "neck": ["Neck", "Head"]}
    (tmp_path / "map.json").write_text(json.dumps(joints))
    assert read_joint_map(tmp_path / "map.json").joints["neck"] == Halfway("Neck", "Head")
    importer = BvhImporter(tmp_path, rig=str(tmp_path / "map.json"))
    assert len(importer.convert(importer.jobs()[0])) == 1
    assert "joint map" in str(error.value)


@pytest.mark.parametrize("content", ["[1, 2]", "hips: Hips", "L_hip: 3", ""])
def test_bad_joint_maps(tmp_path: Path, content: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match="is no joint map"):
        read_joint_map(path)


def test_short_clips_are_left_out_and_not_broken(tmp_path: Path) -> None:
    figure_file(tmp_path, "one.bvh", frames=1)
    figure_file(tmp_path, "short.bvh", frames=59)
    importer = BvhImporter(tmp_path)
    for job in importer.jobs():
        with pytest.raises(ClipError, match="shorter than 2 s"):
            importer.convert(job)


def test_folder_without_bvh_and_unknown_rig(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no \.bvh file"):
        BvhImporter(tmp_path).jobs()
    figure_file(tmp_path)
    with pytest.raises(ValueError, match="rig nobody is neither"):
        BvhImporter(tmp_path, rig="nobody").jobs()


def test_a_file_or_nothing_in_place_of_the_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"stand\.bvh is a file; give a folder"):
        BvhImporter(figure_file(tmp_path)).jobs()
    with pytest.raises(FileNotFoundError, match=r"nowhere is not there; give a folder"):
        BvhImporter(tmp_path / "nowhere").jobs()


def test_an_import_skips_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    figure_file(tmp_path / "in")
    whole = figure_file(tmp_path / "in", "cut.bvh").read_text()
    (tmp_path / "in" / "cut.bvh").write_text(whole[:-300])
    figure_file(tmp_path / "in", "short.bvh", frames=20)
    report = run_import(BvhImporter(tmp_path / "in"), tmp_path / "out", progress=False)
    assert (report.clips, report.exit_code) == (1, 1)
    assert {dropped.id: dropped.broken for dropped in report.dropped} == {"bvh/cut": True, "bvh/short": False}


# Every raw BVH of the samples: its clip in open_mocap_smplh, or why there is none.
SAMPLES = {
    "bandai_bvh/dataset-1_bow_normal_001.bvh": ("val", "bandai1/bow_normal_001"),
    "bandai_bvh/dataset-1_walk_normal_001.bvh": ("train", "bandai1/walk_normal_001"),
    "bandai_bvh/dataset-2_run_active_002.bvh": ("train", "bandai2/run_active_002"),
    "bandai_bvh/dataset-2_walk-turn-right_elderly_002.bvh": ("test", "bandai2/walk-turn-right_elderly_002"),
    "cmu_bvh/007_12.bvh": ("test", "cmu/07_12"),
    "bandai_bvh/dataset-1_run_normal_001.bvh": "shorter",
    "bandai_bvh/dataset-2_raise-up-left-hand_normal_002.bvh": "shorter",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_give_the_motion_of_the_reference(name: str) -> None:
    path, expected = shared_path(f"samples/{name}"), SAMPLES[name]
    importer = BvhImporter(path.parent)
    job = next(job for job in importer.jobs() if job.path == path)
    if expected == "shorter":
        with pytest.raises(ClipError, match="shorter than 2 s"):
            importer.convert(job)
        return
    split, clip_id = expected
    (clip,) = importer.convert(job)
    expected_motion = reference(clip_id, split)
    assert len(clip.motion) == len(expected_motion)
    difference = (clip.motion.joints - expected_motion.joints)[:, :22]
    floor = difference[..., 2].mean()
    difference[..., 2] -= floor
    # Meters, the world's frame, not aligned. The reference was made on the body before that was symmetric; a floor that
    # is held to the data set's usual one (03_01 walks on uneven ground) is another on the two bodies.
    assert float(difference.norm(dim=-1).mean()) < 0.003
    assert abs(float(floor)) < 0.007


def test_samples_of_all_kinds_name_their_joints() -> None:
    names = {p.name: len(joint_names(p)) for p in shared_path("samples/cmu_bvh").glob("*.bvh")}
    assert names == {"007_01.bvh": 101, "007_12.bvh": 100}
