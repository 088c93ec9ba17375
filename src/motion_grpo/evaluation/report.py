"""An evaluation for people: tables of what ``results.json`` holds, in Markdown and on a terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from motion_grpo.metrics import METRIC_UNITS

SHOWN_BY_GROUP = ("mpjpe", "pa_mpjpe", "mpjve", "mpjre", "jitter", "ground_penetration", "foot_skating")
"""Metrics of the tables by source and by content; ``results.json`` has all."""


def markdown(results: Mapping[str, Any]) -> str:
    """The tables of a ``results.json``: splits, how samples differ, by source and by content; then the settings."""
    lines: list[str] = []
    for split, summary in results["splits"].items():
        lines += [heading(split, summary, results["settings"]), ""]
        lines += table(["metric", "unit", *summary["systems"]], rows(summary["systems"]))
        samples = list(sample_rows(summary["systems"]))
        if samples:
            mode = results["settings"]["mode"]
            lines += [f"{split}: how the samples of a clip differ, mm, mean over {_unit(summary)} ({mode}).", ""]
            lines += table(SAMPLE_COLUMNS, samples)
        for kind, groups in summary["by"].items():
            lines += [f"{split}, by {kind} ({results['settings']['mode']}).", ""]
            units = [f"{name} ({METRIC_UNITS[name]})" for name in SHOWN_BY_GROUP]
            lines += table([kind, _unit(summary), "system", *units], group_rows(groups))
    stated = [f"- {key}: {value}" for key, value in results["settings"].items()]
    return "\n".join([*lines, *stated, ""])


def show(console: Console, results: Mapping[str, Any]) -> None:
    """Prints the tables."""
    for split, summary in results["splits"].items():
        console.print(heading(split, summary, results["settings"]), markup=False, highlight=False)
        _print(console, ["metric", "unit", *summary["systems"]], rows(summary["systems"]))
        samples = list(sample_rows(summary["systems"]))
        if samples:
            console.print(f"{split}: how the samples of a clip differ, mm", markup=False, highlight=False)
            _print(console, SAMPLE_COLUMNS, samples)
        for kind, groups in summary["by"].items():
            console.print(f"{split}, by {kind}", markup=False, highlight=False)
            _print(console, [kind, _unit(summary), "system", *SHOWN_BY_GROUP], group_rows(groups))


def heading(split: str, summary: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What the numbers of a split mean, in one paragraph."""
    samples = ", ".join(f"{system['samples_per_clip']} {name}" for name, system in summary["systems"].items())
    if settings["window"] is None:
        what, sums = f"{summary['clips']} clips, {summary['frames']} frames at {settings['fps']:g} fps", "a clip"
    else:
        what = (
            f"{summary['windows']} windows of {summary['clips']} clips, {summary['frames']} frames at "
            f"{settings['fps']:g} fps ({summary['frames_left_out']} frames fill no window and are left out, "
            f"{summary['clips_left_out']} whole clips among them)"
        )
        sums = "a window"
    return (
        f"{split}: {what}, {settings['mode']}; 22 joints (no fingers), world frame, not aligned; steps "
        f"{settings['num_inference_steps']}, eta {settings['eta']}, guidance {settings['guidance']}. "
        f"Samples a clip: {samples}. Mean over {_unit(summary)} [95% interval]; in m: sum over {sums}."
    )


def rows(systems: Mapping[str, Any]) -> Iterator[list[str]]:
    """Metric, unit, and what each system scores."""
    for metric, first in next(iter(systems.values()))["metrics"].items():
        yield [metric, first["unit"], *(with_interval(system["metrics"][metric]) for system in systems.values())]


SAMPLE_COLUMNS = (
    "system", "samples", "MPJPE, mean", "MPJPE, best", "spread", "spread / error", "trunk", "arms", "legs", "feet",
)  # fmt: skip


def sample_rows(systems: Mapping[str, Any]) -> Iterator[list[str]]:
    """Of each system that draws several samples: their error, that of the best, spread, and its share of the error."""
    for name, system in systems.items():
        of = system["samples"]
        if of is not None:
            ratios = (with_interval(of["ratio"][group]) for group in ("all", "trunk", "arms", "legs", "feet"))
            values = (system["metrics"]["mpjpe"], of["best_mpjpe"], of["spread"]["all"])
            yield [name, str(of["samples"]), *map(with_interval, values), *ratios]


def group_rows(groups: Mapping[str, Any]) -> Iterator[list[str]]:
    """Group, number of clips or windows, system, and what it scores there."""
    for name, group in groups.items():
        for system, of in group["systems"].items():
            values = (with_interval(of["metrics"][metric]) for metric in SHOWN_BY_GROUP)
            yield [name, str(group.get("windows", group["clips"])), system, *values]


def table(columns: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown, and an empty one after it."""
    return [*(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *body]), ""]


def with_interval(estimate: Mapping[str, float]) -> str:
    """Mean [bounds], to four digits."""
    mean, lo, hi = (round(estimate[key], 4) for key in ("mean", "lo", "hi"))
    return f"{mean:.4g} [{lo:.4g}, {hi:.4g}]"


def _unit(summary: Mapping[str, Any]) -> str:
    return "windows" if "windows" in summary else "clips"


def _print(console: Console, columns: Sequence[str], body: Iterable[Sequence[str]]) -> None:
    shown = Table(Column(columns[0], no_wrap=True), *columns[1:])
    for row in body:
        shown.add_row(*(escape(cell.replace(" [", "\n[")) for cell in row))
    console.print(shown)
