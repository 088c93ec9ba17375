"""Where feet slide: how far standing toes and ankles travel, and their way over the floor."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from motion_grpo.body.joints import LEFT_FOOT, RIGHT_FOOT
from motion_grpo.motion import Motion
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

_HEIGHT, _PAD = 560, 70  # pixels
_STANDS = 0.5
_SIDES = (("left", LEFT_FOOT), ("right", RIGHT_FOOT))


def draw_feet(motions: Mapping[str, Motion], path: str | Path, title: str = "") -> Path:
    """Draws both toes of several motions of one recording, 1600 pixels wide: from above, and how far they slid.

    Thick are frames in which a toe stands (contact above one half): a dot where it does, a stroke where it slides.

    Args:
        motions: by name.
        path: a ``.png``.
        title: over the picture.

    Returns:
        The path.

    Raises:
        ValueError: unknown suffix.
        FileNotFoundError: the folder does not exist.
    """
    path = check_picture_path(path)
    figure = new_figure(_HEIGHT)
    above, along = (
        figure.add_axes((left, _PAD / _HEIGHT, width, 1 - 1.9 * _PAD / _HEIGHT))
        for left, width in ((_PAD / WIDTH, 0.5), (0.5 + 2.6 * _PAD / WIDTH, 0.5 - 3.2 * _PAD / WIDTH))
    )
    for color, (name, motion) in zip(COLORS, motions.items(), strict=False):
        seconds = motion.timestamps.numpy() - float(motion.timestamps[0])
        slid = np.zeros(len(motion))
        for _, joint in _SIDES:
            way = motion.joints[:, joint, :2].numpy()
            stands = motion.contacts[:, joint - 1].numpy() > _STANDS
            stands = stands & np.append(stands[1:], False)
            above.plot(*way.T, color=color, linewidth=0.6, alpha=0.5)
            above.plot(*_while(way, stands).T, color=color, linewidth=4, solid_capstyle="round")
            slid[1:] += np.cumsum(np.where(stands[:-1], np.linalg.norm(np.diff(way, axis=0), axis=1), 0.0))
        along.plot(seconds, 100 * slid, color=color, linewidth=1.8, label=f"{name}: {100 * slid[-1]:.0f} cm")
    above.set_aspect("equal", adjustable="datalim")
    style_axes(above, f"{title}  toes from above; thick while they stand" if title else "toes from above", "x, m")
    above.set_ylabel("y, m", fontsize=FONT_SIZE, color=FAINT)
    style_axes(along, "how far standing toes have slid, cm", "s")
    along.set_ylim(bottom=0)
    along.legend(fontsize=FONT_SIZE, frameon=False, loc="upper left")
    return save_figure(figure, path)


def _while(way: Float[np.ndarray, "frames 2"], stands: np.ndarray) -> Float[np.ndarray, "frames 2"]:
    """The way with gaps, from each standing frame to the next."""
    shown = stands | np.append(False, stands[:-1])
    return np.where(shown[:, None], way, np.nan)
