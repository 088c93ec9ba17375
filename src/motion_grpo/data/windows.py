"""Windows cut on the fly: out of clips in memory, of memory-mapped rows of a data set, or of a stream of rows."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import datasets
import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

from motion_grpo.body import Skeleton
from motion_grpo.data.clips import Clip
from motion_grpo.data.schema import check_body, check_columns, check_floor, frame_views
from motion_grpo.motion import FPS

_TEXT_COLUMNS = ["id", "skeleton", "fps", "floor_height"]
_ARRAY_COLUMNS = ["betas", "root_orient", "trans", "body_quats", "contacts"]
_ITEM_NAMES = {"root_orient": "root_wxyz", "trans": "root_positions", "body_quats": "body_wxyz", "contacts": "contacts"}


@dataclass(frozen=True)
class ClipFrames:
    """What windows of one clip are cut from; the arrays are never written to."""

    arrays: dict[str, np.ndarray]
    """(frames, ...) each, one of them ``root_positions``."""
    origin: np.ndarray
    """(3,), meters; added to ``root_positions`` it gives the pelvis above a floor at z = 0."""
    betas: np.ndarray
    """(16,)."""

    def __len__(self) -> int:
        return len(self.arrays["root_positions"])


class WindowBatch(Sequence):
    """Windows gathered into one tensor a name, for :func:`collate_windows`; to anybody else a list of items."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors["mask"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"Window {index} of a batch of {len(self)}.")
        return {name: values[index] for name, values in self.tensors.items()}


