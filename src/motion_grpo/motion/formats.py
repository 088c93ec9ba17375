"""What a motion can be written as, by suffix.

The writers are named, not imported: some of them draw, and drawing stands above motion (tests/test_imports.py).
"""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from motion_grpo.extras import extra


class Format(NamedTuple):
    """One file format."""

    writer: str
    """``module:function``, which takes a motion and a path, and ``model_path`` where the format has a surface."""
    summary: str
    surface: bool = False
    """Whether it shows the body's surface, and not only its joints."""
    library: str | None = None
    """What has to be installed for it, beyond what recovering takes."""
    extra: str = ""
    """The extra that the library belongs to."""

    def load(self) -> Callable[..., None]:
        """The writer.

        Raises:
            ModuleNotFoundError: the library is not installed; the message names the extra.
        """
        if self.library is not None:
            with extra(self.extra):
                import_module(self.library)
        module, function = self.writer.split(":")
        return getattr(import_module(module), function)


FORMATS = {
    ".npz": Format("motion_grpo.io.amass:write_amass", "SMPL-H poses in AMASS's layout; the one that is read back"),
    ".smplx.npz": Format("motion_grpo.io.amass:write_smplx", "SMPL-X poses, for the SMPL-X add-on of Blender"),
    ".bvh": Format("motion_grpo.io.bvh:write_bvh", "skeleton and motion, for every animation program"),
    ".glb": Format(
        "motion_grpo.viz.glb:write_glb", "body and motion, for 3-D programs and the web", True, "pygltflib", "export"
    ),
    ".vrma": Format(
        "motion_grpo.viz.vrma:write_vrma", "motion without a body, for VRM avatars", False, "pygltflib", "export"
    ),
    ".html": Format(
        "motion_grpo.viz.viewer:write_html", "the viewer as one file that opens from disk", True, "viser", "view"
    ),
    ".mp4": Format("motion_grpo.viz.video:write_mp4", "video", True, "imageio_ffmpeg", "export"),
    ".gif": Format("motion_grpo.viz.video:write_gif", "moving picture", True),
    ".csv": Format("motion_grpo.io.tables:write_csv", "joints and contacts, one row a frame"),
    ".parquet": Format("motion_grpo.io.tables:write_parquet", "joints and contacts, one row a frame"),
}
"""By suffix; of two that fit, the longer one counts."""


def suffix_of(path: str | Path) -> str:
    """The suffix of :data:`FORMATS` that a path ends in.

    Raises:
        ValueError: it ends in none; the message lists all.
    """
    name = Path(path).name.lower()
    fitting = [suffix for suffix in FORMATS if name.endswith(suffix)]
    if not fitting:
        suffix = Path(path).suffix or "a file without suffix"
        raise ValueError(f"{path}: a motion cannot be written as {suffix}; use one of {', '.join(FORMATS)}.")
    return max(fitting, key=len)


def numbered(path: Path, number: int) -> Path:
    """The path with a number before its suffix: ``walk_0.bvh``."""
    suffix = suffix_of(path)
    return path.with_name(f"{path.name[: -len(suffix)]}_{number}{path.name[-len(suffix) :]}")


def check_output_path(path: str | Path) -> Path:
    """The path, if a motion can be written there; asked before long work starts.

    Raises:
        ValueError: the suffix names no known format.
        OSError: the folder is missing, or it or the file cannot be written to.
        ModuleNotFoundError: the format needs an extra that is not installed.
    """
    path = Path(path)
    chosen = FORMATS[suffix_of(path)]
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; make it first.")
    if path.is_dir() or not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise PermissionError(f"{path} cannot be written; choose another output path.")
    chosen.load()
    return path
