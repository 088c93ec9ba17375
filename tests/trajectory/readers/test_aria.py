"""Project Aria: the extrinsic against projectaria_tools' numbers, made files with known answers, and the recordings."""

import gzip
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch

from motion_grpo.geometry.rotations import rotation_to_z
from motion_grpo.trajectory import default_T_device_cpf, load_segments, load_trajectory, read_aria, vrs_T_device_cpf
from tests.conftest import shared_path
from tests.trajectory.helpers import aria_csv, walk

# get_transform_device_cpf(CpfType.CadBased), projectaria_tools 2.3.0, of VRS files of the builds DVT-S, DVT-L, EVT_SS.
CAD = {
    "gen1": [
        [-0.03186014, -0.99862953, -0.04152095, 0.00495296],
        [0.79335340, 0.0, -0.60876135, -0.04914837],
        [0.60792706, -0.05233601, 0.79226614, -0.04918546],
    ],
    "gen1-large": [
        [-0.03186014, -0.99862953, -0.04152095, 0.00499302],
        [0.79335340, 0.0, -0.60876135, -0.05146009],
        [0.60792706, -0.05233601, 0.79226614, -0.04994988],
    ],
    "gen2": [
        [-0.94102218, 0.0, 0.33834487, 0.05934340],
        [-0.13812710, -0.91287303, -0.38416629, 0.01932446],
        [0.30886592, -0.40824360, 0.85903377, -0.02843146],
    ],
}


@pytest.fixture
def device_poses() -> tuple[np.ndarray, np.ndarray]:
    """T_world_device and times of a device worn as ``gen1`` by the walking head."""
    poses, times = walk()
    return poses @ np.linalg.inv(default_T_device_cpf("gen1").numpy()), times


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("device", CAD)
def test_default_extrinsic_is_projectaria_tools_cad_value(device):
    T = default_T_device_cpf(device)
    torch.testing.assert_close(T[:3], torch.tensor(CAD[device], dtype=torch.float64), atol=5e-7, rtol=0)
    torch.testing.assert_close(T[:3, :3] @ T[:3, :3].T, torch.eye(3, dtype=torch.float64))


def test_large_frames_are_wider():
    for small, large in (("gen1", "gen1-large"), ("gen2", "gen2-large")):
        distances = [default_T_device_cpf(device)[:3, 3].norm() for device in (small, large)]
        assert 0.001 < distances[1] - distances[0] < 0.005


def test_unknown_device_asks_for_the_matrix():
    with pytest.raises(ValueError, match=r"'gen3' .*known: gen1.*T_device_cpf"):
        default_T_device_cpf("gen3")


