"""What every picture of the library shares: colors, paper, and how it gets onto the disk."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from motion_grpo.files import whole_file

# Okabe and Ito's palette, told apart by people with every common kind of color blindness.
COLORS: tuple[str, ...] = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, FAINT, PAPER, FLOOR = "#222222", "#767676", "#FFFFFF", "#EFECE6"
DPI = 100
WIDTH = 1600
"""Pixels, of every picture."""
FONT_SIZE = 11.5
SUFFIXES = (".png",)


def new_figure(height: int) -> Figure:
    """A blank figure, WIDTH by ``height`` pixels, of no pyplot state."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def check_picture_path(path: str | Path) -> Path:
    """The path, if a picture can be written there; asked before long work starts.

    Raises:
        ValueError: the suffix names no known format.
        FileNotFoundError: the folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: cannot write {path.suffix or 'a file without suffix'}; use {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; make it first.")
    return path


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes the figure to a temporary file beside ``path`` and renames it."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=DPI)
    return path


def style_axes(axes: Axes, title: str, xlabel: str) -> Text:
    """A quiet panel: title at the upper left, which is returned, two spines, a light grid."""
    axes.set_xlabel(xlabel, fontsize=FONT_SIZE, color=FAINT)
    axes.tick_params(labelsize=FONT_SIZE - 1, colors=FAINT, length=3)
    axes.grid(True, color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#B0B0B0")
    return axes.set_title(title, loc="left", fontsize=FONT_SIZE, color=INK)
