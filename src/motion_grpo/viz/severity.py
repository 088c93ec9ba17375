"""Scores of critics under artefacts of growing severity."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from matplotlib.axes import Axes

from motion_grpo.motion.artefacts import OPPOSITES, SeverityCurve
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

    Artefacts that are opposites share a panel, the recording between them: a good score has its peak there. Severities
    are spaced evenly, whatever their values; the numbers of the legend are mean Spearman correlations.

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
    panels = [(split, sides) for split, methods in curves.items() for sides in _sides(next(iter(methods.values()), {}))]
    if not panels:
        raise ValueError(f"{path}: there are no curves to draw.")
    height = _TOP + -(-len(panels) // _COLUMNS) * _ROW_HEIGHT
    figure = new_figure(height)
    width = (WIDTH - _LEFT - _RIGHT - (_COLUMNS - 1) * _BETWEEN) / _COLUMNS
    for number, (split, sides) in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        left, bottom = _LEFT + column * (width + _BETWEEN), height - _TOP - row * _ROW_HEIGHT - _PANEL_HEIGHT
        axes = figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, _PANEL_HEIGHT / height))
        _draw_panel(axes, curves[split], sides, split)
    return save_figure(figure, path)


def _sides(artefacts: Iterable[str]) -> list[tuple[str, ...]]:
    """One or two artefacts a panel, in the order of their first."""
    names, panels = list(artefacts), []
    partner = {side: pair for pair in OPPOSITES for side in pair if set(pair) <= set(names)}
    for name in names:
        panel = partner.get(name, (name,))
        if panel not in panels:
            panels.append(panel)
    return panels


def _draw_panel(
    axes: Axes, methods: Mapping[str, Mapping[str, SeverityCurve]], sides: tuple[str, ...], split: str
) -> None:
    for number, (method, of) in enumerate(methods.items()):
        # Both sides begin with the recording itself, which is drawn once.
        before = of[sides[0]].mean_scores[:0:-1] if len(sides) == 2 else []
        scores = of[sides[-1]].mean_scores
        axes.plot(
            range(-len(before), len(scores)),
            [*before, *scores],
            color=COLORS[number % len(COLORS)],
            linestyle="-" if number < len(COLORS) else "--",
            linewidth=1.8,
            marker="o",
            markersize=4,
            label=f"{method} ({', '.join(f'{of[side].spearman:.2f}' for side in sides)})",
        )
    first = next(iter(methods.values()))
    names = [side.replace("_", " ") for side in sides]
    units = [first[side].unit for side in sides]
    ticks = [(place, f"{severity:g}") for place, severity in enumerate(first[sides[-1]].severities)]
    label = f"severity, {units[0]}"
    if len(sides) == 2:
        ticks += [(-place, f"{severity:g}") for place, severity in enumerate(first[sides[0]].severities) if place]
        # There is room for every other number.
        ticks = [(place, text) for place, text in sorted(ticks) if place % 2 == 0]
        label = f"{names[0]}, {units[0]}  <  recording  >  {names[1]}, {units[1]}"
        axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    style_axes(axes, f"{split.replace('_', ' ')}: {' / '.join(names)}", label)
    axes.set_xticks(*zip(*ticks, strict=True))
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("mean score", fontsize=FONT_SIZE - 1, color=FAINT)
    axes.legend(fontsize=FONT_SIZE - 2, frameon=False, labelcolor=INK, loc="best")
