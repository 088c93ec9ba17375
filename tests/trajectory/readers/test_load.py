"""TUM, CSV and npz, and telling files apart by content."""

import gzip
import warnings

import numpy as np
import pytest
import torch

from motion_grpo.trajectory import HeadTrajectory, load_segments, load_trajectory, read_npz
from tests.trajectory.helpers import aria_csv, csv_of, in_axes, quaternions, tum_text, walk, wxyz_xyz


def assert_walk(trajectory, times=None):
    poses, recorded = walk()
    np.testing.assert_allclose(trajectory.R_world_cpf, poses[:, :3, :3], atol=1e-6)
    np.testing.assert_allclose(trajectory.p_world_cpf, poses[:, :3, 3], atol=1e-6)
    np.testing.assert_allclose(trajectory.timestamps, recorded if times is None else times, atol=1e-6)


def csv_text(header: str, unit: float = 1.0) -> str:
    poses, times = walk()
    columns = dict(zip(("qx", "qy", "qz", "qw"), quaternions(poses).T, strict=True))
    columns |= dict(zip(("x", "y", "z"), poses[:, :3, 3].T, strict=True))
    columns |= dict(zip(("tx", "ty", "tz"), poses[:, :3, 3].T, strict=True))
    columns |= {name: times / unit for name in header.split(",") if name.startswith("time") or name == "t"}
    columns |= {"confidence": np.ones(60)}
    rows = np.stack([columns[name.strip(' "')] for name in header.split(",")], axis=1)
    return header + "\n" + "\n".join(",".join(f"{v:.9f}" for v in row) for row in rows) + "\n"


@pytest.mark.parametrize("name", ["groundtruth.txt", "walk.csv"])
@pytest.mark.parametrize("separator", [" ", ","])
def test_tum_text(tmp_path, name, separator):
    path = tmp_path / name
    path.write_text(tum_text(*walk()).partition("\n")[2].replace(" ", separator))
    assert_walk(load_trajectory(path))


def test_tum_comments_anywhere(tmp_path):
    lines = tum_text(*walk()).splitlines()
    path = tmp_path / "t.txt"
    path.write_text("\n".join(["# a recording", *lines[:10], "# interrupted", *lines[10:]]))
    assert_walk(load_trajectory(path))


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("timestamp,x,y,z,qw,qx,qy,qz", 1.0),
        ("qx,qy,qz,qw,tx,ty,tz,time", 1.0),
        ("t,confidence,x,y,z,qw,qx,qy,qz", 1.0),
        ("timestamp_ms,x,y,z,qw,qx,qy,qz", 1e-3),
        ("timestamp_ns,x,y,z,qw,qx,qy,qz", 1e-9),
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_csv_columns_are_found_by_name(tmp_path, header, unit, compress):
    path = tmp_path / ("walk.csv.gz" if compress else "walk.csv")
    text = csv_text(header, unit).encode()
    path.write_bytes(gzip.compress(text) if compress else text)
    trajectory = load_trajectory(path)
    assert_walk(trajectory)
    assert trajectory.source == str(path)


def test_csv_without_times_needs_fps(tmp_path):
    path = tmp_path / "walk.csv"
    path.write_text(csv_text('"x", "y", "z", "qw", "qx", "qy", "qz"'))
    with pytest.raises(ValueError, match=r"lacks the columns timestamp that .*load_trajectory\(path, fps=\.\.\.\)"):
        load_trajectory(path)
    assert_walk(load_trajectory(path, fps=30), np.arange(60) / 30)


@pytest.mark.parametrize("layout", [lambda poses: poses, wxyz_xyz])
def test_npz(tmp_path, layout):
    poses, times = walk()
    path = tmp_path / "walk.npz"
    np.savez(path, T_world_cpf=layout(poses), timestamps=times, floor_height=0.1)
    trajectory = load_trajectory(path)
    assert_walk(trajectory)
    assert (trajectory.floor_height, trajectory.floor_source) == (pytest.approx(0.1), "given")
    assert load_trajectory(path, floor_height=0.0).floor_height == 0.0
    np.savez(path, T_world_cpf=layout(poses), fps=30.0)
    assert_walk(load_trajectory(path), np.arange(60) / 30)


def test_npz_is_never_unpickled(tmp_path):
    path = tmp_path / "walk.npz"
    np.savez(path, T_world_cpf=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"walk.npz cannot be read as an npz of plain arrays"):
        load_trajectory(path)


