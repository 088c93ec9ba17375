"""MP4 and GIF of a motion: the software renderer frame by frame, with no display and no GPU."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw
from rich.progress import track

from motion_grpo.body import PosedBody
from motion_grpo.files import whole_file
from motion_grpo.motion import Motion
from motion_grpo.viz.figures import COLORS, FLOOR, PAPER
from motion_grpo.viz.mesh import Skin, shown_body, skin_of
from motion_grpo.viz.raster import Camera, render, render_shadow
from motion_grpo.viz.strip import walking_direction
from motion_grpo.viz.timing import frames_at, times_at

VIDEO_FPS = 30
GIF_FPS = 12.5
"""A GIF's frames last whole hundredths of a second."""
_VIDEO_SIZE, _GIF_SIZE = (540, 960), (320, 480)  # height, width
_HEIGHT = 2.5  # meters that the picture shows from bottom to top
_BELOW = 0.45  # meters of it below the feet
_FOLLOW = 0.8  # seconds over which the camera's path is smoothed
_GRID, _GRID_REACH = 0.5, 8.0  # meters
_SHADOW = 0.3
_AIR = 12  # pixels about a body, for its blurred shadow


@dataclass(frozen=True, eq=False)
class _Actor:
    """A motion over the floor at z = 0, with what it takes to draw it."""

    motion: Motion
    skin: Skin
    color: tuple[float, float, float]

    @cached_property
    def body(self) -> PosedBody:
        return shown_body(self.motion, self.skin.rest_joints)

    def vertices(self, frame: int) -> np.ndarray:
        return self.skin.pose(PosedBody(self.body.rotmats[[frame]], self.body.joints[[frame]]))[0].numpy()


def write_mp4(motion: Motion, path: Path, *, model_path: str | Path | None = None) -> None:
    """Writes an MP4 (H.264), 960 by 540 pixels at 30 frames a second; the camera follows from the right.

    Args:
        model_path: licensed SMPL-H or SMPL-X file whose surface is shown; the mannequin when None.

    Raises:
        ValueError: the betas belong to another body than the file's, or to one that has no mannequin.
    """
    import imageio_ffmpeg

    height, width = _VIDEO_SIZE
    pictures = pictures_of([motion], _VIDEO_SIZE, float(VIDEO_FPS), model_path=model_path)
    with whole_file(path) as temporary:
        # yuv420p and baseline settings: what browsers and phones play.
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            (width, height),
            fps=VIDEO_FPS,
            codec="libx264",
            quality=7,
            macro_block_size=1,
            output_params=["-f", "mp4", "-movflags", "+faststart"],
            ffmpeg_log_level="error",
        )
        writer.send(None)
        try:
            for picture in pictures:
                writer.send(np.ascontiguousarray(picture))
        finally:
            writer.close()  # waits for the encoder, which would else go on writing


def write_gif(motion: Motion, path: Path, *, model_path: str | Path | None = None) -> None:
    """Writes a GIF that repeats, 480 by 320 pixels at 12.5 frames a second; otherwise as :func:`write_mp4`."""
    save_gif(pictures_of([motion], _GIF_SIZE, GIF_FPS, model_path=model_path), path)


def save_gif(pictures: Iterator[UInt8[np.ndarray, "height width 3"]], path: Path) -> None:
    """Writes pictures as a GIF that repeats, at 12.5 a second, all with the colors of the first one."""
    first, *others = [Image.fromarray(picture) for picture in pictures]
    palette = first.quantize(64, dither=Image.Dither.NONE)
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in (first, *others)]
    duration = round(1000 / GIF_FPS)
    with whole_file(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0, optimize=True
        )