def test_closed_loop_poses_reach_the_cpf(tmp_path, device_poses):
    path = write(tmp_path / "closed_loop_trajectory.csv", aria_csv(*device_poses))
    trajectory = load_trajectory(path)
    poses, times = walk()
    torch.testing.assert_close(trajectory.R_world_cpf, torch.from_numpy(poses[:, :3, :3]).float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(trajectory.p_world_cpf, torch.from_numpy(poses[:, :3, 3]).float(), atol=1e-6, rtol=0)
    np.testing.assert_allclose(trajectory.timestamps, times, atol=1e-6)
    assert trajectory.source == str(path)
    assert trajectory.source_frame == "aria device (gen1 default extrinsic)"
    assert trajectory.floor_source == "estimated from the head"


def test_a_given_extrinsic_goes_before_the_default(tmp_path):
    poses, times = walk()
    path = write(tmp_path / "t.csv", aria_csv(poses, times))
    matrix = np.eye(4)
    matrix[:3, 3] = [0.0, 0.1, 0.0]  # 10 cm up the head
    for extrinsic in (matrix, [1, 0, 0, 0, 0, 0.1, 0]):
        trajectory = load_trajectory(path, T_device_cpf=extrinsic)
        expected = poses[:, :3, 3] + 0.1 * poses[:, :3, 1]
        np.testing.assert_allclose(trajectory.p_world_cpf, expected, atol=1e-6)
        assert trajectory.source_frame == "aria device (given extrinsic)"
    for bad, message in (
        (np.eye(3), r"4x4 matrix or 7 numbers.*\(3, 3\)"),
        (np.diag([1.0, 1, 2, 1]), "T_device_cpf has a 3x3 part"),
        ([1, 0, 0, 0, 70, 2, 9], "must be in meters"),
    ):
        with pytest.raises(ValueError, match=message):
            load_trajectory(path, T_device_cpf=bad)
    with pytest.raises(ValueError, match="pass one of them"):
        load_trajectory(path, T_device_cpf=matrix, vrs="x.vrs")


def test_extrinsic_from_a_vrs_file(tmp_path, monkeypatch, device_poses):
    vrs = tmp_path / "recording.vrs"
    vrs.touch()
    matrix = np.array([*CAD["gen1"], [0, 0, 0, 1]])
    calibration = types.SimpleNamespace(
        get_transform_device_cpf=lambda: types.SimpleNamespace(to_matrix=lambda: matrix)
    )
    provider = types.SimpleNamespace(get_device_calibration=lambda: calibration)
    core = types.ModuleType("projectaria_tools.core")
    core.data_provider = types.SimpleNamespace(
        create_vrs_data_provider=lambda path: provider if path == str(vrs) else None
    )
    monkeypatch.setitem(sys.modules, "projectaria_tools", types.ModuleType("projectaria_tools"))
    monkeypatch.setitem(sys.modules, "projectaria_tools.core", core)
    path = write(tmp_path / "t.csv", aria_csv(*device_poses))
    trajectory = load_trajectory(path, vrs=vrs)
    torch.testing.assert_close(trajectory.p_world_cpf, load_trajectory(path).p_world_cpf, atol=1e-6, rtol=0)
    assert trajectory.source_frame == "aria device (VRS calibration)"
    calibration = None
    with pytest.raises(ValueError, match="no device calibration"):
        vrs_T_device_cpf(vrs)
    with pytest.raises(FileNotFoundError, match=r"nowhere.vrs"):
        vrs_T_device_cpf(tmp_path / "nowhere.vrs")


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    vrs = tmp_path / "recording.vrs"
    vrs.touch()
    monkeypatch.setitem(sys.modules, "projectaria_tools", None)
    with pytest.raises(ImportError, match=r"motion-grpo\[aria\]"):
        vrs_T_device_cpf(vrs)


@pytest.mark.parametrize("down", [(0, -1, 0), (0, 0, -1), (0, 0, 1), (-1, 0, 0), (0.6, 0, -0.8), (0, 1, 0)])
def test_gravity_decides_what_is_up(tmp_path, device_poses, down):
    poses, times = device_poses
    down = np.array(down, dtype=np.float64)
    R = rotation_to_z(-torch.from_numpy(down)).numpy()  # file's world -> z up
    turned = poses.copy()
    turned[:, :3] = R.T @ poses[:, :3]
    lines = aria_csv(turned, times, gravity=tuple(9.81 * down))
    trajectory = load_trajectory(write(tmp_path / "t.csv", lines), floor_height=0)
    np.testing.assert_allclose(trajectory.p_world_cpf, walk()[0][:, :3, 3], atol=1e-5)
    np.testing.assert_allclose(trajectory.R_world_cpf, walk()[0][:, :3, :3], atol=1e-5)


def test_rotation_to_z_is_the_smallest():
    up = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.7], dtype=torch.float64), dim=0)
    R = rotation_to_z(up)
    torch.testing.assert_close(R @ up, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    assert torch.arccos((R.trace() - 1) / 2).item() == pytest.approx(torch.arccos(up[2]).item())
    y_up = rotation_to_z(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close((y_up @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).tolist(), [1.0, -3.0, 2.0])


def test_open_loop_has_its_own_world(tmp_path, device_poses):
    path = write(tmp_path / "open_loop_trajectory.csv", aria_csv(*device_poses, world="odometry"))
    # A cloud in the closed-loop world, whose floor is elsewhere, lies beside it and must not be used.
    rng = np.random.default_rng(0)
    cloud_lines(tmp_path / "semidense_points.csv", np.column_stack([rng.uniform(-2, 2, (500, 2)), np.full(500, 0.3)]))
    trajectory = load_trajectory(path)
    np.testing.assert_allclose(trajectory.p_world_cpf, walk()[0][:, :3, 3], atol=1e-6)
    assert trajectory.floor_source == "estimated from the head"


def cloud_lines(path, points):
    rows = [f"{i},map-1,{x},{y},{z},0.001,0.001" for i, (x, y, z) in enumerate(points)]
    return write(path, ["uid,graph_uid,px_world,py_world,pz_world,inv_dist_std,dist_std", *rows])


@pytest.mark.parametrize("inner", ["", "slam"])
def test_a_folder_with_a_point_cloud(tmp_path, device_poses, inner):
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    with gzip.open(folder / "closed_loop_trajectory.csv.gz", "wt") as file:
        file.write("\n".join(aria_csv(*device_poses)))
    rng = np.random.default_rng(0)
    cloud_lines(
        folder / "semidense_points.csv", np.column_stack([rng.uniform(-2, 2, (500, 2)), rng.normal(0.05, 0.004, 500)])
    )
    trajectory = load_trajectory(tmp_path)
    assert trajectory.floor_source == "point cloud"
    assert trajectory.floor_height == pytest.approx(0.05, abs=0.005)
    assert load_trajectory(tmp_path, floor_height=0.1).floor_source == "given"
    with pytest.raises(FileNotFoundError, match="holds no trajectory"):
        load_trajectory(tmp_path.parent / tmp_path.name / "..")


def test_points_of_a_y_up_world_are_turned_with_it(tmp_path, device_poses):
    poses, times = device_poses
    turned = poses.copy()
    turned[:, :3] = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ poses[:, :3]  # (x, y, z) -> (x, z, -y)
    path = write(tmp_path / "t.csv", aria_csv(turned, times, gravity=(0, -9.81, 0)))
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-2, 2, 500), rng.normal(0.07, 0.004, 500), rng.uniform(-2, 2, 500)])
    trajectory = load_trajectory(path, points=points)
    assert trajectory.floor_source == "point cloud"
    assert trajectory.floor_height == pytest.approx(0.07, abs=0.005)
    assert load_trajectory(path).floor_source == "ADT convention"