def test_npz_names_what_is_missing(tmp_path):
    path = tmp_path / "walk.npz"
    np.savez(path, poses=walk()[0])
    with pytest.raises(ValueError, match=r"lacks the columns T_world_cpf .* it has poses"):
        load_trajectory(path)
    np.savez(path, T_world_cpf=walk()[0])
    with pytest.raises(ValueError, match="lacks the columns fps"):
        load_trajectory(path)
    path.write_bytes(b"PK not really")
    with pytest.raises(ValueError, match="cannot be read as an npz"):
        load_trajectory(path)
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "none.npz")


def test_conventions_and_extrinsics_apply_to_files(tmp_path):
    poses, times = walk()
    A = np.eye(4)
    A[:3, :3] = [[0, -1, 0], [0, 0, 1], [-1, 0, 0]]  # z up, x forward -> x right, y up, z back
    B = np.diag([-1.0, 1, -1, 1])  # the CPF's axes in x right, y up, z back
    path = tmp_path / "openxr.txt"
    path.write_text(tum_text(A @ poses @ B, times))
    trajectory = load_trajectory(path, convention="openxr", floor_height=0.0)
    assert_walk(trajectory)
    offset = np.eye(4)
    offset[:3, 3] = [0, 0, 0.05]
    path.write_text(tum_text(poses @ np.linalg.inv(offset), times))
    trajectory = load_trajectory(path, T_device_cpf=offset)
    assert_walk(trajectory)
    assert trajectory.source_frame == "device (given extrinsic)"
    with pytest.raises(ValueError, match="pass one"):
        load_trajectory(path, T_device_cpf=offset, convention="openxr")


def test_gaps_stop_or_split(tmp_path):
    poses, times = walk()
    times[25:] += 0.7
    path = tmp_path / "t.txt"
    path.write_text(tum_text(poses, times))
    with pytest.raises(ValueError, match=r"t.txt has 1 gap.* 0.73 s, after frame 24.*load_segments\(path\)"):
        load_trajectory(path)
    assert [len(piece) for piece in load_segments(path)] == [25, 35]
    assert [len(piece) for piece in load_segments(path, floor_height=0.1)] == [25, 35]
    path.write_text(tum_text(poses[::20], times[::20]))
    with pytest.raises(ValueError, match="no two poses less than"):
        load_segments(path)


def test_tum_with_w_first_is_recognized(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(tum_text(*walk(), columns=(3, 0, 1, 2)))
    with pytest.raises(ValueError, match="look like w x y z, and not x y z w as the columns say"):
        load_trajectory(path)


TUM = tum_text(*walk()).splitlines()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "a.txt is empty"),
        ("a.txt", "# nothing\n", "a.txt holds no poses"),
        ("a.txt", "\n".join(TUM[:2]), "at least 2 poses.*a.txt has 1"),
        ("a.txt", "\n".join([*TUM[:5], TUM[5][:30]]), "Line 6 of .*a.txt has 3 fields where 8 columns are named"),
        ("a.txt", "\n".join([*TUM[:5], TUM[5].replace("1", "x"), *TUM[6:]]), "Line 6 of .*a.txt has 'x00.x"),
        ("a.txt", "# t x y\n1 2 3\n2 3 4\n", "Line 2 of .*a.txt has 3 fields; a row without column names is the 8"),
        ("a.txt", "hello world\n1 2\n", "lacks the columns timestamp, x, y, z, qw, qx, qy, qz .*It has hello, world"),
        ("a.csv", "timestamp,x,y,qw,qx,qy\n1,2,3,4,5,6\n", "lacks the columns z, qz"),
        ("a.csv", "timestamp,x,y,z,qw,qx,qy,qz\n0,0,0,0,1,0,0,0\n1,0,0\n", "Line 3 of .*a.csv has 3 fields"),
        ("a.csv", "timestamp,x,y,z,qw,qx,qy,qz\n0,0,0,0,1,0,0,0\n1,0,,0,1,0,0,0\n", "Line 3 of .*a.csv has a position"),
        ("a.vrs", "any", "pass the MPS closed_loop_trajectory.csv, with vrs=a.vrs"),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_trajectory(path)


def test_damaged_and_missing_files(tmp_path):
    path = tmp_path / "walk.csv.gz"
    path.write_bytes(gzip.compress(csv_text("timestamp,x,y,z,qw,qx,qy,qz").encode())[:-500])
    with pytest.raises(ValueError, match=r"walk.csv.gz cannot be read"):
        load_trajectory(path)
    binary = tmp_path / "walk.csv"
    binary.write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match="cannot be read as text"):
        load_trajectory(binary)
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv"):
        load_trajectory(tmp_path / "nowhere.csv")


