"""The floor: from made clouds whose answer is known, and from the recorded one."""

import numpy as np
import pytest

from motion_grpo.trajectory import HeadTrajectory, floor_from_head, floor_from_points, read_points
from tests.conftest import shared_path
from tests.trajectory.helpers import walk


def plane(rng: np.random.Generator, height: float, count: int, width: float = 2.0, noise: float = 0.008) -> np.ndarray:
    return np.column_stack([rng.uniform(-width, width, (count, 2)), rng.normal(height, noise, count)])


@pytest.fixture
def head() -> np.ndarray:
    return walk()[0][:, :3, 3] - [0, 0, 1.6]  # eyes at z = 0, as in a recording whose origin is its start


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_the_floor_and_not_the_better_textured_table_is_found(head, rng):
    cloud = np.concatenate([plane(rng, -1.6, 1000), plane(rng, -0.85, 3000, 0.6), plane(rng, 0.8, 2000)])
    assert floor_from_points(cloud, head) == pytest.approx(-1.6, abs=0.005)


def test_noise_under_the_floor_and_other_storeys_do_not_matter(head, rng):
    noise = np.column_stack([rng.uniform(-3, 3, (800, 2)), rng.uniform(-3, 1, 800)])
    cloud = np.concatenate([plane(rng, -1.6, 1000), plane(rng, -4.4, 9000), noise])
    assert floor_from_points(cloud, head) == pytest.approx(-1.6, abs=0.01)


def test_a_lower_floor_far_from_the_path_is_not_the_wearers(head, rng):
    far = plane(rng, -2.0, 5000) + np.array([30.0, 0, 0])
    assert floor_from_points(np.concatenate([plane(rng, -1.6, 500), far]), head) == pytest.approx(-1.6, abs=0.01)


def test_result_does_not_depend_on_the_order_of_the_points(head, rng):
    cloud = np.concatenate([plane(rng, -1.6, 1000), plane(rng, -0.85, 1500, 0.6)])
    assert floor_from_points(cloud, head) == floor_from_points(rng.permutation(cloud), head)


@pytest.mark.parametrize("count", [0, 20])
def test_a_cloud_without_a_floor_gives_none_and_then_the_head_decides(head, rng, count):
    cloud = plane(rng, -1.6, count)
    assert floor_from_points(cloud, head) is None
    poses = walk()[0]
    with pytest.warns(UserWarning, match="shows no floor"):
        trajectory = HeadTrajectory.from_matrices(poses, fps=30, points=cloud)
    assert trajectory.floor_source == "estimated from the head"


def test_the_estimate_from_the_head_takes_the_height_it_stands_at():
    # Nine tenths of the time seated at 1.2 m, else standing at 1.57 m, one jump: the floor is at 0.
    heights = np.full(1000, 1.2)
    heights[-150:] = 1.57
    heights[-1] = 2.0
    assert floor_from_head(heights) == pytest.approx(0.0, abs=1e-9)


def test_points_of_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(points, 3\), not \(4,\)"):
        HeadTrajectory.from_matrices(walk()[0], fps=30, points=np.zeros(4))


def test_uncertain_points_and_other_worlds_are_dropped(tmp_path):
    path = tmp_path / "semidense_points.csv"
    path.write_text(
        "uid,graph_uid,px_world,py_world,pz_world,inv_dist_std,dist_std\n"
        "1,a,1,2,3,0.001,0.001\n"
        "2,a,4,5,6,0.100,0.001\n"
        "3,a,7,8,9,0.001,0.100\n"
        "4,b,1,1,1,0.001,0.001\n"
        "5,a,nan,1,1,0.001,0.001\n"
    )
    np.testing.assert_array_equal(read_points(path), [[1, 2, 3], [1, 1, 1]])
    np.testing.assert_array_equal(read_points(path, "a"), [[1, 2, 3]])
    path.write_text("uid,px_world,py_world\n1,2,3\n")
    with pytest.raises(ValueError, match=r"semidense_points.csv lacks the columns pz_world, inv_dist_std, dist_std"):
        read_points(path)


def test_real_point_cloud():
    points = read_points(shared_path("samples/aria_gen1_mps/global_points.csv.gz"))
    assert 5_000 < len(points) < 33_158
    assert np.isfinite(points).all()
