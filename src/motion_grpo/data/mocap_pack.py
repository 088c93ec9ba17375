"""Reads open_mocap_smplh: real motion capture in SMPL-H form, in small Parquet shards (one per source and split).

Pose columns are int16 of radians x 1e4, translations int32 of meters x 1e5, channel-major and differenced in time with
wrap-around, so that they compress well.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import roma
import torch

from motion_grpo.body import NUM_BODY_AND_ROOT, Skeleton
from motion_grpo.data.clips import Clip
from motion_grpo.motion import Motion
from motion_grpo.motion.contacts import TOE_HEIGHT, with_contacts
from motion_grpo.retargeting.retarget import on_default_body

_COLUMNS = {"clip_id", "source", "num_frames", "fps", "betas", "poses_i16", "trans_i32"}
_FREE = "free for all uses, with attribution (mocap.cs.cmu.edu)"
_LICENSES = {"bandai1": "cc-by-nc-4.0", "bandai2": "cc-by-nc-4.0", "cmu": _FREE, "cmu2": _FREE}
SPLITS = ("train", "val", "test", "id_test")
# The pack's floor is where the sole stands: the toe joint of a standing foot is this far above it, meters. (Its lower
# toe joint is 18 mm above; both feet of the symmetric body stand between that one and the other.)
_PACK_TOE_HEIGHT = 0.0165


def read_mocap_pack(folder: str | Path, split: str, sources: Sequence[str] | None = None) -> Iterator[Clip]:
    """Yields the clips of one split on the default body, contacts labeled.

    The pack was made on the body of mannequin-x, whose sides differ. Pelvis and ankles stay where they are there, so
    that planted feet stay planted (:func:`~motion_grpo.retargeting.retarget.on_default_body`).

    Args:
        folder: holds ``SOURCE_SPLIT.parquet`` files.
        split: ``train``, ``val``, ``test`` or ``id_test``.
        sources: only these data sets, e.g. ``["cmu"]`` (free for all uses); all when None.

    Raises:
        FileNotFoundError: no shard of that split there.
        ValueError: a file without the columns of the format.
    """
    shards = pack_shards(folder, split, sources)
    if not shards:
        raise FileNotFoundError(f"{folder} holds no *_{split}.parquet{f' of {list(sources)}' if sources else ''}.")
    for shard in shards:
        missing = _COLUMNS - set(pq.read_schema(shard).names)
        if missing:
            raise ValueError(f"{shard} is no shard of open_mocap_smplh: it has no column {', '.join(sorted(missing))}.")
        for batch in pq.ParquetFile(shard).iter_batches(64, columns=columns_of(shard)):
            for row in batch.to_pylist():
                yield clip_of(row, split)


def pack_shards(folder: str | Path, split: str, sources: Sequence[str] | None = None) -> list[Path]:
    """The files ``SOURCE_SPLIT.parquet`` of one split in order of their names; hidden ones are none.

    Args:
        folder: of the pack.
        split: ``id_test`` also ends in ``_test``, and is another.
        sources: only these; all when None.
    """
    found = ((path, source_of(path)) for path in sorted(Path(folder).glob(f"[!.]*_{split}.parquet")))
    return [
        path for path, source in found if path.stem == f"{source}_{split}" and (sources is None or source in sources)
    ]


def source_of(shard: Path) -> str:
    """The source that a shard's name begins with."""
    return shard.stem.split("_", 1)[0]


def is_mocap_pack(folder: str | Path) -> bool:
    """Whether ``folder`` holds a shard of this format."""
    shards = (path for split in SPLITS for path in pack_shards(folder, split))
    return any(pq.read_schema(shard).names.count("poses_i16") for shard in shards)


def columns_of(shard: Path) -> list[str]:
    """The columns of a shard that are read; some packs have more of them than others."""
    present = set(pq.read_schema(shard).names)
    return sorted(_COLUMNS | (present & {"subject", "content"}))


def clip_of(row: dict, split: str) -> Clip:
    """One row as a clip on the default body, contacts labeled."""
    frames = row["num_frames"]

    def undo(column: str, dtype: type, channels: int) -> np.ndarray:
        return np.cumsum(np.frombuffer(row[column], dtype).reshape(channels, frames), axis=1, dtype=dtype).T

    rotvecs = torch.tensor(undo("poses_i16", np.int16, 66) / 1e4, dtype=torch.float32)
    trans = torch.tensor(undo("trans_i32", np.int32, 3) / 1e5, dtype=torch.float32)
    betas = torch.tensor(row["betas"], dtype=torch.float32)
    rotmats = roma.rotvec_to_rotmat(rotvecs.unflatten(1, (NUM_BODY_AND_ROOT, 3)))
    pack_body = Skeleton.mannequin_x()
    to_floor = torch.tensor([0.0, 0.0, TOE_HEIGHT - _PACK_TOE_HEIGHT])
    motion = Motion(
        root_rotmats=rotmats[:, 0],
        root_positions=trans + pack_body.rest_joints(betas)[0] + to_floor,
        body_rotmats=rotmats[:, 1:],
        betas=betas,
        contacts=torch.zeros(frames, 21),
        timestamps=torch.arange(frames, dtype=torch.float64) / row["fps"],
        skeleton=pack_body,
    )
    return Clip(
        id=row["clip_id"],
        source=row["source"],
        motion=with_contacts(on_default_body(motion)),
        subject=row.get("subject") or "",
        content=row.get("content") or "",
        split=split,
        license=_LICENSES.get(row["source"], ""),
    )