def test_options_of_another_kind_are_refused(tmp_path):
    aria, tum = tmp_path / "aria.csv", tmp_path / "tum.txt"
    aria.write_text("\n".join(aria_csv(*walk())))
    tum.write_text(tum_text(*walk()))
    for options in ({"convention": "openxr"}, {"fps": 30}):
        with pytest.raises(ValueError, match="is an Aria file"):
            load_trajectory(aria, **options)
    for options in ({"vrs": "x.vrs"}, {"world_uid": "a"}, {"device": "gen2"}):
        with pytest.raises(ValueError, match="is no Aria file"):
            load_trajectory(tum, **options)
    with pytest.raises(ValueError, match="points as a file"):
        load_trajectory(tum, points="semidense_points.csv.gz")


def assert_same_path(trajectory):
    """The walk, in a world that may be turned about the vertical and moved along the time."""
    poses, times = walk()
    np.testing.assert_allclose(trajectory.timestamps - trajectory.timestamps[0], times - times[0], atol=2e-6)
    assert trajectory.R_world_cpf[:, 2, :].numpy() == pytest.approx(poses[:, 2, :3], abs=1e-5)
    np.testing.assert_allclose(trajectory.p_world_cpf[:, 2], poses[:, 2, 3], atol=1e-5)
    # Distances to the first place, and how far the face has turned since.
    steps = (trajectory.p_world_cpf - trajectory.p_world_cpf[0]).norm(dim=1)
    np.testing.assert_allclose(steps, np.linalg.norm(poses[:, :3, 3] - poses[0, :3, 3], axis=1), atol=1e-5)


EUROC = (
    "#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z [],"
    "v_RS_R_x [m s^-1],b_w_RS_S_x [rad s^-1]"
)


@pytest.mark.parametrize(
    ("header", "unit", "separator"),
    [
        (EUROC, 1e9, ","),
        ("#timestamp [s],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z []", 1, ","),
        ("# timestamp tx ty tz qw qx qy qz", 1, " "),
        ("%time,field.pose.position.x,field.pose.position.y,field.pose.position.z,field.pose.orientation.x,"
         "field.pose.orientation.y,field.pose.orientation.z,field.pose.orientation.w", 1e9, ","),
        ("Timestamp,HeadPosX,HeadPosY,HeadPosZ,HeadRotX,HeadRotY,HeadRotZ,HeadRotW", 1, ","),
        ("timestamp_us;pos_x;pos_y;pos_z;rot_x;rot_y;rot_z;rot_w", 1e6, ";"),
        ("Time (ms)\thead_position.x\thead_position.y\thead_position.z\thead_rotation.w\thead_rotation.x\t"
         "head_rotation.y\thead_rotation.z", 1e3, "\t"),
        ("time,Position X,Position Y,Position Z,Rotation W,Rotation X,Rotation Y,Rotation Z", 1e3, ","),
        ("TIMESTAMP, X, Y, Z, QUAT_W, QUAT_X, QUAT_Y, QUAT_Z", 1e6, ","),
        ("stamp,HMDPosX,HMDPosY,HMDPosZ,HMDQuatX,HMDQuatY,HMDQuatZ,HMDQuatW,LeftHandPosX,LeftHandPosY,LeftHandPosZ,"
         "LeftHandQuatX,LeftHandQuatY,LeftHandQuatZ,LeftHandQuatW", 1, ","),
    ],
)  # fmt: skip
def test_columns_are_found_by_the_names_that_people_give_them(tmp_path, header, unit, separator):
    poses, times = walk()
    path = tmp_path / "log.csv"
    path.write_text(csv_of(header, poses, times * unit, separator).replace(".000000000", ""))
    assert_same_path(load_trajectory(path, floor_height=0.0))


