"""Small multiples of what a Trainer logged."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from motion_grpo.metrics import METRIC_UNITS
from motion_grpo.viz.figures import (
    COLORS,
    FAINT,
    FONT_SIZE,
    WIDTH,
    check_picture_path,
    new_figure,
    save_figure,
    style_axes,
)

_TRAINING_UNITS = {"loss/position": "m", "loss/velocity": "m/s", "loss/foot_contact": "m/s"}
_LOG_SCALE = ("loss", "grad_norm")
_FIRST, _LAST = ("loss", "reward"), ("grad_norm", "learning_rate")
_BOOKKEEPING = ("epoch", "total_flos", "train_loss", "step", "num_input_tokens_seen")
_BOOKKEEPING_ENDS = ("_runtime", "_per_second")
_COLUMNS = (4, 3)
_MANY_POINTS = 100
_LEFT, _RIGHT, _TOP, _BETWEEN, _PANEL_HEIGHT, _ROW_HEIGHT = 90, 24, 40, 96, 170, 260  # pixels


def plot_training_log(log_history: list[dict], path: str | Path) -> Path:
    """Draws what a transformers Trainer logged over the steps, one panel a quantity, 1600 pixels wide.

    Training quantities come first (losses and the gradient norm on a log scale where they are positive and vary by more
    than a factor of two), metrics of evaluations (``eval_...``) last and in another colour. The latest value stands at
    the upper right of each panel, the unit, where it is known, at the axis. Curves of more than 100 values are drawn
    pale, with their moving average over a twentieth of the run on top. Values that are not finite are left out, as are
    times and throughputs.

    Args:
        log_history: ``trainer.state.log_history`` or the list of that name in a checkpoint's ``trainer_state.json``.
        path: a ``.png``.

    Returns:
        The path.

    Raises:
        ValueError: unknown suffix, or nothing to draw in the log.
        FileNotFoundError: the folder does not exist.
    """
    path = check_picture_path(path)
    curves = logged_curves(log_history)
    if not curves:
        raise ValueError(
            f"{path}: the log of {len(log_history)} entries holds no finite number with a step; nothing to draw."
        )
    groups = [[n for n in curves if not n.startswith("eval_")], [n for n in curves if n.startswith("eval_")]]
    columns = min(_COLUMNS, key=lambda n: sum(-len(group) % n for group in groups))  # fewest places left blank
    rows = [group[i : i + columns] for group in groups for i in range(0, len(group), columns)]
    height = _TOP + len(rows) * _ROW_HEIGHT
    figure = new_figure(height)
    panel_width = (WIDTH - _LEFT - _RIGHT - (columns - 1) * _BETWEEN) / columns
    last_step = max(steps[-1] for steps, _ in curves.values())
    for r, names in enumerate(rows):
        for c, name in enumerate(names):
            left, bottom = _LEFT + c * (panel_width + _BETWEEN), height - _TOP - r * _ROW_HEIGHT - _PANEL_HEIGHT
            place = (left / WIDTH, bottom / height, panel_width / WIDTH, _PANEL_HEIGHT / height)
            axes = figure.add_axes(place)
            _draw_curve(axes, name, *curves[name])
            axes.set_xlim(0, last_step * 1.03 if last_step > 0 else 1)
    return save_figure(figure, path)


def logged_curves(log_history: Iterable[Mapping[str, object]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values of every quantity, losses first, then rewards and others, optimiser, evaluation.

    A step that was logged twice (a resumed run) keeps its latest value.
    """
    values: dict[str, dict[int, float]] = {}
    for entry in log_history:
        for name, value in entry.items():
            if "step" not in entry or name in _BOOKKEEPING or name.endswith(_BOOKKEEPING_ENDS):
                continue
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                values.setdefault(name, {})[int(entry["step"])] = float(value)
    curves = {}
    for name in sorted(values, key=_rank):  # stable: as first logged within a rank
        steps = sorted(values[name])
        curves[name] = np.array(steps), np.array([values[name][step] for step in steps])
    return curves


def unit_of(name: str) -> str | None:
    """Unit of a logged quantity, ``loss/position`` or ``eval_mpjpe`` say; None where it is not known."""
    if not name.startswith("eval_"):
        return _TRAINING_UNITS.get(name)
    metric = name.removeprefix("eval_")
    if metric in METRIC_UNITS:
        return METRIC_UNITS[metric]
    # Several evaluation sets: eval_<set>_<metric>.
    known = [m for m in METRIC_UNITS if metric.endswith("_" + m)]
    return METRIC_UNITS[max(known, key=len)] if known else None


def _rank(name: str) -> int:
    family = name.split("/")[0]
    if name.startswith("eval_"):
        return 4
    if name in _LAST:
        return 3
    return 0 if family == "loss" else 1 if family.startswith(_FIRST) else 2


def _draw_curve(axes: Axes, name: str, steps: np.ndarray, values: np.ndarray) -> None:
    color = COLORS[0] if name.startswith("eval_") else COLORS[1]
    many = len(steps) > _MANY_POINTS and name != "learning_rate"
    line = {"linewidth": 1.0, "alpha": 0.35} if many else {"linewidth": 1.8}
    axes.plot(steps, values, color=color, marker="o" if len(steps) <= 40 else None, markersize=4, **line)
    if many:
        window = max(len(values) // 20, 2)
        mean = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(steps[window // 2 :][: len(mean)], mean, color=color, linewidth=2.0)
    if name.split("/")[0] in _LOG_SCALE and values.min() > 0 and values.max() > 2 * values.min():
        spread = values.max() / values.min()
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(
            LogLocator(subs=(1, 1.5, 2, 3, 4, 6) if spread < 10 else (1, 2, 5) if spread < 1e3 else (1,))
        )
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    title = style_axes(axes, name, "step")
    latest = axes.set_title(f"{values[-1]:.4g}", loc="right", fontsize=FONT_SIZE, color=color, weight="bold")
    kept = len(name) // 2
    while title.get_window_extent().x1 > latest.get_window_extent().x0 - 8 and kept > 3:
        title.set_text(f"{name[:kept]}…{name[-kept:]}")  # the ends of a name tell more than its middle
        kept -= 1
    axes.set_ylabel(unit_of(name) or "", fontsize=FONT_SIZE - 1, color=FAINT)