def collate_windows(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Collates windows into a batch; what :class:`MotionWindows` has gathered already is not copied again."""
    return items.tensors if isinstance(items, WindowBatch) else default_collate(items)


class MotionWindows(Dataset):
    """Windows of ``length`` frames and the frame before them, of clips at 30 fps.

    An item holds, for ``length + 1`` frames (the first is the one before the window, repeated at a clip's start):
    ``root_positions`` (length + 1, 3), meters above the floor; ``contacts`` (length + 1, 21); rotations, R_world_root
    and local; and ``betas`` (16,), ``mask`` (length,) True for frames that exist, ``has_previous`` (). Rotations are
    ``rotmats`` (length + 1, 22, 3, 3) where clips were given; where rows were given they stay the quaternions (wxyz)
    that are stored, ``root_wxyz`` (length + 1, 4) and ``body_wxyz`` (length + 1, 21, 4), for
    :func:`~motion_grpo.data.batches.training_batch` to convert on the device. Frames beyond a window's or a clip's
    end repeat its last frame.

    With ``DataLoader(windows, batch_size, collate_fn=collate_windows)`` a window is copied once, from the file's pages
    into the batch. That is so fast that the loader needs no worker: handing a batch over from one takes longer.

    Args:
        clips: what to cut. Clips are kept in memory; a ``datasets.Dataset`` of :data:`~motion_grpo.data.FEATURES` stays
            where it is, memory-mapped. Rows of a head without a body are left out.
        length: frames of a window.
        random: one window at a random place per clip and call (training; a clip counts once for every ``length`` frames
            it has); else every clip is cut into windows that do not overlap (evaluation).
        min_length: random windows have between this many frames and ``length``, the rest is masked; all have
            ``length`` when None.
        seed: makes the place of a random window a function of (seed, epoch, index) alone, whatever the number of
            processes and workers, see :meth:`set_epoch`; drawn anew at each call from torch's generator when None.
        skeleton: body that the rows' betas refer to; the default body when None.
        weights: of each clip's windows, for random ones: an epoch is as long as ever, but a clip is drawn in proportion
            to its frames times its weight. The draw is systematic, so counts are within one of what they should be.
            Needs a seed.

    Raises:
        ValueError: rows that are not of the schema, not at 30 fps, or of another body; lengths that make no sense;
            weights without a seed, or not one a clip.
    """

    def __init__(
        self,
        clips: Iterable[Clip] | datasets.Dataset,
        length: int = 128,
        *,
        random: bool = True,
        min_length: int | None = None,
        seed: int | None = None,
        skeleton: Skeleton | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        check_lengths(length, min_length)
        self.length, self.random, self.min_length, self.seed = length, random, min_length, seed
        self._rows = clips if isinstance(clips, datasets.Dataset) else None
        self._skeleton = skeleton
        frames = map(_of_clip, clips) if self._rows is None else _frames_of_rows(_tables(clips), skeleton)
        self.frames = list(frames)
        self.lengths = [len(frames) for frames in self.frames]
        # (clip, start): the start is drawn anew when random.
        self.items = [(i, start) for i, n in enumerate(self.lengths) for start in range(0, n, length)]
        if random:
            self.items = [(i, start) for i, start in self.items if start + length <= max(self.lengths[i], length)]
        self._weights = None
        if weights is not None:
            if not random or seed is None:
                raise ValueError("weights are for random windows with a seed; give both, or no weights.")
            if len(weights) != len(self.frames):
                raise ValueError(f"There are {len(weights)} weights for {len(self.frames)} clips; give one a clip.")
            self._weights = np.array([weights[clip] for clip, _ in self.items], np.float64)
        # Shared with the workers of a loader, which may outlive an epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._draws: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        """Other random windows, where there is a seed (transformers' Trainer and accelerate call this)."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> WindowBatch:
        """The windows at ``indices``, gathered into a batch (PyTorch's loader asks for whole batches by this name)."""
        spans = []
        for item, (place, share) in self._plan(indices):
            clip, start = self.items[item]
            stop = min(start + self.length, self.lengths[clip])
            if self.random:
                start, stop = random_span(self.lengths[clip], self.length, self.min_length, place, share)
            spans.append((self.frames[clip], start, stop))
        return WindowBatch(_gather(spans, self.length))

    def _plan(self, indices: Sequence[int]) -> Iterator[tuple[int, tuple[float, float]]]:
        """The item at each place of the epoch, and two numbers in [0, 1): where its window lies, how long it is."""
        if not self.random:
            return zip(indices, repeat((0.0, 0.0)))
        if self.seed is None:
            return zip(indices, torch.rand(len(indices), 2, dtype=torch.float64).tolist(), strict=True)
        epoch = int(self._epoch)
        if self._draws is None or self._draws[0] != epoch:
            uniform = np.random.default_rng((self.seed, epoch)).random((len(self.items), 2))
            self._draws = epoch, self._order(epoch), uniform
        _, order, uniform = self._draws
        places = list(indices)
        return zip(order[places].tolist(), uniform[places].tolist(), strict=True)

    def _order(self, epoch: int) -> np.ndarray:
        """The item in each place of an epoch: itself, or the one that the weights put there."""
        count = len(self.items)
        if self._weights is None:
            return np.arange(count)
        # One uniform number shifts a comb over the cumulated weights (systematic resampling).
        comb = np.arange(count) + np.random.default_rng((self.seed, epoch, 1)).random()
        edges = np.cumsum(self._weights / self._weights.sum() * count)
        return np.searchsorted(edges, comb).clip(max=count - 1)

    def __getstate__(self) -> dict:
        # Views of a memory map would be pickled as copies of all data; the rows are pickled as paths.
        return self.__dict__ | ({"frames": None} if self._rows is not None else {})

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self._rows is not None:
            self.frames = list(_frames_of_rows(_tables(self._rows), self._skeleton))


class StreamedWindows(IterableDataset):
    """Random windows of a streamed data set, cut from a buffer of clips; a clip leaves once it has given its share.

    Items are those of :class:`MotionWindows` made of rows; a clip gives one window for every ``length`` frames it has.

    Args:
        rows: ``load_dataset(..., streaming=True)``; loader workers share its shards, and processes do after
            ``datasets.distributed.split_dataset_by_node``. Rows of a head without a body are left out.
        length: frames of a window.
        buffer_clips: clips kept in memory to draw from.
        min_length: as for :class:`MotionWindows`.
        seed: of the windows, together with the epoch.
        skeleton: body that the rows' betas refer to; the default body when None.
    """

    def __init__(
        self,
        rows: datasets.IterableDataset,
        length: int = 128,
        *,
        buffer_clips: int = 256,
        min_length: int | None = None,
        seed: int = 0,
        skeleton: Skeleton | None = None,
    ) -> None:
        check_lengths(length, min_length)
        if buffer_clips < 1:
            raise ValueError(f"buffer_clips is {buffer_clips}; at least 1 clip has to be kept to draw from.")
        self.rows, self.length, self.buffer_clips = rows, length, buffer_clips
        self.min_length, self.seed, self.skeleton = min_length, seed, skeleton

    def set_epoch(self, epoch: int) -> None:
        """Other windows, and shards in another order."""
        self.rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, int(self.rows.epoch), worker.id if worker else 0))
        buffer: list[ClipFrames] = []
        left: list[int] = []

        def draw() -> dict[str, Tensor]:
            i = int(rng.integers(len(buffer)))
            frames = buffer[i]
            start, stop = random_span(len(frames), self.length, self.min_length, *rng.random(2).tolist())
            left[i] -= 1
            if left[i] == 0:
                buffer[i], left[i] = buffer[-1], left[-1]
                buffer.pop(), left.pop()
            return WindowBatch(_gather([(frames, start, stop)], self.length))[0]

        for frames in _frames_of_rows(_tables(self.rows), self.skeleton):
            # A copy, or one clip would keep alive all the rows that came with it.
            buffer.append(replace(frames, arrays={name: array.copy() for name, array in frames.arrays.items()}))
            left.append(max(1, len(frames) // self.length))
            while len(buffer) >= self.buffer_clips:
                yield draw()
        while buffer:
            yield draw()


def balancing_weights(
    frames: Sequence[int], subjects: Sequence[str], contents: Sequence[str], *, person: float, content: float
) -> list[float]:
    """Weights by which rare people and rare activities are seen more often: share^-person times share^-content.

    Args:
        frames: of each clip.
        subjects: who moves in each clip; a name per data set where people are not told apart.
        contents: what is done in each clip.
        person: 0 sees people as often as they were recorded, 1 everybody equally often.
        content: likewise of activities.

    Returns:
        A weight a clip; their mean over frames is 1.
    """
    by_person, by_content = Counter(), Counter()
    for count, who, what in zip(frames, subjects, contents, strict=True):
        by_person[who] += count
        by_content[what] += count
    raw = [
        by_person[who] ** -person * by_content[what] ** -content for who, what in zip(subjects, contents, strict=True)
    ]
    mean = sum(w * n for w, n in zip(raw, frames, strict=True)) / sum(frames)
    return [w / mean for w in raw]


def check_lengths(length: int, min_length: int | None) -> None:
    """Refuses windows that could not be cut."""
    if length < 2 or not 2 <= (min_length or 2) <= length:
        raise ValueError(f"length is {length}, min_length {min_length}; windows need 2 <= min_length <= length.")


def random_span(frames: int, length: int, min_length: int | None, place: float, share: float) -> tuple[int, int]:
    """First frame and end of a window in a clip of so many frames, by two uniform numbers."""
    shortest = length if min_length is None else min_length
    count = min(frames, shortest + int(share * (length - shortest + 1)))
    start = int(place * (frames - count + 1))
    return start, start + count


def _gather(spans: Sequence[tuple[ClipFrames, int, int]], length: int) -> dict[str, Tensor]:
    """Copies windows (clip, first frame, end) and the frames before them into new tensors."""
    batch = {}
    for name, array in spans[0][0].arrays.items():
        batch[name] = np.empty((len(spans), length + 1, *array.shape[1:]), np.float32)
        for window, (frames, start, stop) in zip(batch[name], spans, strict=True):
            array = frames.arrays[name]
            count = stop - start
            window[1 : count + 1] = array[start:stop]
            window[0] = array[max(start - 1, 0)]
            if count < length:
                window[count + 1 :] = array[stop - 1]
    batch["root_positions"] += np.array([frames.origin for frames, _, _ in spans])[:, None]
    batch["betas"] = np.array([frames.betas for frames, _, _ in spans])
    batch["mask"] = np.arange(length) < np.array([[stop - start] for _, start, stop in spans])
    batch["has_previous"] = np.array([start > 0 for _, start, _ in spans])
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def _of_clip(clip: Clip) -> ClipFrames:
    motion = clip.motion.above_floor()
    arrays = {
        "rotmats": torch.cat([motion.root_rotmats[:, None], motion.body_rotmats], 1).numpy(),
        "root_positions": motion.root_positions.numpy(),
        "contacts": motion.contacts.numpy(),
    }
    return ClipFrames(arrays, np.zeros(3, np.float32), motion.betas.numpy())


def _tables(rows: datasets.Dataset | datasets.IterableDataset) -> Iterator:
    """The columns that windows need, as Arrow tables; views of the memory map where there is one."""
    if rows.column_names is not None:
        check_columns(rows.column_names, "The data set")
    rows = rows.select_columns(_TEXT_COLUMNS + _ARRAY_COLUMNS).with_format("arrow")
    # Only plain iteration divides a stream among the workers of a loader.
    return rows.iter(batch_size=256) if isinstance(rows, datasets.Dataset) else iter(rows)


def _frames_of_rows(tables: Iterable, skeleton: Skeleton | None) -> Iterator[ClipFrames]:
    body = skeleton or Skeleton.default()
    for table in tables:
        head_only = pc.equal(table["skeleton"], "")
        if pc.any(head_only).as_py():
            table = table.filter(pc.invert(head_only))
        check_body(table["skeleton"].unique().to_pylist(), skeleton)
        texts = zip(*(table[name].to_pylist() for name in ("id", "fps", "floor_height")), strict=True)
        for (clip, fps, floor), views in zip(texts, frame_views(table, _ARRAY_COLUMNS), strict=True):
            if abs(fps - FPS) > 1e-3:
                raise ValueError(f"Clip {clip} is at {fps:g} fps; training needs {FPS:g}: resample it at the import.")
            betas = views.pop("betas")[0]
            pelvis = body.rest_joints(torch.tensor(betas))[0].numpy()
            arrays = {_ITEM_NAMES[name]: array for name, array in views.items()}
            heights = arrays["root_positions"][:: max(1, len(arrays["root_positions"]) // 8), 2]  # a few pages' worth
            check_floor(clip, floor, heights + pelvis[2])
            yield ClipFrames(arrays, pelvis - np.float32([0.0, 0.0, floor]), betas)
