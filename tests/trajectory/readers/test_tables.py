"""Files that are not quite what their names say, and cells that are no numbers."""

import gzip

import numpy as np
import pytest

from motion_grpo.trajectory import load_trajectory
from tests.trajectory.helpers import aria_csv, csv_of, walk

HEADER = "time,x,y,z,qw,qx,qy,qz"


@pytest.mark.parametrize("aria", [False, True])
@pytest.mark.parametrize(("name", "gzipped"), [("walk.csv", True), ("walk.csv.gz", False), ("walk.csv.gz", True)])
def test_whether_a_file_is_gzipped_is_seen_in_it_and_not_in_its_name(tmp_path, aria, name, gzipped):
    poses, times = walk()
    text = "\n".join([*aria_csv(poses, times), ""]) if aria else csv_of(HEADER, poses, times)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if gzipped else text.encode())
    options = {"T_device_cpf": np.eye(4)} if aria else {}
    read = load_trajectory(path, floor_height=0.0, **options)
    np.testing.assert_allclose(read.p_world_cpf, poses[:, :3, 3], atol=1e-6)


def test_a_date_where_a_time_belongs_is_told_what_to_do(tmp_path):
    path = tmp_path / "log.csv"
    rows = csv_of(HEADER, *walk()).splitlines()
    rows[1] = "2026-05-01T10:00:00," + rows[1].partition(",")[2]
    path.write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"Line 2 .*column time\): write one, or delete that line. Times are numbers"):
        load_trajectory(path)


@pytest.mark.parametrize("change", ["comment", "semicolons", "utf-16"])
def test_an_edited_aria_file_is_not_read_as_anybody_elses(tmp_path, change):
    text = "\n".join([*aria_csv(*walk()), ""])
    text = {"comment": f"# from MPS\n{text}", "semicolons": text.replace(",", ";")}.get(change, text)
    path = tmp_path / "closed_loop_trajectory.csv"
    path.write_text(text, encoding="utf-16" if change == "utf-16" else "utf-8")
    if change == "semicolons":
        with pytest.raises(ValueError, match="lacks the columns tracking_timestamp_us"):
            load_trajectory(path)
    else:
        with pytest.raises(ValueError, match="has the columns of an Aria trajectory, but not in its first line"):
            load_trajectory(path)
