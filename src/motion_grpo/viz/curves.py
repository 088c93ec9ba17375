"""Small multiples of what a Trainer logged."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
_GRPO_PANELS: dict[str, dict[str, str]] = {
    "advantages/std": {"": "advantages/std"},
    "frac_reward_zero_std": {"": "frac_reward_zero_std"},
    "diversity": {"": "diversity"},
    "ratio": {"": "ratio/mean", "spread": "ratio/std"},
    "clip_fraction": {"": "clip_fraction"},
    "kl": {"": "kl"},
    "grad_norm": {"": "grad_norm"},
    "seconds": {"rollout": "rollout_seconds", "rewards": "reward_seconds", "update": "update_seconds"},
}
_LEFT, _RIGHT, _TOP, _BETWEEN, _PANEL_HEIGHT, _ROW_HEIGHT = 90, 24, 40, 96, 170, 260  # pixels

Curve = tuple[np.ndarray, np.ndarray]
"""Steps, rising, and the value at each."""


@dataclass(frozen=True)
class _Panel:
    title: str
    lines: dict[str, Curve]
    """By what the legend says; a single one needs no legend."""
    spread: Curve | None = None
    """Half the height of a band about the first line."""

    @property
    def evaluation(self) -> bool:
        return self.title.startswith("eval_")


def plot_training_log(log_history: list[dict], path: str | Path) -> Path:
    """Draws what a transformers Trainer logged over the steps, one panel a quantity, 1600 pixels wide.

    Training quantities come first (losses and the gradient norm on a log scale where they are positive and vary by more
    than a factor of two), metrics of evaluations (``eval_...``) last and in another color. The latest value stands at
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
    return _draw_grid([_Panel(name, {"": curve}) for name, curve in curves.items()], path)


def plot_grpo_run(log_history: list[dict], path: str | Path) -> Path:
    """Draws the curves of a post-training run (MotionGRPO, Figure 2, and what else tells how it goes).

    The total reward, every reward (``rewards/NAME/mean``, in a band of one ``rewards/NAME/std`` to either side), the
    advantages' standard deviation, the share of groups without spread, diversity, the probability ratio (with a band),
    the clipped share, the divergence from the reference, the gradient norm, seconds, and last the metrics of
    evaluations in another color. Quantities that the log does not hold get no panel. The rest is as in
    :func:`plot_training_log`.

    Args:
        log_history: ``trainer.state.log_history`` or the list of that name in a checkpoint's ``trainer_state.json``.
        path: a ``.png``.

    Returns:
        The path.

    Raises:
        ValueError: unknown suffix, or no reward in the log.
        FileNotFoundError: the folder does not exist.
    """
    path = check_picture_path(path)
    curves = logged_curves(log_history)
    rewards = [name.removesuffix("/mean") for name in curves if name.startswith("rewards/") and name.endswith("/mean")]
    if not rewards and "reward" not in curves:
        raise ValueError(
            f"{path}: the log of {len(log_history)} entries holds no reward, so it is not that of a GRPO run; "
            "plot_training_log draws any other."
        )
    wanted = {"reward": {"": "reward"}}
    wanted |= {name: {"": f"{name}/mean", "spread": f"{name}/std"} for name in rewards}
    wanted |= _GRPO_PANELS | {name: {"": name} for name in curves if name.startswith("eval_")}
    panels = []
    for title, names in wanted.items():
        lines = {label: curves[name] for label, name in names.items() if name in curves}
        spread = lines.pop("spread", None)
        if lines:
            panels.append(_Panel(title, lines, spread))
    return _draw_grid(panels, path)


def logged_curves(log_history: Iterable[Mapping[str, object]]) -> dict[str, Curve]:
    """Steps and values of every quantity, losses first, then rewards and others, optimizer, evaluation.

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


def _draw_grid(panels: list[_Panel], path: Path) -> Path:
    """Small multiples over the same steps, those of evaluations in rows of their own."""
    groups = [[p for p in panels if p.evaluation is evaluation] for evaluation in (False, True)]
    columns = min(_COLUMNS, key=lambda n: sum(-len(group) % n for group in groups))  # fewest places left blank
    rows = [group[i : i + columns] for group in groups for i in range(0, len(group), columns)]
    height = _TOP + len(rows) * _ROW_HEIGHT
    figure = new_figure(height)
    panel_width = (WIDTH - _LEFT - _RIGHT - (columns - 1) * _BETWEEN) / columns
    last_step = max(steps[-1] for panel in panels for steps, _ in panel.lines.values())
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            left, bottom = _LEFT + c * (panel_width + _BETWEEN), height - _TOP - r * _ROW_HEIGHT - _PANEL_HEIGHT
            place = (left / WIDTH, bottom / height, panel_width / WIDTH, _PANEL_HEIGHT / height)
            axes = figure.add_axes(place)
            _draw_panel(axes, panel)
            axes.set_xlim(0, last_step * 1.03 if last_step > 0 else 1)
    return save_figure(figure, path)


def _draw_panel(axes: Axes, panel: _Panel) -> None:
    colors = COLORS if panel.evaluation else COLORS[1:]
    if panel.spread is not None:
        # The mean and its spread are logged together, but one of them may not have been finite.
        (steps, mean), (where, std) = panel.lines[""], panel.spread
        _, i, j = np.intersect1d(steps, where, return_indices=True)
        axes.fill_between(steps[i], mean[i] - std[j], mean[i] + std[j], color=colors[0], alpha=0.12, linewidth=0)
    for color, (label, (steps, values)) in zip(colors, panel.lines.items(), strict=False):
        many = len(steps) > _MANY_POINTS and panel.title != "learning_rate"
        line = {"linewidth": 1.0, "alpha": 0.35} if many else {"linewidth": 1.8, "label": label}
        axes.plot(steps, values, color=color, marker="o" if len(steps) <= 40 else None, markersize=4, **line)
        if many:
            window = max(len(values) // 20, 2)
            mean = np.convolve(values, np.ones(window) / window, mode="valid")
            axes.plot(steps[window // 2 :][: len(mean)], mean, color=color, linewidth=2.0, label=label)
    values = np.concatenate([values for _, values in panel.lines.values()])
    if panel.title.split("/")[0] in _LOG_SCALE and values.min() > 0 and values.max() > 2 * values.min():
        spread = values.max() / values.min()
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(
            LogLocator(subs=(1, 1.5, 2, 3, 4, 6) if spread < 10 else (1, 2, 5) if spread < 1e3 else (1,))
        )
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    title = style_axes(axes, panel.title, "step")
    axes.set_ylabel(unit_of(panel.title) or "", fontsize=FONT_SIZE - 1, color=FAINT)
    if len(panel.lines) > 1:
        axes.legend(fontsize=FONT_SIZE - 2, frameon=False)
        return
    latest = axes.set_title(f"{values[-1]:.4g}", loc="right", fontsize=FONT_SIZE, color=colors[0], weight="bold")
    name = panel.title
    kept = len(name) // 2
    while title.get_window_extent().x1 > latest.get_window_extent().x0 - 8 and kept > 3:
        title.set_text(f"{name[:kept]}…{name[-kept:]}")  # the ends of a name tell more than its middle
        kept -= 1
