"""One picture of one or several motions: a film strip of the body, the floor plan, the head's height and the error."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import shorten

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from motion_grpo.body import HEAD, NUM_BODY_AND_ROOT, PARENTS, cpf_of
from motion_grpo.motion import Motion
from motion_grpo.viz.figures import (
    COLORS,
    FAINT,
    FLOOR,
    FONT_SIZE,
    INK,
    PAPER,
    WIDTH,
    check_picture_path,
    new_figure,
    save_figure,
    style_axes,
)
from motion_grpo.viz.mesh import MANNEQUIN_BODIES, mannequin_faces, mannequin_vertices
from motion_grpo.viz.raster import Camera, render, render_shadow
from motion_grpo.viz.timing import frames_at, shared_time

MAX_POSES = 16
_BONES = np.array([(PARENTS[joint], joint) for joint in range(1, NUM_BODY_AND_ROOT)])
_GRID = 0.5  # meters
_FLOOR_DEPTH = 0.75  # meters of floor before and behind the body
_MARGIN = 0.08  # meters of air around the bodies
_REACH = 3.0  # meters about the reference; what is further away is not shown
_MIN_TRAVEL = 0.7  # meters; who moves less has no walking direction, and is seen from the side they face
_MIN_PLAN, _MIN_HEIGHTS = 1.0, 0.2  # meters; panels show no less, so that a person at rest is seen to be

# Pixels.
_SIDE, _GAP, _TITLE, _HEADER, _TIMES, _PANELS = 44, 6, 52, 34, 30, 340
_MAX_FRAME = (420, 520)

_REFERENCE_COLOR = COLORS[1]


@dataclass(frozen=True)
class _Row:
    """What one row of frames shows: a motion with its floor moved to z = 0, as arrays."""

    name: str
    motion: Motion
    color: str
    frames: Int64[np.ndarray, " poses"]
    """The frames that are drawn as bodies."""

    def _above_floor(self, points) -> np.ndarray:
        return np.asarray(points, dtype=np.float64) - (0.0, 0.0, self.motion.floor_height)

    @cached_property
    def joints(self) -> Float64[np.ndarray, "frames 22 3"]:
        return self._above_floor(self.motion.joints[:, :NUM_BODY_AND_ROOT])

    @cached_property
    def head_path(self) -> Float64[np.ndarray, "frames 3"]:
        return self._above_floor(head_path(self.motion))

    @cached_property
    def vertices(self) -> Float64[np.ndarray, "poses vertices 3"] | None:
        """None for a body without a mesh."""
        if self.motion.body.name not in MANNEQUIN_BODIES:
            return None
        return self._above_floor(mannequin_vertices(self.motion, self.frames.tolist()))

    @property
    def outline(self) -> Float64[np.ndarray, "poses points 3"]:
        return self.joints[self.frames] if self.vertices is None else self.vertices


def draw_strip(
    motions: Mapping[str, Motion], path: str | Path, *, num_poses: int = 8, title: str | None = None
) -> Path:
    """Draws motions for a person to look at, 1600 pixels wide.

    One row of film frames a motion: poses evenly spaced in the time that all motions share, seen by an orthographic
    camera from the right of the main walking direction, somewhat from ahead and above. The camera follows the last
    motion, which the others are compared with (give the ground truth last); its skeleton is laid over the other rows.
    The floor has a grid fixed to the world, every 0.5 m, and every frame shows the head's path from the pose before to
    the pose after. Below: the head paths from above (meters), the height of the eyes and, for two motions, the distance
    of their joints over time. The mean of the latter, in mm over the root and the 21 body joints, is printed
    (MotionGRPO, Eq. 17).

    Default bodies are shown as mannequins, others, for which no mesh is at hand, as stick figures.

    Args:
        motions: name to motion, one to six of them.
        path: a ``.png``.
        num_poses: frames a row, 1 to 16.

    Returns:
        The path.

    Raises:
        ValueError: unknown suffix; no motion or too many; motions that share no time or are not finite; ``num_poses``
            out of range.
        FileNotFoundError: the folder does not exist.
    """
    path = check_picture_path(path)
    if not 1 <= len(motions) <= len(COLORS):
        raise ValueError(f"draw_strip takes 1 to {len(COLORS)} motions, and got {len(motions)}.")
    if not 1 <= num_poses <= MAX_POSES:
        raise ValueError(f"num_poses must be between 1 and {MAX_POSES}, and is {num_poses}.")
    for name, motion in motions.items():
        finite = motion.joints.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            raise ValueError(f"motion {name!r} has joints that are not finite in frame {int((~finite).nonzero()[0])}.")

    start, end = shared_time(motions)
    times = np.linspace(start, end, num_poses)
    others = [color for color in COLORS if color != _REFERENCE_COLOR]
    colors = [*others[: len(motions) - 1], _REFERENCE_COLOR]
    rows = [
        _Row(shorten(name, 60, placeholder=" …"), motion, color, frames_at(motion, times))
        for (name, motion), color in zip(motions.items(), colors, strict=True)
    ]
    reference = rows[-1]
    direction = walking_direction(reference.motion)
    camera = Camera.beside(direction)
    centers = camera.project(reference.joints[reference.frames].mean(1) * (1, 1, 0))
    box = _frame_box(rows, camera, centers)

    frame_width = min((WIDTH - 2 * _SIDE - (num_poses - 1) * _GAP) / num_poses, _MAX_FRAME[0])
    frame_height = round(frame_width * (box[3] - box[2]) / (box[1] - box[0]))
    if frame_height > _MAX_FRAME[1]:
        frame_width, frame_height = frame_width * _MAX_FRAME[1] / frame_height, _MAX_FRAME[1]
    top_margin = _TITLE if title else _GAP
    height = top_margin + len(rows) * (_HEADER + frame_height) + _TIMES + _PANELS
    figure = new_figure(height)
    if title:
        title = shorten(title, 110, placeholder=" …")
        figure.text(_SIDE / WIDTH, 1 - 16 / height, title, fontsize=FONT_SIZE + 5, color=INK, weight="bold", va="top")

    errors = joint_errors(rows[0].motion, rows[1].motion, start, end) if len(rows) == 2 else None
    left = (WIDTH - num_poses * frame_width - (num_poses - 1) * _GAP) / 2
    for index, row in enumerate(rows):
        top = height - top_margin - index * (_HEADER + frame_height) - _HEADER
        note = _note(row, reference, errors)
        figure.text(_SIDE / WIDTH, (top + 9) / height, row.name, fontsize=FONT_SIZE + 2, color=row.color, weight="bold")
        figure.text(1 - _SIDE / WIDTH, (top + 9) / height, note, fontsize=FONT_SIZE, color=FAINT, ha="right")
        for k in range(num_poses):
            corner = left + k * (frame_width + _GAP)
            place = (corner / WIDTH, (top - frame_height) / height, frame_width / WIDTH, frame_height / height)
            axes = figure.add_axes(place)
            _draw_frame(axes, row, reference, k, camera, centers[k], box, (frame_height, round(frame_width)), direction)
            if row is reference:
                label = f"{times[k] - start:.2f} s"
                middle = (corner + frame_width / 2) / WIDTH
                figure.text(
                    middle, (top - frame_height - 20) / height, label, fontsize=FONT_SIZE, color=INK, ha="center"
                )
    _draw_panels(figure, rows, direction, start, errors, height)
    return save_figure(figure, path)


def head_path(motion: Motion) -> Float64[np.ndarray, "frames 3"]:
    """Positions of the central pupil frame in the world, meters."""
    return cpf_of(motion.posed, motion.body.cpf_offset(motion.betas))[1].double().numpy()


def walking_direction(motion: Motion) -> Float64[np.ndarray, "2"]:
    """Horizontal unit vector along which the motion extends furthest, its end ahead; where it faces if it stays."""
    forward = motion.root_rotmats[:, :2, 2].double().mean(0).numpy()
    floor_path = motion.root_positions[:, :2].double().numpy()
    axis = np.linalg.svd(floor_path - floor_path.mean(0))[2][0] if len(floor_path) > 1 else forward
    if np.ptp(floor_path @ axis) < _MIN_TRAVEL:
        length = np.linalg.norm(forward)
        return forward / length if length > 1e-3 else np.array([1.0, 0.0])
    traveled = (floor_path[-1] - floor_path[0]) @ axis
    ahead = traveled if abs(traveled) > 0.2 * _MIN_TRAVEL else forward @ axis
    return axis if ahead >= 0 else -axis


def joint_errors(motion: Motion, reference: Motion, start: float, end: float) -> Float64[np.ndarray, "frames 2"]:
    """Seconds since ``start``, and distance in mm averaged over the root and the 21 body joints.

    One row for every frame of ``reference`` between ``start`` and ``end`` (seconds, on the clock of both), held against
    the frame of ``motion`` nearest in time.
    """
    times = reference.timestamps.numpy()
    shared = np.flatnonzero((times >= start - 1e-6) & (times <= end + 1e-6))
    a = motion.joints[frames_at(motion, times[shared]), :NUM_BODY_AND_ROOT]
    b = reference.joints[shared, :NUM_BODY_AND_ROOT]
    return np.stack([times[shared] - start, 1000.0 * (a - b).norm(dim=-1).mean(-1).double().numpy()], axis=-1)


def _frame_box(rows: list[_Row], camera: Camera, centers: np.ndarray) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of every frame about its center, meters in the camera's plane."""
    points = np.concatenate([(camera.project(row.outline) - centers[:, None]).reshape(-1, 3) for row in rows])
    left, bottom = np.minimum(points[:, :2].min(0) - _MARGIN, (-0.5, -_floor_rise(camera)))
    right, top = np.maximum(points[:, :2].max(0) + _MARGIN, (0.5, 1.0))
    (left, bottom), (right, top) = np.clip([[left, bottom], [right, top]], -_REACH, _REACH)
    return float(left), float(right), float(bottom), float(top)


