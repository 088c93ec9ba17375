"""Which columns are what, by their names."""

import pytest

from motion_grpo.trajectory import load_hands, load_trajectory
from motion_grpo.trajectory.readers.columns import find_columns, find_wrist
from tests.trajectory.helpers import csv_of, in_axes, walk

ROTATION = "qw qx qy qz"


@pytest.mark.parametrize(
    ("names", "meters"),
    [
        ("time x_mm y_mm z_mm", 1e-3),
        ("time pos_x_mm pos_y_mm pos_z_mm", 1e-3),
        ("time x_cm y_cm z_cm", 1e-2),
        ("time x[centimeters] y[centimeters] z[centimeters]", 1e-2),
        ("time x(millimetres) y(millimetres) z(millimetres)", 1e-3),
        ("time x(ft) y(ft) z(ft)", 0.3048),
        ("time x[in] y[in] z[in]", 0.0254),
        ("time x[km] y[km] z[km]", 1e3),
        ("time pos_in_world_x pos_in_world_y pos_in_world_z", None),
        ("time x y z", None),
    ],
)
def test_a_unit_of_length_counts_wherever_the_name_has_it(names, meters):
    found = find_columns("log.csv", f"{names} {ROTATION}".split(), need_time=True)
    assert found.position == (1, 2, 3)
    assert found.metres_per_unit == (meters and (meters, meters, meters))


def test_a_unit_of_length_of_a_wrist_counts_too():
    names = [f"left_wrist_{part}" for part in ("x_mm", "y_mm", "z_mm", *ROTATION.split())]
    assert find_wrist("log.csv", [*names, "left_visible"], "left").metres_per_unit == (1e-3, 1e-3, 1e-3)


def test_wrists_of_a_converted_head_are_refused_however_its_file_is_called(tmp_path, monkeypatch):
    names = [f"left_wrist_{part}" for part in ("x", "y", "z", "qw", "qx", "qy", "qz")]
    poses, times = walk()
    rows = csv_of("time,x,y,z,qw,qx,qy,qz", in_axes(poses, "openxr"), times).splitlines()
    (tmp_path / "log.csv").write_text(
        "\n".join([",".join([rows[0], *names, "left_visible"]), *(f"{row},1,1,1,1,0,0,0,1" for row in rows[1:])])
    )
    head = load_trajectory(tmp_path / "log.csv", convention="openxr", floor_height=0.0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="its wrists cannot be"):
        load_hands("log.csv", head)
