"""Opens recorded motion by name: a pack of open_mocap_smplh, or a data set of the schema in a folder or on the Hub."""

from collections.abc import Sequence
from pathlib import Path

import datasets

from motion_grpo.body import Skeleton
from motion_grpo.data.clips import Clip
from motion_grpo.data.mocap_pack import is_mocap_pack, read_mocap_pack
from motion_grpo.data.schema import check_columns, row_to_clip
from motion_grpo.hub import fetch


def load_motions(
    name: str | Path,
    split: str,
    *,
    sources: Sequence[str] | None = None,
    streaming: bool = False,
    revision: str | None = None,
) -> datasets.Dataset | datasets.IterableDataset:
    """The rows of one split; memory-mapped, or read as they are needed when ``streaming``.

    Args:
        name: folder that an importer wrote (``SPLIT/*.parquet``), or the id of a data set on the Hub.
        split: ``train``, ``val``, ``test`` ...
        sources: only clips of these; all when None.
        streaming: read rows as they are asked for, without a copy on disk.
        revision: branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: no such folder, and no such data set on the Hub.
        OSError: a download that is not what the Hub has.
        ValueError: no such split, no clip of these sources, or columns are missing.
    """
    folder = Path(name)
    shards = sorted(str(path) for path in (folder / split).glob("*.parquet"))
    if shards:
        rows = datasets.load_dataset("parquet", data_files={split: shards}, split=split, streaming=streaming)
    elif folder.is_dir() and not (folder / "README.md").is_file():
        raise FileNotFoundError(f"{folder} holds no {split}/*.parquet; import a data set into it first.")
    elif folder.is_dir():
        rows = datasets.load_dataset(str(folder), split=split, streaming=streaming)
    elif streaming:
        rows = datasets.load_dataset(str(name), split=split, streaming=True, revision=revision)
    else:
        # load_dataset by itself reads, when it is offline, whatever revision it happened to read last.
        copy = fetch(str(name), ["README.md", "*.parquet"], repo_type="dataset", revision=revision)
        rows = datasets.load_dataset(str(copy), split=split)
    if rows.column_names is not None:
        check_columns(rows.column_names, str(name))
    if sources is None:
        return rows
    rows = rows.filter(lambda source: source in set(sources), input_columns="source")
    if not streaming and len(rows) == 0:
        raise ValueError(f"The split {split} of {name} has no clip of {', '.join(sources)}.")
    return rows


def load_clips(
    name: str | Path,
    split: str,
    *,
    sources: Sequence[str] | None = None,
    limit: int | None = None,
    skeleton: Skeleton | None = None,
) -> list[Clip]:
    """The clips of one split in memory, of a pack or of a data set of the schema; rows without a body are left out.

    Args:
        name: as for :func:`load_motions`, or the folder of a pack.
        limit: that many, evenly spread; all when None.
        skeleton: body that the rows' betas refer to; the default body when None.

    Raises:
        FileNotFoundError, OSError, ValueError: as :func:`load_motions` and :func:`~motion_grpo.data.read_mocap_pack`.
    """
    if is_mocap_pack(name):
        clips = list(read_mocap_pack(name, split, sources))
        return [clips[i] for i in evenly(len(clips), limit)]
    rows = load_motions(name, split, sources=sources)
    bodies = [i for i, body in enumerate(rows["skeleton"]) if body]
    rows = rows.select([bodies[i] for i in evenly(len(bodies), limit)]).with_format("numpy")
    return [row_to_clip(row, skeleton) for row in rows]


def evenly(count: int, limit: int | None) -> list[int]:
    """``limit`` of ``count`` places, evenly spread from the first one on; all where limit is None or no smaller."""
    chosen = count if limit is None else min(limit, count)
    return [i * count // chosen for i in range(chosen)]