def _floor_rise(camera: Camera) -> float:
    """How far up in the picture the far edge of the floor lies, meters."""
    return _FLOOR_DEPTH * float(np.linalg.norm(camera.axes[1, :2]))


def _note(row: _Row, reference: _Row, errors: np.ndarray | None) -> str:
    if row is reference:
        return f"floor grid {_GRID:g} m"
    error = "" if errors is None else f"mean joint error {errors[:, 1].mean():.0f} mm    "
    return f"{error}thin lines: {reference.name}"


def _draw_frame(
    axes: Axes,
    row: _Row,
    reference: _Row,
    k: int,
    camera: Camera,
    center: np.ndarray,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    direction: np.ndarray,
) -> None:
    left, right, bottom, top = box
    extent = (left + center[0], right + center[0], bottom + center[1], top + center[1])
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[], facecolor="#FAFAFA")
    axes.spines[:].set_color("#D8D8D8")

    floor = Rectangle((extent[0], extent[2]), right - left, _floor_rise(camera) - bottom, facecolor=FLOOR, zorder=0)
    axes.add_patch(floor)
    grid = LineCollection(_floor_grid(reference.joints[reference.frames[k]].mean(0), direction, camera), zorder=1)
    grid.set(color="#FFFFFF", linewidth=1.4)
    axes.add_collection(grid, autolim=False)
    grid.set_clip_path(floor)

    begin, end = [0, *row.frames][k], [*row.frames, len(row.motion) - 1][k + 1]
    trail = camera.project(row.head_path[begin : end + 1])
    axes.plot(trail[:, 0], trail[:, 1], color=row.color, linewidth=1.3, alpha=0.55, zorder=2)
    thickness = min(1.0, size[1] / 160)
    if row.vertices is None:
        _draw_sticks(axes, camera.project(row.joints[row.frames[k]]), row.color, thickness)
    else:
        faces = mannequin_faces()
        shadow = render_shadow(row.vertices[k], faces, camera, extent, size)
        black = np.concatenate([np.zeros((*shadow.shape, 3)), 0.3 * shadow[..., None]], axis=-1)
        light = tuple(0.8 * np.array(to_rgb(row.color)) + 0.2)
        body = render(row.vertices[k], faces, camera, extent, size, light)
        for zorder, image in ((1.5, black), (3, body)):
            axes.imshow(image, extent=extent, aspect="auto", interpolation="antialiased", zorder=zorder)
    if row is not reference:
        truth = camera.project(reference.joints[reference.frames[k]])
        _draw_bones(axes, truth, "#FFFFFF", 2.6 * thickness)
        _draw_bones(axes, truth, INK, 1.2 * thickness)
    axes.set(xlim=extent[:2], ylim=extent[2:])