def test_several_worlds_in_one_file_must_be_chosen_from(tmp_path, device_poses):
    lines = aria_csv(*device_poses)
    lines[41:] = [line.replace("map-1", "map-2") for line in lines[41:]]
    path = write(tmp_path / "t.csv", lines)
    with pytest.raises(ValueError, match=r"2 worlds.*map-1 \(40 poses\), map-2 \(20 poses\).*world_uid='map-1'"):
        load_trajectory(path)
    assert len(load_trajectory(path, world_uid="map-2")) == 20
    assert [len(piece) for piece in load_segments(path)] == [40, 20]
    assert [piece.source for piece in load_segments(path)] == [f"{path} (graph_uid map-{i})" for i in (1, 2)]
    assert [len(piece) for piece in load_segments(path, world_uid="map-2")] == [20]
    with pytest.raises(ValueError, match="no graph_uid 'map-3'"):
        load_trajectory(path, world_uid="map-3")


def test_a_gap_within_a_world_cuts_it_too(tmp_path, device_poses):
    poses, times = device_poses
    times = times + np.where(np.arange(60) < 15, 0.0, 0.8)
    lines = aria_csv(poses, times)
    lines[41:] = [line.replace("map-1", "map-2") for line in lines[41:]]
    path = write(tmp_path / "t.csv", lines)
    assert [len(piece) for piece in load_segments(path)] == [15, 25, 20]


def test_a_damaged_pose_of_a_chosen_world_is_named_by_its_line(tmp_path, device_poses):
    lines = aria_csv(*device_poses)
    lines[41:] = [line.replace("map-1", "map-2") for line in lines[41:]]
    path = write(tmp_path / "t.csv", edit(lines, 50, 5, "7"))
    with pytest.raises(ValueError, match=r"Line 50 of .*t.csv \(graph_uid map-2\) has the quaternion"):
        load_trajectory(path, world_uid="map-2")


def test_gravity_of_the_first_release_has_no_world_in_its_name(tmp_path, device_poses):
    lines = aria_csv(*device_poses)
    old = [*(f"gravity_{axis}_world" for axis in "xyz")]
    for name in old:
        lines[0] = lines[0].replace(name, name.removesuffix("_world"))
    trajectory = load_trajectory(write(tmp_path / "t.csv", lines), floor_height=0.0)
    np.testing.assert_allclose(trajectory.p_world_cpf, walk()[0][:, :3, 3], atol=1e-6)


def test_glasses_of_another_generation_are_asked_for(tmp_path):
    poses, times = walk()
    worn = poses @ np.linalg.inv(default_T_device_cpf("gen2").numpy())
    path = write(tmp_path / "t.csv", aria_csv(worn, times))
    with pytest.warns(UserWarning, match=r"not upright.*another generation.*load_trajectory\(path, device=...\)"):
        load_trajectory(path, floor_height=0.0)
    np.testing.assert_allclose(load_trajectory(path, device="gen2").p_world_cpf, poses[:, :3, 3], atol=1e-6)


