import numpy as np
import pytest

from motion_grpo.viz.raster import Camera, rasterise, render, render_shadow, vertex_normals

CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
CUBE_FACES = np.array(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip
BOX = (-1.0, 1.0, -1.0, 1.0)


@pytest.mark.parametrize("azimuth", [0.0, 25.0, 60.0])
@pytest.mark.parametrize("heading", [0.0, 1.0, 2.5, -2.0])
def test_the_walker_goes_right_and_shows_the_right_side(azimuth: float, heading: float) -> None:
    ahead = np.array([np.cos(heading), np.sin(heading)])
    camera = Camera.beside(3.0 * ahead, azimuth=azimuth, elevation=12.0)
    np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.axes) == pytest.approx(1.0)
    right, up, near = camera.project(np.array([*ahead, 0.0]))
    assert right == pytest.approx(np.cos(np.deg2rad(azimuth)))
    assert near == pytest.approx(np.sin(np.deg2rad(azimuth)) * np.cos(np.deg2rad(12.0)))
    # Above the horizon: what is nearer is lower in the picture, and vertical is vertical.
    assert up == pytest.approx(-np.sin(np.deg2rad(azimuth)) * np.sin(np.deg2rad(12.0)))
    vertical = camera.project(np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(vertical, [0, np.cos(np.deg2rad(12.0)), np.sin(np.deg2rad(12.0))], atol=1e-12)
    right_hand = np.array([ahead[1], -ahead[0], 0.0])
    assert camera.project(right_hand)[2] > 0


def test_values_are_interpolated_at_pixel_centres() -> None:
    corners = np.array([[0.0, 0.0, 0.0], [40.0, 0.0, 0.0], [0.0, 30.0, 3.0]])
    image, near = rasterise(corners, corners[:, :2], np.array([[0, 1, 2]]), (30, 40))
    x, y = np.meshgrid(np.arange(40) + 0.5, 29.5 - np.arange(30))  # the first row is the top
    inside = x / 40 + y / 30 < 1
    np.testing.assert_array_equal(np.isfinite(near)[x / 40 + y / 30 != 1], inside[x / 40 + y / 30 != 1])
    np.testing.assert_allclose(image[inside], np.stack([x, y], -1)[inside], atol=1e-4)
    np.testing.assert_allclose(near[inside], y[inside] / 10, atol=1e-4)


def test_small_triangles_tile_without_gaps_or_ghosts() -> None:
    rng = np.random.default_rng(0)
    n = 23
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2) * 2.3 - 4.0
    points = np.concatenate([grid + rng.uniform(-0.4, 0.4, grid.shape), rng.normal(size=(n * n, 1))], axis=1)
    corner = np.arange(n * n).reshape(n, n)
    a, b, c, d = (q.ravel() for q in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    image, near = rasterise(points, np.ones((n * n, 1)), faces, (40, 40))
    assert np.isfinite(near).all()
    np.testing.assert_allclose(image, 1.0, atol=1e-6)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_nearest_wins_and_backs_are_not_seen(order: list[int]) -> None:
    triangle = np.array([[0.0, 0, 0], [20, 0, 0], [0, 20, 0]])
    points = np.concatenate([np.add(triangle, (0, 0, depth)) for depth in (0.0, 5.0, 9.0)])
    values = np.repeat([[1.0], [2.0], [3.0]], 3, axis=0)
    faces = np.array([[0, 1, 2], [3, 4, 5]])[order]
    back = np.array([[6, 8, 7]])
    image, near = rasterise(points, values, np.concatenate([faces, back]), (20, 20))
    assert set(np.unique(image)) == {0.0, 2.0}
    assert set(np.unique(near)) == {-np.inf, 5.0}


def test_what_is_outside_the_picture_is_left_out() -> None:
    triangle = np.array([[-300.0, 0, 0], [-280, 0, 0], [-300, 20, 0]])
    _, near = rasterise(triangle, np.ones((3, 1)), np.array([[0, 1, 2]]), (10, 10))
    assert not np.isfinite(near).any()


def test_normals_of_a_cube_point_away_from_its_centre() -> None:
    normals = vertex_normals(CUBE, CUBE_FACES)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1.0)
    assert ((normals * CUBE).sum(-1) > 0.6).all()


def test_a_cube_covers_its_silhouette_in_its_color() -> None:
    camera = Camera.beside(np.array([1.0, 0.0]), azimuth=0.0, elevation=0.0)
    image = render(CUBE, CUBE_FACES, camera, BOX, (50, 50), (0.2, 0.4, 0.8))
    assert image.shape == (100, 100, 4)
    np.testing.assert_array_equal(image[..., 3], np.pad(np.ones((50, 50)), 25))
    body = image[30:70, 30:70, :3]
    assert body.max() <= 1
    np.testing.assert_allclose(body[..., 2], 4 * body[..., 0], rtol=1e-4)


def test_the_shadow_falls_straight_down() -> None:
    camera = Camera.beside(np.array([1.0, 0.0]), azimuth=0.0, elevation=30.0)
    small = 0.4 * CUBE + (0.3, 0.0, 1.5)
    shadow = render_shadow(small, CUBE_FACES, camera, BOX, (50, 50), floor=0.2)
    rows, columns = np.indices(shadow.shape)
    center = np.array([(columns * shadow).sum(), (rows * shadow).sum()]) / shadow.sum()
    right, up, _ = camera.project(np.array([0.3, 0.0, 0.2]))
    np.testing.assert_allclose(center, [50 * (right + 1) - 0.5, 50 * (1 - up) - 0.5], atol=0.6)
    # 0.4 m wide and 0.4 m deep, seen from 30 degrees above.
    assert shadow.sum() / 50**2 == pytest.approx(0.4 * 0.4 * np.sin(np.deg2rad(30)), rel=0.05)