def _floor_grid(center: np.ndarray, direction: np.ndarray, camera: Camera, reach: float = 6.0) -> np.ndarray:
    """Lines along and across ``direction`` at multiples of the grid's step from the world's origin, projected."""
    along, across = np.array([*direction, 0.0]), np.array([-direction[1], direction[0], 0.0])
    lines = []
    for line, other in ((along, across), (across, along)):
        nearest = np.round(center @ other / _GRID) * _GRID
        steps = nearest + np.arange(-reach, reach + _GRID, _GRID)
        middle = steps[:, None] * other + (center @ line) * line
        lines.append(np.stack([middle - reach * line, middle + reach * line], axis=1))
    return camera.project(np.concatenate(lines))[..., :2]


def _draw_bones(axes: Axes, joints: np.ndarray, color: str, width: float) -> None:
    order = np.argsort(joints[_BONES, 2].mean(1))
    bones = LineCollection(joints[_BONES[order], :2], colors=color, linewidths=width, capstyle="round", zorder=4)
    axes.add_collection(bones, autolim=False)


def _draw_sticks(axes: Axes, joints: np.ndarray, color: str, thickness: float) -> None:
    _draw_bones(axes, joints, "#FFFFFF", 6.5 * thickness)
    _draw_bones(axes, joints, color, 4.0 * thickness)
    axes.plot(*joints[HEAD, :2], "o", color=color, markersize=11 * thickness, zorder=5)


