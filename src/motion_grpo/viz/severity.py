"""Scores of critics under artefacts of growing severity."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from motion_grpo.motion.artefacts import SeverityCurve
from motion_grpo.viz.figures import (
    COLORS,
    FAINT,
    FONT_SIZE,
    INK,
    WIDTH,
    check_picture_path,
    new_figure,
    save_figure,
    style_axes,
)

_COLUMNS = 3
_LEFT, _RIGHT, _TOP, _BETWEEN, _PANEL_HEIGHT, _ROW_HEIGHT = 70, 24, 40, 70, 200, 290  # pixels


def plot_severity(curves: Mapping[str, Mapping[str, Mapping[str, SeverityCurve]]], path: str | Path) -> Path:
    """Draws the mean score over the severity, one panel an artefact, one line a method, 1600 pixels wide.

    Severities are spaced evenly, whatever their values; the numbers of the legend are mean Spearman correlations.

    Args:
        curves: by split, method and artefact; every method has the same artefacts.
        path: a ``.png``.

    Returns:
        The path.

    Raises:
        ValueError: unknown suffix, or nothing to draw.
        FileNotFoundError: the folder does not exist.
    """
    path = check_picture_path(path)
    panels = [(split, artefact) for split, methods in curves.items() for artefact in next(iter(methods.values()), {})]
    if not panels:
        raise ValueError(f"{path}: there are no curves to draw.")
    height = _TOP + -(-len(panels) // _COLUMNS) * _ROW_HEIGHT
    figure = new_figure(height)
    width = (WIDTH - _LEFT - _RIGHT - (_COLUMNS - 1) * _BETWEEN) / _COLUMNS
    for number, (split, artefact) in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        left, bottom = _LEFT + column * (width + _BETWEEN), height - _TOP - row * _ROW_HEIGHT - _PANEL_HEIGHT
        axes = figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, _PANEL_HEIGHT / height))
        _draw_panel(axes, {method: of[artefact] for method, of in curves[split].items()}, f"{split}: {artefact}")
    return save_figure(figure, path)


def _draw_panel(axes: Axes, curves: Mapping[str, SeverityCurve], title: str) -> None:
    for number, (method, curve) in enumerate(curves.items()):
        axes.plot(
            curve.mean_scores,
            color=COLORS[number % len(COLORS)],
            linestyle="-" if number < len(COLORS) else "--",
            linewidth=1.8,
            marker="o",
            markersize=4,
            label=f"{method} ({curve.spearman:.2f})",
        )
    first = next(iter(curves.values()))
    style_axes(axes, title.replace("_", " "), f"severity, {first.unit}")
    axes.set_xticks(range(len(first.severities)), [f"{severity:g}" for severity in first.severities])
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("mean score", fontsize=FONT_SIZE - 1, color=FAINT)
    axes.legend(fontsize=FONT_SIZE - 2, frameon=False, labelcolor=INK, loc="best")
