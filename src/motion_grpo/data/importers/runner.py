"""The runner of every importer: files of a data set in, Parquet shards of the schema out; outlives bad files."""

import errno
import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from motion_grpo.data.clips import ClipError
from motion_grpo.data.head_clip import HeadClip
from motion_grpo.data.importers.base import Importer, Job
from motion_grpo.data.plausibility import Doubt, doubts, head_doubts
from motion_grpo.data.schema import ARROW_SCHEMA, SCHEMA_VERSION, check_clip, clip_to_row, rows_to_table
from motion_grpo.data.splits import name_splits
from motion_grpo.files import write_text

# Frames held before they are written, which is what bounds the memory of a worker: about 15 MB.
_FRAMES_PER_ROW_GROUP = 30_000
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Dropped:
    """A file or clip that did not make it."""

    id: str
    path: str
    reason: str
    broken: bool
    """False where it was left out on purpose (:class:`ClipError`)."""


@dataclass(frozen=True)
class Doubtful:
    """A clip that was kept although something about it is implausible."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What an import kept and dropped; ``str()`` of it is for people."""

    importer: str
    clips: int = 0
    frames: int = 0
    hours: float = 0.0
    dropped: list[Dropped] = field(default_factory=list)
    doubtful: list[Doubtful] = field(default_factory=list)
    """Kept clips that somebody should look at."""
    shards_resumed: int = 0
    """Shards that an earlier run had finished."""

    @property
    def broken(self) -> list[Dropped]:
        """Files that could not be read or hold nonsense."""
        return [dropped for dropped in self.dropped if dropped.broken]

    @property
    def exit_code(self) -> int:
        """0, or 1 where a file was broken or nothing was kept."""
        return 1 if self.broken or self.clips == 0 else 0

    def __add__(self, other: "ImportReport") -> "ImportReport":
        return ImportReport(
            self.importer,
            self.clips + other.clips,
            self.frames + other.frames,
            self.hours + other.hours,
            self.dropped + other.dropped,
            self.doubtful + other.doubtful,
            self.shards_resumed + other.shards_resumed,
        )

    def __str__(self) -> str:
        left_out = [dropped for dropped in self.dropped if not dropped.broken]
        lines = [f"{self.importer}: kept {self.clips:,} clips, {self.frames:,} frames, {self.hours:.2f} hours"]
        groups = {"kept, but look at them": self.doubtful, "left out": left_out, "broken": self.broken}
        for title, group in groups.items():
            if group:
                lines.append(f"{len(group):,} {title}:")
                lines += [f"  {n:6,}  {reason}" for reason, n in Counter(d.reason for d in group).most_common(10)]
        return "\n".join(lines)


def run_import(
    importer: Importer,
    output: str | Path,
    *,
    num_proc: int = 1,
    clips_per_shard: int = 256,
    strict: bool = False,
    progress: bool = True,
) -> ImportReport:
    """Converts a data set into ``OUTPUT/SPLIT/NAME-00000.parquet``, for ``load_dataset(OUTPUT)``.

    Jobs are taken in order, so many to a shard, whatever the number of processes. A shard appears under its name once
    it is complete. A run that was killed goes on where it stopped when it is started again with the same arguments.
    Clips that cannot be used are left out and reported. Several importers may write to one folder.

    Args:
        output: made if missing. ``README.md`` there gets the names of the splits, ``NAME_report.json`` the report.
        num_proc: processes, each of which holds the clips of one file and about 15 MB of rows.
        clips_per_shard: source files to a shard; most files give one clip.
        strict: stop at the first broken file.
        progress: show a bar.

    Raises:
        FileNotFoundError, ValueError: from :meth:`Importer.jobs`; the output holds another import; under ``strict``, a
            broken file.
        OSError: the output cannot be written (of a full disk it says so), or a process was killed. Finished shards
            stay.
    """
    jobs = importer.jobs()
    output = Path(output)
    _check_schema(output)
    shards = _plan(importer, jobs, output, clips_per_shard)
    finished = {shard.path: report for shard in shards if (report := shard.finished_report()) is not None}
    missing = [shard for shard in shards if shard.path not in finished]
    reports = {path: replace(report, shards_resumed=1) for path, report in finished.items()}
    done = sum(len(shard.jobs) for shard in shards) - sum(len(shard.jobs) for shard in missing)
    try:
        with tqdm(total=len(jobs), initial=done, desc=importer.name, unit="file", disable=not progress) as bar:
            for shard, report in _run(importer, missing, num_proc, strict):
                reports[shard.path] = report
                bar.update(len(shard.jobs))
        total = sum((reports[shard.path] for shard in shards), ImportReport(importer.name))
        text = json.dumps(asdict(total) | {"schema": SCHEMA_VERSION}, indent=1)
        write_text(output / f"{importer.name}_report.json", text)
        if total.clips:
            name_splits(output)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise OSError(
                error.errno,
                f"The disk of {output} is full. {len(reports)} of {len(shards)} shards are finished and kept: free "
                "some space and start the same command again",
            ) from error
        raise
    return total


