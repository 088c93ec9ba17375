"""Which columns are what, by their names."""

import pytest

from motion_grpo.trajectory.readers.columns import find_columns, find_wrist

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
    assert found.metres_per_unit == meters


def test_a_unit_of_length_of_a_wrist_counts_too():
    names = [f"left_wrist_{part}" for part in ("x_mm", "y_mm", "z_mm", *ROTATION.split())]
    assert find_wrist("log.csv", [*names, "left_visible"], "left").metres_per_unit == 1e-3