def pictures_of(
    motions: Sequence[Motion],
    size: tuple[int, int],
    fps: float,
    *,
    model_path: str | Path | None = None,
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Pictures of motions of one recording, over each other, at a rate of their own.

    The camera is orthographic, looks at the right side of who walks along the main direction, and follows the first
    motion smoothly. The floor has a grid every 0.5 m that stays where it is in the world.

    Args:
        motions: one to six; the first is in front.
        size: (height, width) in pixels.
        fps: pictures a second.
        model_path: licensed body file; the mannequin when None.
    """
    actors = [
        _Actor(motion.above_floor(), skin_of(motion, model_path), tuple(0.8 * np.array(to_rgb(color)) + 0.2))
        for motion, color in zip(motions, COLORS, strict=False)
    ]
    lead = actors[0].motion
    times = times_at(float(lead.timestamps[0]), float(lead.timestamps[-1]), fps)
    frames = [frames_at(actor.motion, times) for actor in actors]
    direction = walking_direction(lead)
    camera = Camera.beside(direction)
    centers = camera.project(_smooth_path(lead, times, fps))
    scale = size[0] / _HEIGHT
    for k in track(range(len(times)), description="drawing", transient=True):
        corner = (centers[k, 0] - size[1] / scale / 2, centers[k, 1] - _BELOW + _HEIGHT)
        picture = _floor(camera, direction, centers[k], size, corner, scale)
        for actor, index in reversed(list(zip(actors, frames, strict=True))):
            _draw(picture, actor, int(index[k]), camera, corner, scale)
        yield (255 * picture + 0.5).clip(0, 255).astype(np.uint8)


def _smooth_path(motion: Motion, times: np.ndarray, fps: float) -> Float64[np.ndarray, "pictures 3"]:
    """Where the camera looks: the place on the floor below the pelvis, smoothed over time."""
    path = motion.root_positions[frames_at(motion, times)].double().numpy() * (1, 1, 0)
    reach = max(1, round(_FOLLOW * fps / 2))
    window = np.hanning(2 * reach + 1)
    padded = np.concatenate([path[:1].repeat(reach, 0), path, path[-1:].repeat(reach, 0)])
    return np.stack([np.convolve(padded[:, i], window / window.sum(), "valid") for i in range(3)], axis=1)


def _draw(
    picture: Float32[np.ndarray, "height width 3"],
    actor: _Actor,
    frame: int,
    camera: Camera,
    corner: tuple[float, float],
    scale: float,
) -> None:
    """Draws a body and its shadow over the picture.

    Args:
        corner: left and top of the picture in the camera's plane, meters.
        scale: pixels per meter.
    """
    vertices, faces = actor.vertices(frame), actor.skin.faces.numpy()
    outline = np.concatenate([vertices, vertices * (1, 1, 0)])
    seen = (camera.project(outline)[:, :2] - corner) * (scale, -scale)
    # Only what the body and its shadow cover is drawn: most of the picture is floor.
    height, width = picture.shape[:2]
    low = np.clip(np.floor(seen.min(0)) - _AIR, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(seen.max(0)) + _AIR, 0, (width, height)).astype(int)
    if (high <= low).any():
        return
    size = (int(high[1] - low[1]), int(high[0] - low[0]))
    left, top = corner + low * (1 / scale, -1 / scale)
    box = (left, left + size[1] / scale, top - size[0] / scale, top)
    part = picture[low[1] : high[1], low[0] : high[0]]
    part *= 1 - _SHADOW * _halved(render_shadow(vertices, faces, camera, box, size)[..., None])
    body = render(vertices, faces, camera, box, size, actor.color)
    part *= 1 - _halved(body[..., 3:])
    part += _halved(body[..., :3] * body[..., 3:])


def _halved(image: Float32[np.ndarray, "rows columns channels"]) -> Float32[np.ndarray, "height width channels"]:
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


def _floor(
    camera: Camera,
    direction: Float64[np.ndarray, "2"],
    center: Float64[np.ndarray, "3"],
    size: tuple[int, int],
    corner: tuple[float, float],
    scale: float,
) -> Float32[np.ndarray, "height width 3"]:
    """Paper, and on it the floor about a place, with its grid; RGB in [0, 1], otherwise as :func:`_draw`."""
    height, width = size
    canvas = Image.new("RGB", (2 * width, 2 * height), PAPER)
    pen = ImageDraw.Draw(canvas)
    axes = np.stack([[*direction, 0.0], [-direction[1], direction[0], 0.0]])
    nearest = np.round(axes @ camera.axes.T @ center / _GRID) * _GRID

    def pixels(points: np.ndarray) -> list[tuple[float, float]]:
        return [tuple(p) for p in (camera.project(points @ axes)[:, :2] - corner) * (2 * scale, -2 * scale)]

    pen.polygon(pixels(_GRID_REACH * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + nearest), fill=FLOOR)
    steps = np.arange(-_GRID_REACH, _GRID_REACH + _GRID / 2, _GRID)
    for across in (0, 1):
        for step in steps:
            ends = np.array([[-_GRID_REACH] * 2, [_GRID_REACH] * 2])
            ends[:, across] = step
            pen.line(pixels(ends + nearest), fill=PAPER, width=3)
    return np.asarray(canvas.reduce(2), dtype=np.float32) / 255
