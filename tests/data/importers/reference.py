"""Single clips of the published open_mocap_smplh, which is slow to read whole."""

from functools import cache

import pyarrow.parquet as pq

from motion_grpo.data.mocap_pack import clip_of
from motion_grpo.motion import Motion
from tests.conftest import shared_path


@cache
def reference(clip_id: str, split: str) -> Motion:
    """The motion of one clip, which has to be in that split."""
    shard = shared_path(f"mocap/{clip_id.split('/')[0]}_{split}.parquet")
    (row,) = pq.read_table(shard, filters=[("clip_id", "=", clip_id)]).to_pylist()
    return clip_of(row, split).motion
