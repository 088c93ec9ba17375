"""Draws the pictures of the docs that show what the default checkpoint recovers; after it was trained anew, again.

    python tools/draw_pictures.py                          # axes, walk, guidance: docs/images
    python tools/draw_pictures.py sitter --aria FOLDER  # of the MPS sample of projectaria_tools

Seed 0 throughout, on the CPU.
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from motion_grpo.cli.sampling_options import PENETRATION

from motion_grpo import EgoMotionPipeline, GuidanceConfig, HeadTrajectory, Motion, load_trajectory
from motion_grpo.trajectory.conventions import CONVENTIONS, Convention
from motion_grpo.viz.feet import draw_feet
from motion_grpo.viz.figures import COLORS, FAINT, FLOOR, FONT_SIZE, INK, new_figure, save_figure, style_axes
from motion_grpo.viz.mesh import mannequin_faces, mannequin_vertices
from motion_grpo.viz.raster import Camera, render
from motion_grpo.viz.strip import draw_strip, head_path
from motion_grpo.viz.video import GIF_FPS, pictures_of, save_gif

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
SYSTEMS = {
    "OpenXR, SteamVR, WebXR, visionOS, ARKit": CONVENTIONS["openxr"],
    "Unity (left-handed)": CONVENTIONS["unity"],
    "Unreal (left-handed, cm)": CONVENTIONS["unreal"],
    "ROS": CONVENTIONS["ros"],
    "camera in a z-up world (TUM)": CONVENTIONS["camera"],
    "EuRoC's inertial unit": Convention("forward left up", "up right forward"),
    "CPF, this library": CONVENTIONS["cpf"],
}
_AXIS_COLORS = ("#D62728", "#2CA02C", "#1F77B4")
_AXIS_LENGTH = 0.45  # meters
_GIF_SECONDS = 7.0  # small enough for the first page
_BOX = (-0.95, 0.95, -0.3, 2.4)  # left, right, bottom, top about the feet, meters


def draw_axes() -> None:
    """Axes of world and head in every system, beside a wearer who looks along the world's forward."""
    motion = Motion.load(ROOT / "examples" / "brisk_walk.npz").above_floor()
    gaze = motion.root_rotmats[0, :2, 2].double().numpy()
    camera = Camera.beside(gaze, azimuth=35.0, elevation=14.0)
    body = mannequin_vertices(motion, [0])[0]
    feet = camera.project(motion.root_positions[0].numpy() * (1, 1, 0))
    eyes = head_path(motion)[0]
    forward = np.array([*gaze, 0.0]) / np.linalg.norm(gaze)
    up = np.array([0.0, 0.0, 1.0])
    left = np.cross(up, forward)
    rows, columns, height = 2, 4, 1240
    figure = new_figure(height)
    for number, (name, convention) in enumerate(SYSTEMS.items()):
        row, column = divmod(number, columns)
        box = (column / columns, 1 - (row + 1) / rows, 1 / columns, 0.94 / rows)
        axes = figure.add_axes(box)
        extent = [edge + feet[k // 2] for k, edge in enumerate(_BOX)]
        light = (0.86, 0.84, 0.8)
        image = render(body, mannequin_faces(), camera, tuple(extent), (560, 394), light)
        axes.imshow(image, extent=extent, aspect="equal", interpolation="antialiased", zorder=1, alpha=0.8)
        # The world's axes stand before the feet, the head's between the eyes.
        origin = camera.axes.T @ np.array([feet[0] - 0.42, feet[1] - 0.12, feet[2]])
        world = np.stack([forward, left, up]).T @ convention.A_world.numpy()
        head = np.stack([left, up, forward]).T @ convention.A_cpf_head.numpy()
        _draw_triad(axes, camera, origin, world)
        _draw_triad(axes, camera, eyes, head)
        axes.set(xlim=extent[:2], ylim=extent[2:])
        axes.axis("off")
        axes.set_title(name, fontsize=FONT_SIZE + 1, color=INK)
    axes = figure.add_axes(((columns - 1) / columns + 0.03, 0.1, 0.2, 0.3))
    axes.axis("off")
    lines = ["x", "y", "z"]
    for k, line in enumerate(lines):
        axes.text(0, 0.8 - 0.13 * k, line, color=_AXIS_COLORS[k], fontsize=FONT_SIZE + 6, weight="bold")
    note = "Below: the world's axes, with\nforward where the wearer looks.\nAbove: the head's axes."
    axes.text(0, 0.05, note, color=FAINT, fontsize=FONT_SIZE + 1)
    save_figure(figure, IMAGES / "axes.png")


def _draw_triad(axes: Axes, camera: Camera, origin: np.ndarray, directions: np.ndarray) -> None:
    start = camera.project(origin)
    for k in np.argsort([camera.project(directions[:, k])[2] for k in range(3)]):  # the nearest last
        tip = start + _AXIS_LENGTH * camera.project(directions[:, k])
        arrow = {"arrowstyle": "-|>", "color": _AXIS_COLORS[k], "linewidth": 2.4, "mutation_scale": 15}
        axes.annotate("", tip[:2], start[:2], arrowprops=arrow | {"shrinkA": 0, "shrinkB": 0}, zorder=5)
        name = start + 1.16 * (tip - start)
        axes.text(*name[:2], "xyz"[k], color=_AXIS_COLORS[k], fontsize=FONT_SIZE, ha="center", va="center", zorder=6)


def draw_walk() -> None:
    """What is recovered of walk_turns beside what was recorded: a film strip, and moving."""
    recovered = _recover(load_trajectory(ROOT / "examples" / "walk_turns.csv"))
    recorded = Motion.load(ROOT / "examples" / "walk_turns.npz")
    draw_strip({"recovered": recovered, "recorded": recorded}, IMAGES / "walk_turns.png", title="walk turns")
    pictures = pictures_of([recovered, recorded], (260, 390), GIF_FPS)
    save_gif(islice(pictures, round(_GIF_SECONDS * GIF_FPS)), IMAGES / "walk_turns.gif")


def draw_guidance() -> None:
    """How far standing feet slide on walk_turns, before guidance and after."""
    trajectory = load_trajectory(ROOT / "examples" / "walk_turns.csv")
    motions = {"before": _recover(trajectory), "after guidance": _recover(trajectory, GuidanceConfig("no_hands"))}
    draw_feet(motions, IMAGES / "guidance.png", title="walk_turns.csv:")


def draw_sitter(sample: Path) -> None:
    """The wearer of an Aria recording who sits down at its end, with and without guidance."""
    trajectory = load_trajectory(sample)
    guidance = GuidanceConfig("no_hands", penetration=PENETRATION)
    motions = {
        "plain": _recover(trajectory).above_floor(),
        "--guidance no_hands --guidance-floor": _recover(trajectory, guidance).above_floor(),
    }
    height = 780
    figure = new_figure(height)
    for number, ((name, motion), color) in enumerate(zip(motions.items(), COLORS, strict=False)):
        axes = figure.add_axes((0.01 + 0.26 * number, 0.04, 0.25, 0.86))
        _draw_seated(axes, motion, color)
        lowest = 100 * float(motion.joints[-1, :22, 2].min())
        axes.set_title(f"{name}\nlowest joint at {lowest:+.1f} cm", fontsize=FONT_SIZE, color=color)
    axes = figure.add_axes((0.6, 0.11, 0.38, 0.76))
    for (name, motion), color in zip(motions.items(), COLORS, strict=False):
        seconds = motion.timestamps - motion.timestamps[0]
        axes.plot(seconds, 100 * motion.joints[:, :22, 2].amin(1), color=color, linewidth=2, label=name)
    axes.axhline(0, color=INK, linewidth=1)
    axes.legend(frameon=False, fontsize=FONT_SIZE)
    style_axes(axes, "height of the lowest joint over the floor (cm)", "time (s)")
    save_figure(figure, IMAGES / "sitter.png")


def _draw_seated(axes: Axes, motion: Motion, color: str) -> None:
    """The last frame from the side, at the height of the floor, which is a line."""
    direction = motion.root_rotmats[-1, :2, 2].double().numpy()
    camera = Camera.beside(direction, azimuth=20.0, elevation=0.0)
    vertices = mannequin_vertices(motion, [len(motion) - 1])[0]
    middle = float(camera.project(motion.root_positions[-1].numpy())[0])
    extent = (middle - 0.5, middle + 0.7, -0.25, 1.45)
    size = (680, round(680 * 1.2 / 1.7))
    image = render(vertices, mannequin_faces(), camera, extent, size, tuple(0.8 * np.array(to_rgb(color)) + 0.2))
    axes.axhspan(extent[2], 0, color=FLOOR, zorder=0)
    axes.imshow(image, extent=extent, aspect="equal", interpolation="antialiased", zorder=1)
    axes.axhline(0, color=INK, linewidth=1, zorder=2)
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _recover(trajectory: HeadTrajectory, guidance: GuidanceConfig | None = None) -> Motion:
    pipe = EgoMotionPipeline.from_pretrained()
    return pipe(trajectory, guidance=guidance, generator=torch.Generator().manual_seed(0)).motion


def main() -> None:
    """Draws what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["axes", "walk", "guidance"], help="axes, walk, guidance, sitter")
    parser.add_argument("--aria", type=Path, help="folder of an MPS recording, for sitter")
    given = parser.parse_args()
    draw = {"axes": draw_axes, "walk": draw_walk, "guidance": draw_guidance, "sitter": lambda: draw_sitter(given.aria)}
    for name in given.names:
        draw[name]()


if __name__ == "__main__":
    main()