@pytest.mark.parametrize("encode", [
    lambda text: ("\ufeff" + text).encode(),
    lambda text: text.replace("\n", "\r\n").encode(),
    lambda text: text.replace("\n", ",\n").encode(),
    lambda text: text.replace("\n", ",\n").replace("qz,", "qz", 1).encode(),
    lambda text: text.encode("utf-16"),
    lambda text: text.replace("\n", "\n\n").encode(),
    lambda text: ("# made with care, in one go\n" + text + "# end\n").encode(),
    lambda text: text.replace(",", ";").replace(".", ",").encode(),
    lambda text: text.replace("timestamp", '"timestamp"').replace(",", ", ").encode(),
])  # fmt: skip
def test_how_a_file_was_written_does_not_matter(tmp_path, encode):
    path = tmp_path / "log.csv"
    path.write_bytes(encode(csv_of("timestamp,x,y,z,qw,qx,qy,qz", *walk())))
    assert_walk(load_trajectory(path, floor_height=0.0))


def test_of_two_clocks_the_one_that_runs_counts(tmp_path):
    poses, times = walk()
    rows = csv_of("unix_time,ovr_timestamp,pos_x,pos_y,pos_z,rot_x,rot_y,rot_z,rot_w", poses, times).splitlines()
    # The wall's clock in whole milliseconds, and then a clock that has stopped before one that runs.
    table = [rows[0], *(f"{1_700_000_000_000 + 33 * i},{row.split(',', 1)[1]}" for i, row in enumerate(rows[1:]))]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(table))
    assert_walk(load_trajectory(path, floor_height=0.0))
    table = [rows[0], *(f"{row.split(',', 1)[0]},-1,{row.split(',', 2)[2]}" for row in rows[1:])]
    path.write_text("\n".join(table))
    assert_walk(load_trajectory(path, floor_height=0.0))


def test_seconds_and_nanoseconds_in_two_columns(tmp_path):
    poses, times = walk()
    rows = csv_of("timestamp,x,y,z,qw,qx,qy,qz", poses, times).splitlines()[1:]
    stamps = [f"{int(time)},{round(time % 1 * 1e9)}" for time in times]
    path = tmp_path / "log.csv"
    header = "header.stamp.sec,header.stamp.nanosec,x,y,z,qw,qx,qy,qz"
    path.write_text("\n".join([header, *(f"{s},{row.split(',', 1)[1]}" for s, row in zip(stamps, rows, strict=True))]))
    assert_walk(load_trajectory(path, floor_height=0.0))


def test_times_whose_unit_cannot_be_told_are_refused(tmp_path):
    # One pose a second of a walking head, in seconds: as milliseconds it would fly.
    poses, times = walk()
    path = tmp_path / "log.csv"
    path.write_text(csv_of("time,x,y,z,qw,qx,qy,qz", poses, 30 * times))
    with pytest.raises(ValueError, match=r"column time\) have no unit, and taken as milliseconds .* name the unit"):
        load_trajectory(path)


def test_a_unit_of_length_in_the_name_counts(tmp_path):
    poses, times = walk()
    millimeters = poses.copy()
    millimeters[:, :3, 3] *= 1000
    path = tmp_path / "log.csv"
    path.write_text(csv_of("time,x [mm],y [mm],z [mm],qw,qx,qy,qz", millimeters, times))
    assert_walk(load_trajectory(path, floor_height=0.0))
    path.write_text(csv_of("time,x,y,z,qw,qx,qy,qz", millimeters, times))
    with pytest.raises(ValueError, match=r"moves at 6\.\d+e\+03 m/s: its positions are not in meters.*x_mm"):
        load_trajectory(path)


def test_each_axis_has_the_unit_of_its_own_name(tmp_path):
    poses, times = walk()
    scaled = poses.copy()
    scaled[:, :3, 3] *= (100.0, 1.0, 1000.0)
    path = tmp_path / "log.csv"
    path.write_text(csv_of("time,x [cm],y [m],z [mm],qw,qx,qy,qz", scaled, times))
    assert_walk(load_trajectory(path, floor_height=0.0))
    # What is named for one axis alone goes for all.
    scaled = poses.copy()
    scaled[:, :3, 3] *= 100
    path.write_text(csv_of("time,x [cm],y,z,qw,qx,qy,qz", scaled, times))
    assert_walk(load_trajectory(path, floor_height=0.0))


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_line_ends_of_other_systems(tmp_path, end):
    path = tmp_path / "log.csv"
    path.write_bytes(csv_of("time,x,y,z,qw,qx,qy,qz", *walk()).replace("\n", end).encode())
    assert_walk(load_trajectory(path, floor_height=0.0))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Time,HeadPosX,HeadPosZ,HeadRotX,HeadRotY", "lacks the columns y, qw, qz .*HeadRotW.*It has Time, HeadPosX"),
        ("HeadPosX,HeadPosY,HeadPosZ,RotX,RotY,RotZ", "lacks the columns timestamp, qw .*fps.*Angles are not read"),
        ("t,LeftHandPosX,LeftHandPosY,LeftHandPosZ,rot_x,rot_y,rot_z,rot_w", "lacks the columns x, y, z "),
        ("t,ax,ay,az,velocity_x,velocity_y,velocity_z,qw,qx,qy,qz", "lacks the columns x, y, z "),
        ("t,a_pos_x,a_pos_y,a_pos_z,b_pos_x,b_pos_y,b_pos_z,qw,qx,qy,qz",
         r"several columns \(a_pos_x, a_pos_y, a_pos_z; b_pos_x, b_pos_y, b_pos_z\): keep those of the head"),
    ],
)  # fmt: skip
def test_all_missing_columns_and_the_accepted_names_are_told(tmp_path, header, message):
    path = tmp_path / "log.csv"
    path.write_text(header + "\n" + "\n".join(",".join(str(i) for _ in header.split(",")) for i in range(3)))
    with pytest.raises(ValueError, match=message):
        load_trajectory(path)


