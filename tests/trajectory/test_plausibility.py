"""Heads that move as no wearer does."""

import warnings

import numpy as np
import pytest

from motion_grpo.trajectory import load_trajectory
from tests.trajectory.helpers import csv_of, in_axes


def ahead(seconds: float = 4.0, speed: float = 1.2, fps: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    """T_world_cpf of a level head that goes where it looks, along +x, and its times."""
    times = np.arange(int(seconds * fps)) / fps
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, :3, :3] = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    poses[:, 0, 3], poses[:, 2, 3] = speed * times, 1.6
    return poses, times


def test_a_head_that_walks_backwards_all_the_time_is_pointed_out(tmp_path):
    # Unity's and OpenXR's heads are both upright in either's axes, but look opposite ways.
    path = tmp_path / "head.csv"
    path.write_text(csv_of("time,x,y,z,qw,qx,qy,qz", in_axes(ahead()[0], "openxr"), ahead()[1]))
    with pytest.warns(UserWarning, match="faces away from where it goes"):
        load_trajectory(path, convention="unity", floor_height=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_trajectory(path, convention="openxr", floor_height=0.0)


@pytest.mark.parametrize(("seconds", "speed"), [(4.0, -0.3), (1.5, -1.2), (1 / 15, -1.2)])
def test_a_few_steps_back_are_nothing(tmp_path, seconds, speed):
    path = tmp_path / "head.csv"
    path.write_text(csv_of("time,x,y,z,qw,qx,qy,qz", *ahead(seconds, speed)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_trajectory(path, floor_height=0.0)


@pytest.mark.parametrize(("frames", "count"), [(slice(60, None), 1), (slice(60, 61), 2)])
def test_a_head_that_jumps_is_pointed_out(tmp_path, frames, count):
    # Tracking began anew elsewhere, or says for a frame that the head is at the origin.
    poses, times = ahead()
    poses[frames, 1, 3] += 3.0
    path = tmp_path / "head.csv"
    path.write_text(csv_of("time,x,y,z,qw,qx,qy,qz", poses, times))
    with pytest.warns(
        UserWarning, match=rf"jumps {count} time\(s\), by 3 m after frame (59|60) at .* tracking was lost"
    ):
        load_trajectory(path, floor_height=0.0)


def standing(seconds: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Nods and sways as somebody does who stands and talks: 1 cm, 3 cm/s."""
    poses, times = ahead(seconds, speed=0.0)
    poses[:, :3, 3] += 0.01 * np.sin(3.0 * times[:, None] + np.arange(3))
    return poses, times


@pytest.mark.parametrize("axes", [(100.0, 100.0, 100.0), (1.0, 1.0, 100.0)])
def test_centimeters_without_a_name_are_pointed_out(tmp_path, axes):
    path = tmp_path / "head.csv"
    poses, times = standing()
    path.write_text(csv_of("time,x,y,z,qw,qx,qy,qz", poses, times))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_trajectory(path, floor_height=0.0)
    poses[:, :3, 3] *= axes
    path.write_text(csv_of("time,x,y,z,qw,qx,qy,qz", poses, times))
    with pytest.warns(UserWarning, match="is 160 m up in the median: check the unit"):
        load_trajectory(path)
    # SLAM counts from where the recording begins.
    poses[:, 2, 3] -= poses[0, 2, 3]
    path.write_text(csv_of("time,x,y,z,qw,qx,qy,qz", poses, times))
    with pytest.warns(UserWarning, match=r"rises and falls at \d.* m/s in the median"):
        load_trajectory(path)


@pytest.mark.parametrize("unit", [100.0, 1000.0])
def test_a_walk_in_another_unit_is_refused(tmp_path, unit):
    path = tmp_path / "head.csv"
    poses, times = ahead()
    poses[:, :3, 3] *= unit
    path.write_text(csv_of("time,x,y,z,qw,qx,qy,qz", poses, times))
    with pytest.raises(ValueError, match=r"moves at 1.* m/s: its positions are not in meters"):
        load_trajectory(path)