def edit(lines, row, column, value):
    """The lines with one field changed; row counts from 1, as an editor does."""
    fields = lines[row - 1].split(",")
    fields[column] = value
    return [*lines[: row - 1], ",".join(fields), *lines[row:]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lines: [], "is empty"),
        (lambda lines: lines[:1], "a header but no rows"),
        (lambda lines: lines[:2], "at least 2 poses"),
        (lambda lines: [*lines[:30], lines[30][:40]], "Line 31 of .*t.csv has 4 fields where the header has 13"),
        (lambda lines: edit(lines, 10, 3, "nan"), "Line 10 of .*t.csv has a position that is missing"),
        (lambda lines: edit(lines, 10, 5, ""), "Line 10 of .*t.csv has a quaternion that is missing"),
        (lambda lines: edit(lines, 10, 5, "7"), "Line 10 of .*t.csv has the quaternion .* of norm 7"),
        (lambda lines: edit(lines, 10, 3, "abc"), "t.csv cannot be read .*abc"),
        (lambda lines: [*lines[:20], lines[19], *lines[20:]], "Line 21 of .*t.csv: the timestamp .* repeats"),
        (lambda lines: [lines[0], *lines[:0:-1]], "Line 3 of .*t.csv.* runs backwards"),
        (lambda lines: lines[:20] + lines[40:], r"1 gap\(s\) .* lasts 0.70 s, after frame 18"),
        (lambda lines: [line.replace("qw_world_device", "qq") for line in lines], "lacks the columns qw_world_device"),
        (lambda lines: [line.replace("-9.81", "-1.6") for line in lines], "gravity of .* about 9.81"),
    ],
)  # fmt: skip
def test_bad_files_are_named_with_the_line(tmp_path, device_poses, spoil, message):
    path = write(tmp_path / "t.csv", spoil(aria_csv(*device_poses)))
    with pytest.raises(ValueError, match=message):
        load_trajectory(path)


def test_real_closed_loop_recording():
    path = shared_path("samples/aria_gen1_mps/closed_loop_trajectory.csv")
    trajectory = load_trajectory(path)
    assert len(trajectory) == 11_517
    assert trajectory.duration == pytest.approx(11.395, abs=0.001)
    assert trajectory.fps == pytest.approx(1000, abs=2)
    assert trajectory.timestamps[0].item() == pytest.approx(149.202610, abs=1e-7)
    # Worn on a head: up is up, forward is about level, the eyes are a few centimeters from the left camera.
    left, up, forward = trajectory.R_world_cpf.mean(0)[2].tolist()
    assert up > 0.95
    assert abs(forward) < 0.15
    assert abs(left) < 0.1
    device = pd.read_csv(path)[[f"t{a}_world_device" for a in "xyz"]].to_numpy()
    distances = np.linalg.norm(trajectory.p_world_cpf.numpy() - device, axis=1)
    np.testing.assert_allclose(distances, 0.0697, atol=1e-4)
    # The recorded point cloud puts the floor 1.5 m under the eyes of someone who stands, then bends down.
    assert trajectory.floor_source == "point cloud"
    assert trajectory.floor_height == pytest.approx(-1.49, abs=0.02)
    heights = trajectory.above_floor().p_world_cpf[:, 2]
    assert 1.45 < heights.quantile(0.9) < 1.56
    assert 0.9 < heights.min() < 1.1
    resampled = trajectory.resample(30)
    assert len(resampled) == 342
    # At most 2 m/s between frames, and no wild turns: times and frames are in order.
    assert (resampled.p_world_cpf.diff(dim=0).norm(dim=1) * 30).max() < 2.0


def test_the_geo_columns_change_nothing():
    folder = shared_path("samples/aria_gen1_mps")
    with_geo, without = (
        read_aria(folder / f"closed_loop_trajectory_geo_{kind}.csv", floor_height=-1.49)
        for kind in ("available", "missing")
    )
    whole = read_aria(folder, floor_height=-1.49)
    assert len(with_geo) == 199
    assert with_geo.R_world_cpf.equal(without.R_world_cpf)
    assert with_geo.p_world_cpf.equal(whole.p_world_cpf[:199])


def test_real_digital_twin_trajectory():
    trajectory = load_trajectory(shared_path("samples/aria_adt/aria_trajectory.csv"))
    assert (len(trajectory), trajectory.floor_height, trajectory.floor_source) == (6, 0.0, "ADT convention")
    assert trajectory.fps == pytest.approx(30, abs=0.1)
    torch.testing.assert_close(trajectory.p_world_cpf[:, 2], torch.full((6,), 1.556), atol=0.005, rtol=0)
    assert trajectory.R_world_cpf[:, 2, 1].min() > 0.9  # upright, looking 20 degrees down
    assert -0.45 < trajectory.R_world_cpf[:, 2, 2].mean() < -0.25