def test_rows_without_names_and_with_a_comma_at_their_end(tmp_path):
    path = tmp_path / "vins.csv"
    rows = csv_of("timestamp,x,y,z,qw,qx,qy,qz", walk()[0], 1e9 * walk()[1]).replace("\n", ",\n").splitlines()
    path.write_text("\n".join(rows[1:]))
    with pytest.raises(ValueError, match=r"Line 1 of .*vins.csv has 9 fields, the last one empty.*timestamp_ns,x,y"):
        load_trajectory(path)
    path.write_text("\n".join(["timestamp_ns,x,y,z,qw,qx,qy,qz", *rows[1:]]))
    assert_walk(load_trajectory(path, floor_height=0.0))


def test_rates_of_files_that_have_times_are_refused(tmp_path):
    path = tmp_path / "walk.csv"
    path.write_text(csv_of("timestamp,x,y,z,qw,qx,qy,qz", *walk()))
    with pytest.raises(ValueError, match="has its times in the column timestamp; leave out fps"):
        load_trajectory(path, fps=30)
    poses, times = walk()
    np.savez(tmp_path / "walk.npz", T_world_cpf=poses, timestamps=times)
    with pytest.raises(ValueError, match="says with its array timestamps when"):
        load_trajectory(tmp_path / "walk.npz", fps=30)


def test_the_floor_may_stand_in_a_column(tmp_path):
    path = tmp_path / "walk.csv"
    rows = csv_of("timestamp,x,y,z,qw,qx,qy,qz", *walk()).splitlines()
    path.write_text("\n".join([f"{rows[0]},floor_height", *(f"{row},-0.25" for row in rows[1:])]))
    trajectory = load_trajectory(path)
    assert (trajectory.floor_height, trajectory.floor_source) == (-0.25, "given")
    assert load_trajectory(path, floor_height=0.0).floor_height == 0.0
    path.write_text("\n".join([f"{rows[0]},floor_height", *(f"{row},{i}" for i, row in enumerate(rows[1:]))]))
    with pytest.raises(ValueError, match=r"column floor_height .* is not the same in all rows"):
        load_trajectory(path)


def test_a_floor_that_is_only_estimated_is_said(tmp_path):
    path = tmp_path / "walk.csv"
    path.write_text(csv_of("timestamp,x,y,z,qw,qx,qy,qz", *walk()))
    with pytest.warns(UserWarning, match=r"floor .*walk.csv is estimated .* load_trajectory\(path, floor_height=...\)"):
        load_trajectory(path)