@dataclass(frozen=True)
class _Shard:
    path: Path
    marker: Path
    """Its report; exists once the shard is complete."""
    jobs: list[Job]
    fingerprint: str

    def finished_report(self) -> ImportReport | None:
        """None unless an earlier run of the same import finished the shard.

        Raises:
            ValueError: it was written by another import.
        """
        if not self.marker.is_file():
            return None
        stored = json.loads(self.marker.read_text())
        if stored.pop("fingerprint") != self.fingerprint:
            raise ValueError(
                f"{self.path} was imported with other options, or from a folder whose files have changed since: choose "
                f"another output, or remove {self.path.parent.parent}."
            )
        lists = {"dropped": [Dropped(**d) for d in stored["dropped"]]}
        lists["doubtful"] = [Doubtful(**d) for d in stored["doubtful"]]
        report = ImportReport(**stored | lists)
        return report if self.path.is_file() or report.clips == 0 else None


def _plan(importer: Importer, jobs: Sequence[Job], output: Path, per_shard: int) -> list[_Shard]:
    if per_shard < 1:
        raise ValueError(f"clips_per_shard is {per_shard}; a shard needs at least one.")
    splits: dict[str, list[Job]] = {}
    for job in jobs:
        splits.setdefault(job.split, []).append(job)
    shards = []
    for split, members in splits.items():
        for number, start in enumerate(range(0, len(members), per_shard)):
            part = members[start : start + per_shard]
            name = f"{importer.name}-{number:05d}"
            key = repr((SCHEMA_VERSION, importer, [(job.id, str(job.path), sorted(job.extra.items())) for job in part]))
            fingerprint = hashlib.sha256(key.encode()).hexdigest()
            marker = output / ".import" / split / f"{name}.json"
            shards.append(_Shard(output / split / f"{name}.parquet", marker, part, fingerprint))
    planned = {shard.marker for shard in shards}
    other = sorted(set((output / ".import").glob(f"*/{importer.name}-*.json")) - planned)
    if other:
        raise ValueError(
            f"{output} holds shards that this import would not write ({other[0].parent.name}/{other[0].stem}): choose "
            "another output, or remove it."
        )
    return shards


def _check_schema(output: Path) -> None:
    # All finished shards of a folder are of one version, so one of them tells.
    for marker in output.glob(".import/*/*.json"):
        shard = output / marker.parent.name / f"{marker.stem}.parquet"
        if not shard.is_file():
            continue
        version = (pq.read_schema(shard).metadata or {}).get(b"motion_grpo_schema", b"?").decode()
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{output} holds shards of schema {version}, and this version writes {SCHEMA_VERSION}, which do not "
                "load together: choose another output, or remove it."
            )
        return


