"""Motions of any other system, read from files."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from motion_grpo.body import Skeleton
from motion_grpo.data import Clip
from motion_grpo.evaluation.clips import ClipWindow, check_fits, clip_name, frames_of, whole_clip
from motion_grpo.motion import Motion

Key = tuple[str, str]
"""Source and id of a clip."""


class RecordedMotions:
    """Motions of any system: AMASS npz at 30 fps in the clip's world, named ``SOURCE/ID.npz`` like the clip.

    A file belongs to the clip whose name its path ends with, in whatever folder below: ``seed0/cmu/walk_01.npz`` and
    ``seed1/cmu/walk_01.npz`` are two samples of the clip ``walk_01`` of ``cmu``. The id alone will do where one clip
    alone has it. For a window of a clip (:class:`ClipWindow`) there is a file of its own (``SOURCE/ID/FIRST_FRAME``),
    or the window is cut out of the motion of the whole clip.

    A file that says where its floor is (``floor_height``, as ours do) is put on that; all others stand on the clip's.

    Args:
        folder: where to look.
        clips: those that will be asked for.
        skeleton: body that the files' betas (and AMASS's ``trans``) refer to; the default body when None.

    Raises:
        FileNotFoundError: no such folder, or no file for one of the clips.
        ValueError: clips with different numbers of files; on call, a file that is no motion or does not fit the clip.
    """

    def __init__(self, folder: str | Path, clips: Iterable[Clip], skeleton: Skeleton | None = None) -> None:
        self.folder = folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; give one with a motion file (.npz) for every clip.")
        clips = list(clips)
        by_name = _names(clips)
        found: dict[Key, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*.npz")):
            parts = path.relative_to(folder).as_posix().removesuffix(".npz").split("/")
            ends = ("/".join(parts[start:]) for start in range(len(parts)))
            # The longest name counts: walk/1 is not 1.
            if (key := next((by_name[end] for end in ends if end in by_name), None)) is not None:
                found[key].append(path)
        self.files = {_key(clip): found.get(_key(clip)) or found.get(whole_clip(clip)) or [] for clip in clips}
        shown = {key: name for name, key in by_name.items()}  # the last name of a clip is its shortest
        missing = [shown[key] for key, files in self.files.items() if not files]
        if missing:
            more = f" (and for {len(missing) - 1} other clips of {len(clips)})" if len(missing) > 1 else ""
            raise FileNotFoundError(f"{folder} holds no motion file for clip {missing[0]}{more}: {missing[0]}.npz.")
        first = next(iter(self.files))
        for key in self.files:
            if len(self.files[key]) != len(self.files[first]):
                raise ValueError(
                    f"{folder} holds {len(self.files[key])} motion files for clip {shown[key]} and "
                    f"{len(self.files[first])} for clip {shown[first]}; every clip needs the same number of samples."
                )
        self._cut = {_key(clip) for clip in clips if isinstance(clip, ClipWindow) and _key(clip) not in found}
        self.skeleton = skeleton

    def __call__(self, clip: Clip) -> list[Motion]:
        """The clip's motions, cut to its window where their files hold the whole clip."""
        motions = []
        for path in self.files[_key(clip)]:
            motion = Motion.load(path, self.skeleton)
            if _key(clip) in self._cut:
                motion = _window_of(motion, clip, path)
            check_fits(motion, clip, str(path))
            if not _says_its_floor(path):
                motion = replace(motion, floor_height=clip.motion.floor_height)
            motions.append(motion)
        return motions


def _names(clips: Iterable[Clip]) -> dict[str, Key]:
    """The clips by all that their files may be called; of windows also the clips that they were cut from."""
    names: dict[str, Key] = {}
    for clip in clips:
        names[clip_name(clip)] = _key(clip)
        if isinstance(clip, ClipWindow):
            names[clip_name(replace(clip, id=clip.clip_id))] = whole_clip(clip)
    keys = set(names.values())
    alone = Counter(identifier for _, identifier in keys)
    return names | {key[1]: key for key in keys if alone[key[1]] == 1 and key[1] not in names}


def _key(clip: Clip) -> Key:
    return clip.source, clip.id


def _window_of(motion: Motion, window: ClipWindow, path: Path) -> Motion:
    stop = window.start + len(window.motion)
    if len(motion) < stop:
        raise ValueError(
            f"{path} has {len(motion)} frames; the window {window.id} of clip {window.clip_id} ends at frame {stop}."
        )
    return frames_of(motion, window.start, stop)


def _says_its_floor(path: Path) -> bool:
    with np.load(path, allow_pickle=False) as file:
        return "floor_height" in file
