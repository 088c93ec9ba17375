"""TUM, CSV and npz, and telling files apart by content."""

import gzip

import numpy as np
import pytest

from motion_grpo.trajectory import load_trajectory, read_npz
from tests.trajectory.helpers import aria_csv, quaternions, tum_text, walk, wxyz_xyz


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
    with pytest.raises(ValueError, match=r"lacks the columns timestamp.*or pass fps"):
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


def test_gaps_stop_split_or_stay(tmp_path):
    poses, times = walk()
    times[25:] += 0.7
    path = tmp_path / "t.txt"
    path.write_text(tum_text(poses, times))
    with pytest.raises(ValueError, match=r"t.txt has 1 gap.* 0.73 s, after frame 24"):
        load_trajectory(path)
    assert [len(piece) for piece in load_trajectory(path, on_gap="split")] == [25, 35]
    assert len(load_trajectory(path, on_gap="keep")) == 60
    with pytest.raises(ValueError, match="on_gap is 'ignore'"):
        load_trajectory(path, on_gap="ignore")


def test_tum_with_w_first_is_recognised(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(tum_text(*walk(), columns=(3, 0, 1, 2)))
    with pytest.raises(ValueError, match="look like w x y z, and TUM text has w last"):
        load_trajectory(path)


TUM = tum_text(*walk()).splitlines()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "a.txt is empty"),
        ("a.txt", "# nothing\n", "a.txt holds no poses"),
        ("a.txt", "\n".join(TUM[:2]), "at least 2 poses.*a.txt has 1"),
        ("a.txt", "\n".join([*TUM[:5], TUM[5][:30]]), "Line 6 is no row of the 8 numbers.*'100.1333"),
        ("a.txt", "\n".join([*TUM[:5], TUM[5].replace("1", "x"), *TUM[6:]]), "a.txt cannot be .*Line 6 is no row"),
        ("a.txt", "# t x y\n1 2 3\n2 3 4\n", "Line 2 is no row of the 8 numbers.*'1 2 3'"),
        ("a.txt", "hello world\n", "none of the trajectories known here"),
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
    for options in ({"vrs": "x.vrs"}, {"world_uid": "a"}):
        with pytest.raises(ValueError, match="is no Aria file"):
            load_trajectory(tum, **options)
    with pytest.raises(ValueError, match="points as a file"):
        load_trajectory(tum, points="semidense_points.csv.gz")
