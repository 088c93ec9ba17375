"""Aria recordings as head clips: the real samples, and made folders with known answers."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from datasets import load_dataset
from pyarrow import parquet

from motion_grpo.body import JOINT_NAMES
from motion_grpo.data.clips import ClipError
from motion_grpo.data.head_clip import HeadClip, row_to_trajectory
from motion_grpo.data.importers import aria
from motion_grpo.data.importers.aria import (
    AdtImporter,
    AriaImporter,
    find_adt_skeleton,
    read_adt_joints,
)
from motion_grpo.data.importers.runner import run_import
from motion_grpo.data.schema import FEATURES, rows_to_table
from motion_grpo.trajectory import default_T_device_cpf, load_trajectory
from tests.conftest import shared_path
from tests.trajectory.helpers import aria_csv, walk


def convert(importer) -> list[HeadClip]:
    return [clip for job in importer.jobs() for clip in importer.convert(job)]


def test_the_real_mps_sample():
    folder = shared_path("samples/aria_gen1_mps")
    [clip] = convert(AriaImporter(folder))
    truth = load_trajectory(folder).resample(30).above_floor()
    assert (clip.id, clip.source, clip.split) == ("aria_gen1_mps", "aria", "test")
    assert len(clip.trajectory) == 342
    torch.testing.assert_close(clip.trajectory.T_world_cpf, truth.T_world_cpf)
    assert truth.floor_height == 0
    assert truth.floor_source == "point cloud"
    assert clip.joints is None
    observed = (clip.hands[:, 1, 0] > 0).nonzero().flatten()
    assert len(observed) == 6
    times = clip.trajectory.timestamps[observed]
    assert 159.39 < times[0] < times[-1] < 159.92
    # In the world the hand is within reach of the eyes and above the floor.
    R, p = clip.trajectory.R_world_cpf[observed], clip.trajectory.p_world_cpf[observed]
    wrist = (R @ clip.hands[observed, 1, 1:4, None]).squeeze(-1) + p
    assert (wrist - p).norm(dim=-1).min() > 0.2
    assert (wrist - p).norm(dim=-1).max() < 0.8
    assert wrist[:, 2].min() > 0.3


def test_the_real_adt_sample():
    folder = shared_path("samples/aria_adt")
    [clip] = convert(AdtImporter(folder, min_seconds=0.1))
    assert (clip.id, clip.source, len(clip.trajectory)) == ("aria_adt", "adt", 5)
    assert clip.hands is None
    assert "Aria Digital Twin" in clip.license
    named = {name: clip.joints[2, i] for i, name in enumerate(JOINT_NAMES[:22])}
    # z up, feet on the floor, the eyes of the glasses by the skeleton's head, left and right as in the person.
    assert 0.0 < named["L_foot"][2] < 0.08
    assert 0.85 < named["pelvis"][2] < 1.0
    assert (named["head"] - clip.trajectory.p_world_cpf[2]).norm() < 0.25
    left = clip.trajectory.R_world_cpf[2][:, 0]
    for joint in ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist"):
        assert (named[f"L_{joint}"] - named[f"R_{joint}"]) @ left > 0.05, joint
    unknown = [name for name, place in named.items() if not place.isfinite().all()]
    assert unknown == ["spine1", "spine2", "spine3"]
    # The first pose is 4 ms older than the first measurement.
    assert clip.joints[0].isnan().all()
    assert clip.joints[1:, 0].isfinite().all()


def test_joints_are_interpolated_and_not_invented(tmp_path):
    times = [1.0, 1.01, 1.2, 1.21]
    frames = [{"markers": [], "joints": [[t, 2.0, 3.0]] * 51, "timestamp_ns": round(t * 1e9)} for t in times]
    path = tmp_path / "Skeleton_T.json"
    path.write_text(json.dumps({"frames": frames}))
    joints = read_adt_joints(path, torch.tensor([0.9, 1.0, 1.005, 1.1, 1.205, 1.3], dtype=torch.float64))
    # y up to z up: (x, y, z) becomes (x, -z, y).
    torch.testing.assert_close(joints[[1, 2, 4], 15], torch.tensor([[1.0, -3, 2], [1.005, -3, 2], [1.205, -3, 2]]))
    assert joints[[0, 3, 5]].isnan().all()
    for content in ("{", '{"frames": []}', '{"frames": [{"timestamp_ns": 1, "joints": [[1, 2, 3]]}]}', "[]"):
        path.write_text(content)
        with pytest.raises(ValueError, match="is no skeleton of ADT"):
            read_adt_joints(path, torch.zeros(1, dtype=torch.float64))


def test_whose_skeleton_it_is(tmp_path):
    assert find_adt_skeleton(tmp_path) is None
    people = [{"AssociatedDeviceSerial": s, "SkeletonName": f"Skeleton_{s}", "SkeletonId": 1} for s in "AB"]
    association = tmp_path / "skeleton_aria_association.json"
    association.write_text(json.dumps({"SkeletonMetadata": people}))
    (tmp_path / "metadata.json").write_text(json.dumps({"serial": "B"}))
    assert find_adt_skeleton(tmp_path) is None
    for person in "AB":
        (tmp_path / f"Skeleton_{person}.json").touch()
    assert find_adt_skeleton(tmp_path).name == "Skeleton_B.json"
    association.write_text("{}")
    with pytest.raises(ValueError, match="damaged"):
        find_adt_skeleton(tmp_path)


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Two MPS folders and an ADT sequence, which has MPS output, too; the second recording has a gap."""
    poses, times = walk(150)
    lines = aria_csv(poses @ np.linalg.inv(default_T_device_cpf().numpy()), times)
    for folder, rows in (("day1/mps_a_vrs/slam", lines), ("day1/mps_b_vrs/slam", lines[:61] + lines[91:])):
        (tmp_path / folder).mkdir(parents=True)
        data = ("\n".join(rows) + "\n").encode()
        (tmp_path / folder / "closed_loop_trajectory.csv.gz").write_bytes(gzip.compress(data))
    hands = tmp_path / "day1/mps_a_vrs/hand_tracking"
    hands.mkdir()
    names = ["tracking_timestamp_us"]
    for side in ("left", "right"):
        names += [f"{side}_tracking_confidence"]
        names += [f"t{axis}_{side}_{part}_device" for part in ("wrist", "palm") for axis in "xyz"]
    rows = [f"{round(time * 1e6)},0.5,1,2,3,4,5,6,-1,0,0,0,0,0,0" for time in times[::3]]
    (hands / "wrist_and_palm_poses.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    (tmp_path / "adt_seq/mps/slam").mkdir(parents=True)
    (tmp_path / "adt_seq/mps/slam/closed_loop_trajectory.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "adt_seq/aria_trajectory.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_every_recording_is_found_once_and_cut_at_gaps(recordings):
    importer = AriaImporter(recordings, split="val")
    assert [job.id for job in importer.jobs()] == ["adt_seq", "day1/mps_a_vrs", "day1/mps_b_vrs"]
    assert [job.path.parent.parent.name for job in AdtImporter(recordings).jobs()] == [recordings.name]
    clips = {clip.id: clip for clip in convert(importer)}
    lengths = {name: len(clip.trajectory) for name, clip in clips.items()}
    assert lengths == {"adt_seq": 150, "day1/mps_a_vrs": 150, "day1/mps_b_vrs": 60, "day1/mps_b_vrs/1": 60}
    poses, _ = walk(150)
    truth = torch.tensor(poses[90:, :3, :3], dtype=torch.float32)
    torch.testing.assert_close(clips["day1/mps_b_vrs/1"].trajectory.R_world_cpf, truth, atol=1e-5, rtol=0)
    hands = clips["day1/mps_a_vrs"].hands
    assert hands[::3, 0, 0].tolist() == [0.5] * 50
    T = default_T_device_cpf()
    torch.testing.assert_close(hands[30, 0, 1:4].double(), T[:3, :3].T @ (torch.tensor([1.0, 2, 3]) - T[:3, 3]))
    assert all(clip.split == "val" and clip.license == "" for clip in clips.values())
    with pytest.raises(ClipError, match="shorter than 6 s"):
        convert(AriaImporter(recordings / "day1", min_seconds=6.0))


@pytest.mark.filterwarnings("ignore:The head of")  # which the made-up calibration lays on its side
def test_calibration_out_of_the_recording(recordings, monkeypatch):
    asked = []

    def calibration(path):
        asked.append(path.name)
        return torch.eye(4, dtype=torch.float64)

    monkeypatch.setattr(aria, "vrs_T_device_cpf", calibration)
    importer = AriaImporter(recordings / "day1", use_vrs=True)
    with pytest.raises(FileNotFoundError, match=r"mps_a_vrs has no VRS file in or beside it \(a.vrs\)"):
        importer.convert(importer.jobs()[0])
    (recordings / "day1" / "a.vrs").touch()
    [clip] = importer.convert(importer.jobs()[0])
    assert asked == ["a.vrs"]
    [default] = AriaImporter(recordings / "day1/mps_a_vrs").convert(importer.jobs()[0])
    distance = (clip.trajectory.p_world_cpf - default.trajectory.p_world_cpf).norm(dim=-1)
    assert 0.05 < distance.mean() < 0.09  # from the device to the eyes
    assert clip.hands[0, 0, 1:4].tolist() == [1, 2, 3]
    for name in ("depth_images.vrs", "video.vrs"):
        (recordings / "adt_seq" / name).touch()
    adt = AdtImporter(recordings, use_vrs=True)
    adt.convert(adt.jobs()[0])
    assert asked[-1] == "video.vrs"


def test_rows_survive_a_data_set(recordings, tmp_path):
    clip = next(clip for clip in convert(AriaImporter(recordings / "day1")) if clip.hands is not None)
    row = clip.to_row()
    assert row.keys() == FEATURES.keys()
    table = rows_to_table([row])
    parquet.write_table(table, tmp_path / "rows.parquet")
    [read] = load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train")
    for name in ("betas", "root_orient", "trans", "body_quats", "hand_quats", "contacts"):
        assert np.ndim(read[name]) == 0, name  # null: None, or NaN where datasets decodes arrays
    np.testing.assert_array_equal(np.asarray(read["hand_observations"], np.float32), clip.hands)
    trajectory = row_to_trajectory(read)
    torch.testing.assert_close(trajectory.R_world_cpf, clip.trajectory.R_world_cpf, atol=1e-5, rtol=0)
    torch.testing.assert_close(trajectory.p_world_cpf, clip.trajectory.p_world_cpf)
    assert trajectory.fps == pytest.approx(30)
    assert min(row["T_world_cpf"][:, 0]) >= 0


def test_folders_without_recordings(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no closed_loop_trajectory.csv, neither itself nor below"):
        AriaImporter(tmp_path).jobs()
    with pytest.raises(FileNotFoundError, match=r"holds no aria_trajectory.csv"):
        AdtImporter(tmp_path).jobs()
    with pytest.raises(ValueError, match="gen9"):
        AriaImporter(tmp_path, device="gen9").jobs()


def test_a_damaged_trajectory_is_named(tmp_path):
    shutil.copy(shared_path("samples/aria_adt/aria_trajectory.csv"), tmp_path)
    path = tmp_path / "aria_trajectory.csv"
    path.write_text(path.read_text()[:-40])
    importer = AdtImporter(tmp_path)
    with pytest.raises(ValueError, match="Line 7 of"):
        importer.convert(importer.jobs()[0])


def made_recording(folder: Path, frames: int = 150, worlds: int = 1) -> Path:
    """A trajectory; with several worlds, one after another, each with an origin of its own."""
    poses, times = walk(frames)
    lines = aria_csv(poses @ np.linalg.inv(default_T_device_cpf().numpy()), times)
    rows = [row.replace("map-1", f"map-{i * worlds // frames + 1}") for i, row in enumerate(lines[1:])]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "closed_loop_trajectory.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    return folder


def test_every_world_of_a_recording_is_a_clip(tmp_path):
    made_recording(tmp_path / "a" / "slam", worlds=2)
    clips = convert(AriaImporter(tmp_path))
    assert [(clip.id, len(clip.trajectory)) for clip in clips] == [("a", 75), ("a/1", 75)]
    (second,) = convert(AriaImporter(tmp_path, world="map-2"))
    torch.testing.assert_close(second.trajectory.p_world_cpf, clips[1].trajectory.p_world_cpf)
    with pytest.raises(ClipError, match=r"no world map-3 \(--world\)"):
        convert(AriaImporter(tmp_path, world="map-3"))
    with pytest.raises(ClipError, match=r"shorter than 4 s \(--min-seconds\).* in 2 worlds \(--world\)"):
        convert(AriaImporter(tmp_path, min_seconds=4.0))


ON_AN_ARM = ["recording_lwrist", "recording_rwrist", "left_wrist", "WristR", "miniAria-l", "right_hand", "device_arm_l"]


@pytest.mark.parametrize("name", ON_AN_ARM)
def test_devices_on_an_arm_are_no_heads(tmp_path, name):
    for device in ("recording_head", "recording_observer", name):
        made_recording(tmp_path / "in" / "act0" / device / "mps" / "slam")
    report = run_import(AriaImporter(tmp_path / "in"), tmp_path / "out", progress=False)
    assert (report.clips, report.exit_code) == (2, 0)
    (dropped,) = report.dropped
    assert (dropped.id, dropped.broken) == (f"act0/{name}", False)
    assert "device on a wrist" in dropped.reason


def test_names_that_only_sound_like_an_arm(tmp_path):
    for name in ("handover", "charm_l", "hands_on", "army"):
        made_recording(tmp_path / name / "slam")
    assert len(convert(AriaImporter(tmp_path))) == 4


@pytest.mark.filterwarnings("ignore:The head of")
def test_a_device_that_is_not_upright_is_reported_and_one_on_its_head_refused(tmp_path):
    poses, times = walk(150)
    for name, angle in (("a", 70), ("b", 175)):
        turn = np.eye(4)
        turn[:3, :3] = roma.euler_to_rotmat("Z", torch.tensor([angle], dtype=torch.float64), degrees=True).numpy()
        lines = aria_csv(poses @ turn @ np.linalg.inv(default_T_device_cpf().numpy()), times)
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "closed_loop_trajectory.csv").write_text("\n".join(lines) + "\n")
    report = run_import(AriaImporter(tmp_path / "in"), tmp_path / "out", progress=False)
    assert [doubt.id for doubt in report.doubtful] == ["a"]
    assert "70 degrees off vertical" in report.doubtful[0].reason
    assert "--device" in report.doubtful[0].reason
    assert [dropped.id for dropped in report.broken] == ["b"]


def test_hidden_files_are_no_recordings(tmp_path):
    made_recording(tmp_path / "a" / "slam")
    for name in ("__MACOSX/a/slam", ".trash/a"):
        made_recording(tmp_path / name)
    (tmp_path / "a" / "slam" / "._closed_loop_trajectory.csv").write_bytes(b"\x00\x05\x16\x07")
    assert [job.id for job in AriaImporter(tmp_path).jobs()] == ["a"]