def _run(
    importer: Importer, shards: Sequence[_Shard], num_proc: int, strict: bool
) -> Iterator[tuple[_Shard, ImportReport]]:
    if num_proc <= 1 or len(shards) <= 1:
        for shard in shards:
            yield shard, _import_shard(importer, shard, strict)
        return
    # Fork would inherit the locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(num_proc, len(shards)), context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        futures = {pool.submit(_import_shard, importer, shard, strict): shard for shard in shards}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "A process of the import was killed (out of memory?). Finished shards are kept: start the same command "
                "again, with fewer processes."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _import_shard(importer: Importer, shard: _Shard, strict: bool) -> ImportReport:
    shard.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = shard.path.with_name(f".{shard.path.name}.tmp")
    report = ImportReport(importer.name)
    try:
        with temporary.open("wb") as file:
            report = _write_clips(importer, shard, strict, file)
            file.flush()
            os.fsync(file.fileno())
        if report.clips:
            temporary.replace(shard.path)
    finally:
        temporary.unlink(missing_ok=True)
    shard.marker.parent.mkdir(parents=True, exist_ok=True)
    write_text(shard.marker, json.dumps(asdict(report) | {"fingerprint": shard.fingerprint}))
    return report


def _write_clips(importer: Importer, shard: _Shard, strict: bool, file: Any) -> ImportReport:
    clips, frames, hours = 0, 0, 0.0
    dropped: list[Dropped] = []
    doubtful: list[Doubtful] = []
    pending: list[dict] = []
    with pq.ParquetWriter(file, ARROW_SCHEMA, compression="zstd") as writer:
        for job in shard.jobs:
            for row in _rows(importer, job, strict, dropped, doubtful):
                pending.append(row)
                clips, frames = clips + 1, frames + row["num_frames"]
                hours += row["num_frames"] / row["fps"] / 3600
                if sum(row["num_frames"] for row in pending) >= _FRAMES_PER_ROW_GROUP:
                    writer.write_table(rows_to_table(pending))
                    pending.clear()
        if pending:
            writer.write_table(rows_to_table(pending))
    return ImportReport(importer.name, clips, frames, hours, dropped, doubtful)


def _rows(
    importer: Importer, job: Job, strict: bool, dropped: list[Dropped], doubtful: list[Doubtful]
) -> Iterator[dict]:
    """Rows of one file; what fails is added to ``dropped``, what is kept but implausible to ``doubtful``."""

    def drop(error: Exception, name: str) -> None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _DISK_FULL):
            raise error
        broken = not isinstance(error, ClipError)
        named = isinstance(error, ValueError | OSError)
        reason = str(error) if named and str(error) else f"{type(error).__name__}: {error}"
        if broken and strict:
            raise ValueError(f"{job.path}: {reason} (strict: stopped here; finished shards are kept)") from error
        dropped.append(Dropped(name, str(job.path), reason, broken))

    # A reader of somebody else's format may raise anything on a corrupt file; one file must not end a long import.
    try:
        clips = importer.convert(job)
    except Exception as error:
        drop(error, job.id)
        return
    for clip in clips:
        try:
            clip = replace(clip, split=job.split)
            if isinstance(clip, HeadClip):
                row, found = clip.to_row(), head_doubts(clip.trajectory)
            else:
                check_clip(clip)
                row, found = clip_to_row(clip), doubts(clip.motion)
            sentences = [_with_remedy(doubt, importer) for doubt in found]
            if any(doubt.refused for doubt in found):
                raise ValueError("; ".join(sentences))
        except Exception as error:
            drop(error, clip.id)
        else:
            doubtful += [Doubtful(clip.id, str(job.path), sentence) for sentence in sentences]
            yield row


def _with_remedy(doubt: Doubt, importer: Importer) -> str:
    """The sentence, and the options of the importer's command that may be at fault: they are its fields."""
    own = {field.name for field in fields(importer)}
    options = [f"--{name.replace('_', '-')}" for name in doubt.options if name in own]
    return f"{doubt.sentence} (check {', '.join(options)})" if options else doubt.sentence
