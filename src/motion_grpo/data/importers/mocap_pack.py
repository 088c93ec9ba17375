"""The packs of open motion capture, converted to the library's schema."""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pyarrow.parquet as pq

from motion_grpo.data.clips import Clip
from motion_grpo.data.importers.base import Job
from motion_grpo.data.mocap_pack import SPLITS, clip_of, columns_of, pack_shards

_CLIPS_PER_JOB = 64


@dataclass(frozen=True)
class MocapPackImporter:
    """Rewrites packs as one data set of the schema, through :func:`~motion_grpo.data.run_import`."""

    folders: tuple[Path, ...]
    splits: tuple[str, ...] = SPLITS
    sources: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    """Patterns of ids to leave out, ``cmu/05_*`` for instance."""
    name: str = "open_mocap_smplh"

    def jobs(self) -> list[Job]:
        """Up to 64 clips of a shard each.

        Raises:
            FileNotFoundError: a folder without a shard of any of the splits.
            ValueError: two folders hold a shard of the same name.
        """
        jobs = {}
        for folder in self.folders:
            found = [(path, split) for split in self.splits for path in pack_shards(folder, split, self.sources)]
            if not found:
                raise FileNotFoundError(f"{folder} holds no shard of {', '.join(self.splits)}.")
            for path, split in found:
                for start in range(0, pq.read_metadata(path).num_rows, _CLIPS_PER_JOB):
                    job = Job(f"{path.stem}/{start}", path, split, {"start": start})
                    if job.id in jobs:
                        raise ValueError(f"{jobs[job.id].path} and {path} have the same name; give one of them.")
                    jobs[job.id] = job
        return list(jobs.values())

    def convert(self, job: Job) -> list[Clip]:
        """The clips of the job."""
        table = pq.read_table(job.path, columns=columns_of(job.path)).slice(job.extra["start"], _CLIPS_PER_JOB)
        rows = (row for row in table.to_pylist() if not any(fnmatch(row["clip_id"], p) for p in self.exclude))
        return [clip_of(row, job.split) for row in rows]
