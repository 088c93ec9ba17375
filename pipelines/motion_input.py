"""The motions that commands are given: files, and rows of data sets."""

from pathlib import Path
from typing import Annotated

import typer

from motion_grpo import Motion, Skeleton
from motion_grpo.extras import extra
from motion_grpo.io.kinds import kind_of

Smplh = Annotated[
    Path | None, typer.Option(help="Licensed SMPL-H model.npz that the betas refer to, or SMPLX_NEUTRAL.npz to show.")
]


def read_motion(path: Path, smplh: Path | None = None) -> Motion:
    """A motion file of ours or any AMASS npz.

    Args:
        path: of the file.
        smplh: licensed body file; SMPL-H's says which body the betas refer to, SMPL-X's has the default one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, which the message names; a broken one.
    """
    kind = kind_of(path)
    if kind != "a motion":
        raise ValueError(f"{path} is no motion: it seems to be {kind}.")
    return Motion.load(path, _skeleton(smplh))


def read_row(name: str, clip: str, split: str, smplh: Path | None = None) -> Motion:
    """The motion of one row of a data set in a folder or on the Hub.

    Raises:
        ValueError: no clip of this id; the message names some that are there.
    """
    with extra("data"):
        from motion_grpo.data import load_clips
    clips = {one.id: one for one in load_clips(name, split, skeleton=_skeleton(smplh))}
    if clip not in clips:
        some = ", ".join(list(clips)[:3])
        raise ValueError(f"the split {split} of {name} has no clip {clip!r}; it has {len(clips)}, such as {some}.")
    return clips[clip].motion


def _skeleton(smplh: Path | None) -> Skeleton | None:
    if smplh is None or "smplx" in smplh.name.lower():
        return None
    return Skeleton.from_smplh(smplh)