def _draw_panels(
    figure: Figure, rows: list[_Row], direction: np.ndarray, start: float, errors: np.ndarray | None, height: int
) -> None:
    """The lowest row: floor plan, head height and joint error."""
    widths = (640, 370, 370) if errors is not None else (760, 660)
    left, panels, panel_height = _SIDE + 26, [], _PANELS - 120
    for width in widths:
        panels.append(figure.add_axes((left / WIDTH, 62 / height, width / WIDTH, panel_height / height)))
        left += width + (WIDTH - 2 * _SIDE - 26 - sum(widths)) / max(len(widths) - 1, 1)
    plan, head_height = panels[:2]

    origin = rows[-1].head_path[0, :2]
    plan_axes = np.stack([direction, (-direction[1], direction[0])])
    for thickness, row in zip(np.linspace(1.8, 4.0, len(rows)), rows, strict=True):
        seconds = row.motion.timestamps.numpy() - start
        style = {"color": row.color, "linewidth": thickness, "zorder": 4 - 0.3 * thickness, "solid_capstyle": "round"}
        floor_path = (row.head_path[:, :2] - origin) @ plan_axes.T
        plan.plot(*floor_path.T, label=row.name, **style)
        dots = {"marker": "o", "linestyle": "", "color": row.color, "markersize": 3.5 + thickness}
        plan.plot(*floor_path[row.frames].T, **dots, zorder=style["zorder"])
        plan.plot(*floor_path[row.frames[:1]].T, **dots, markerfacecolor=PAPER, zorder=5)
        head_height.plot(seconds, row.head_path[:, 2], **style)
    # Equal scales in both directions: so many meters a pixel.
    (x0, x1), (y0, y1) = plan.get_xlim(), plan.get_ylim()
    meters = max((x1 - x0) / widths[0], (y1 - y0) / panel_height, _MIN_PLAN / widths[0])
    plan.set_xlim(*_about(x0, x1, meters * widths[0]))
    plan.set_ylim(*_about(y0, y1, meters * panel_height))
    low, high = head_height.get_ylim()
    head_height.set_ylim(*_about(low, high, max(high - low, _MIN_HEIGHTS)))
    style_axes(plan, "head path from above (m), from the open dot on", "along the main direction (m)")
    style_axes(head_height, "height of the eyes above the floor (m)", "time (s)")
    if errors is not None:
        panels[2].plot(*errors.T, color=rows[0].color, linewidth=1.8)
        panels[2].set_ylim(bottom=0)
        style_axes(panels[2], "mean distance of the joints (mm)", "time (s)")


def _about(low: float, high: float, span: float) -> tuple[float, float]:
    return (low + high - span) / 2, (low + high + span) / 2