@pytest.mark.parametrize("write", ["tum", "csv", "npz"])
@pytest.mark.parametrize(
    ("axes", "turn", "message"),
    [
        ("openxr", 2 * np.pi, r"looks y up: load_trajectory\(path, convention='openxr'\), or 'unity'"),
        ("unity", 2 * np.pi, r"looks y up: load_trajectory\(path, convention='openxr'\), or 'unity'"),
        ("openxr", 0.3, "looks y up"),
        ("camera", 2 * np.pi, r"look like a camera's .*load_trajectory\(path, convention='camera'\)"),
        ("camera", 0.3, "look like a camera's"),
        ("ros", 2 * np.pi, r"look like x forward, y left, z up: load_trajectory\(path, convention='ros'\)"),
        ("right up back / right down forward", 2 * np.pi, "a camera's .*, and the world y up: .*'right up"),
        ("forward left up / up left back", 2 * np.pi, r"axis x points along the world's z .*convention='WORLD / HEAD'"),
    ],
)  # fmt: skip
def test_axes_of_a_head_that_is_not_upright_are_recognized(tmp_path, write, axes, turn, message):
    poses, times = walk(turn=turn)
    given = in_axes(poses, axes)
    path = tmp_path / f"head.{'npz' if write == 'npz' else 'csv'}"
    if write == "npz":
        np.savez(path, T_world_cpf=wxyz_xyz(given), timestamps=times)
    else:
        header = "timestamp,x,y,z,qw,qx,qy,qz"
        path.write_text(tum_text(given, times) if write == "tum" else csv_of(header, given, times))
    with pytest.raises(ValueError, match=message):
        load_trajectory(path)
    trajectory = load_trajectory(path, convention=axes, floor_height=0.0)
    np.testing.assert_allclose(trajectory.R_world_cpf, poses[:, :3, :3], atol=1e-5)
    np.testing.assert_allclose(trajectory.p_world_cpf, poses[:, :3, 3], atol=1e-5)
    with pytest.warns(UserWarning, match="not upright"):
        load_trajectory(path, convention="cpf")  # said so, then it is so


def test_camera_axes_at_a_heading_of_180_degrees_are_no_swapped_quaternions(tmp_path):
    # The mistake that they look like needs a heading near 180 degrees throughout.
    poses, times = walk(turn=0.3)
    half_turn = np.diag([-1.0, -1, 1, 1])
    path = tmp_path / "slam.txt"
    path.write_text(tum_text(in_axes(half_turn @ poses, "camera"), times))
    with pytest.raises(ValueError, match="look like a camera's") as refused:
        load_trajectory(path)
    assert "w x y z" not in str(refused.value)


def test_rows_without_names_whose_w_comes_first(tmp_path):
    # Of a head that only turns about the vertical, w first looks like a camera's axes in a y-up world.
    heading = np.linspace(0, 3, 60)
    poses, times = walk()
    poses[:, :3, 2] = np.stack([np.cos(heading), np.sin(heading), 0 * heading], axis=1)
    poses[:, :3, 0] = np.stack([-np.sin(heading), np.cos(heading), 0 * heading], axis=1)
    poses[:, :3, 1] = [0, 0, 1]
    path = tmp_path / "log.csv"
    text = csv_of("time,x,y,z,qw,qx,qy,qz", in_axes(poses, "openxr"), times)
    path.write_text(text.partition("\n")[2])
    with pytest.raises(ValueError, match="look like w x y z, and not x y z w as rows without column names have them"):
        load_trajectory(path, convention="openxr")
    with pytest.raises(ValueError, match="time tx ty tz qx qy qz qw: name them if they are others"):
        load_trajectory(path)
    path.write_text(text)
    np.testing.assert_allclose(load_trajectory(path, convention="openxr").R_world_cpf, poses[:, :3, :3], atol=1e-5)


def test_reading_columns_prints_nothing_about_memory(tmp_path, capfd):
    path = tmp_path / "walk.txt"
    path.write_text(tum_text(*walk()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_trajectory(path, floor_height=0.0).resample(72)
        strided = torch.from_numpy(np.stack([walk()[1]] * 2, axis=1))[:, 0]
        HeadTrajectory.from_matrices(walk()[0], timestamps=strided, floor_height=0.0).at(strided[::2])
    assert "contiguous" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"fps": np.array([60.0, 60.0])}, r"has an array fps of shape \(2,\) .* save one number"),
        ({"fps": np.array("sixty")}, r"has an array fps of shape \(\) and type <U5; save one number"),
        ({"fps": 60.0, "floor_height": np.zeros(2)}, r"has an array floor_height of shape \(2,\) .* save one number"),
    ],
)
def test_what_is_no_number_in_an_npz_is_named(tmp_path, arrays, message):
    np.savez(tmp_path / "head.npz", T_world_cpf=walk()[0], **arrays)
    with pytest.raises(ValueError, match=message):
        load_trajectory(tmp_path / "head.npz")


def test_text_that_is_called_npz_is_not_told_to_unpickle(tmp_path):
    path = tmp_path / "head.npz"
    path.write_text(csv_text("time,x,y,z,qw,qx,qy,qz"))
    with pytest.raises(ValueError, match=r"cannot be read as an npz, .* end in \.csv or \.txt") as error:
        load_trajectory(path)
    assert "pickle" not in str(error.value)
