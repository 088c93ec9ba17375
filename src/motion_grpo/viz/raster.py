"""A small software renderer: triangles to a shaded picture, on the CPU, with nothing but numpy."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped
from scipy.ndimage import gaussian_filter

_SUPERSAMPLE = 2
_AMBIENT, _DIFFUSE = 0.5, 0.75
# Right, up, towards the viewer: over the viewer's right shoulder, onto the face of one who walks from left to right.
_LIGHT = np.array([0.4, 0.65, 0.65]) / np.linalg.norm([0.4, 0.65, 0.65])
_OUTLINE_STEP = 0.05  # meters
_SHADOW_BLUR = 0.02  # meters


@dataclass(frozen=True)
class Camera:
    """An orthographic camera."""

    axes: Float64[np.ndarray, "3 3"]
    """Rows: right, up and towards the viewer, unit vectors of the z-up world."""

    @staticmethod
    def beside(direction: Float64[np.ndarray, "2"], azimuth: float = 25.0, elevation: float = 12.0) -> "Camera":
        """Stands to the right of somebody who walks along ``direction``, who thus walks from left to right.

        Args:
            direction: horizontal, of any length but zero.
            azimuth: degrees by which the camera is ahead of the walker: 0 sees the profile, 90 the face.
            elevation: degrees above the horizon.
        """
        ahead = np.array([*direction, 0.0]) / np.linalg.norm(direction)
        up = np.array([0.0, 0.0, 1.0])
        turn, rise = np.deg2rad([azimuth, elevation])
        level = np.cos(turn) * np.cross(ahead, up) + np.sin(turn) * ahead
        viewer = np.cos(rise) * level + np.sin(rise) * up
        right = np.cross(up, level)
        return Camera(np.stack([right, np.cross(viewer, right), viewer]))

    def project(self, points: Shaped[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3"]:
        """World points to meters right, up and towards the viewer."""
        return np.asarray(points, dtype=np.float64) @ self.axes.T


def rasterise(
    points: Float64[np.ndarray, "vertices 3"],
    values: Float64[np.ndarray, "vertices channels"],
    faces: Int64[np.ndarray, "faces 3"],
    size: tuple[int, int],
) -> tuple[Float32[np.ndarray, "height width channels"], Float32[np.ndarray, "height width"]]:
    """Interpolates ``values`` over the triangles that face the viewer; the nearest one wins.

    Args:
        points: pixels right, pixels up (origin at the lower left corner), and nearness to the viewer in any unit.
        faces: counter-clockwise as seen from outside.
        size: (height, width) in pixels.

    Returns:
        The values, and the nearness; where no triangle is, 0 and minus infinity. The first row is the top one.
    """
    height, width = size
    ax, ay, bx, by, cx, cy = (points[faces[:, corner], axis] for corner in range(3) for axis in range(2))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    # Pixel centers lie at half-integers.
    x0 = np.ceil(np.minimum(np.minimum(ax, bx), cx) - 0.5)
    y0 = np.ceil(np.minimum(np.minimum(ay, by), cy) - 0.5)
    x1 = np.floor(np.maximum(np.maximum(ax, bx), cx) - 0.5)
    y1 = np.floor(np.maximum(np.maximum(ay, by), cy) - 0.5)
    visible = (area > 1e-9) & (x1 >= x0) & (y1 >= y0) & (x1 >= 0) & (y1 >= 0) & (x0 < width) & (y0 < height)
    extent = np.where(visible, np.maximum(x1 - x0, y1 - y0) + 1, 0)

    pixels, nearness, shown = [], [], []
    side = 1
    while (extent > side // 2).any():  # triangles of about equal extent at a time
        group = np.flatnonzero((extent > side // 2) & (extent <= side))
        step_x, step_y = (step.ravel() for step in np.meshgrid(np.arange(side), np.arange(side)))
        x, y = x0[group, None] + step_x, y0[group, None] + step_y
        right, up = x + 0.5 - ax[group, None], y + 0.5 - ay[group, None]
        u = (right * (cy - ay)[group, None] - up * (cx - ax)[group, None]) / area[group, None]
        v = (up * (bx - ax)[group, None] - right * (by - ay)[group, None]) / area[group, None]
        inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
        weights = np.stack([1 - u[inside] - v[inside], u[inside], v[inside]], axis=-1)
        triangle = faces[group[np.nonzero(inside)[0]]]
        pixels.append(((height - 1 - y[inside]) * width + x[inside]).astype(np.int64))
        nearness.append((weights * points[triangle, 2]).sum(-1))
        shown.append(np.einsum("nk,nkc->nc", weights, values[triangle]))
        side *= 2

    image = np.zeros((height * width, values.shape[1]), dtype=np.float32)
    near = np.full(height * width, -np.inf, dtype=np.float32)
    if pixels:
        order = np.argsort(np.concatenate(nearness), kind="stable")
        pixel = np.concatenate(pixels)[order]  # assigned in this order: the last, nearest, stays
        image[pixel] = np.concatenate(shown)[order]
        near[pixel] = np.concatenate(nearness)[order]
    return image.reshape(height, width, -1), near.reshape(height, width)


def render(
    vertices: Shaped[np.ndarray, "vertices 3"],
    faces: Int64[np.ndarray, "faces 3"],
    camera: Camera,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    color: tuple[float, float, float],
) -> Float32[np.ndarray, "rows columns 4"]:
    """A matt picture of a closed mesh: RGBA in [0, 1], twice ``size``, so that the caller can scale it down smoothly.

    Args:
        vertices: world, meters.
        box: left, right, bottom and top of the picture in the camera's plane, meters.
        size: (height, width) in pixels.
        color: red, green and blue in [0, 1].
    """
    seen = camera.project(vertices)
    points, size = _to_pixels(seen, box, size)
    normals, near = rasterise(points, vertex_normals(seen, faces), faces, size)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)

    light = _AMBIENT * (0.85 + 0.15 * normals[..., 1]) + _DIFFUSE * np.maximum(normals @ _LIGHT, 0)
    light *= np.where(_outline(near), 0.6, 1.0)
    covered = np.isfinite(near)
    image = np.empty((*size, 4), dtype=np.float32)
    # The color goes on outside the body, where it is transparent: scaling down then leaves no fringe.
    image[..., :3] = np.clip(np.where(covered, light, 1.0)[..., None] * color, 0, 1)
    image[..., 3] = covered
    return image


def render_shadow(
    vertices: Shaped[np.ndarray, "vertices 3"],
    faces: Int64[np.ndarray, "faces 3"],
    camera: Camera,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    floor: float = 0.0,
) -> Float32[np.ndarray, "rows columns"]:
    """The body's shadow, straight down on the floor at height ``floor`` (meters), in [0, 1]; as :func:`render`."""
    flat = np.concatenate([vertices[:, :2], np.full((len(vertices), 1), floor)], axis=1)
    points, size = _to_pixels(camera.project(flat), box, size)
    _, near = rasterise(points, np.zeros((len(points), 0)), faces, size)
    pixels_per_metre = size[0] / (box[3] - box[2])
    return gaussian_filter(np.isfinite(near).astype(np.float32), _SHADOW_BLUR * pixels_per_metre)


def _to_pixels(
    seen: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    height, width = (_SUPERSAMPLE * n for n in size)
    left, right, bottom, top = box
    points = (seen - (left, bottom, 0.0)) * (width / (right - left), height / (top - bottom), 1.0)
    return points, (height, width)


def vertex_normals(
    vertices: Float64[np.ndarray, "vertices 3"], faces: Int64[np.ndarray, "faces 3"]
) -> Float64[np.ndarray, "vertices 3"]:
    """Unit normals: mean of the faces around a vertex, weighted by area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face_normals = np.cross(b - a, c - a)
    corner, repeated = faces.T.ravel(), np.tile(face_normals, (3, 1))
    sums = [np.bincount(corner, repeated[:, k], minlength=len(vertices)) for k in range(3)]
    normals = np.stack(sums, axis=-1)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


def _outline(near: np.ndarray) -> np.ndarray:
    """Pixels behind which the body falls off, so that an arm stands out from the trunk."""
    padded = np.pad(np.where(np.isfinite(near), near, -1e3), 1, constant_values=-1e3)
    neighbors = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    return np.isfinite(near) & (near - np.minimum.reduce(neighbors) > _OUTLINE_STEP)
