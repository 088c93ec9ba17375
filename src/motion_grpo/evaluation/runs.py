"""A whole evaluation: a system and baselines on the clips of some splits, resumable, shared by any number of processes.

The output folder holds ``results.json`` and ``results.md`` (means, intervals, by source and by content),
``clips.jsonl`` (clips and samples), ``settings.json`` (what the numbers depend on, written once) and ``sessions.jsonl``
(when the command was run, and by which code).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console
from rich.progress import track

from motion_grpo.body import Skeleton
from motion_grpo.data import Clip, is_mocap_pack, load_motions
from motion_grpo.evaluation.baselines import NearestNeighbour, ground_truth, mean_pose, smoothed, upright
from motion_grpo.evaluation.clips import ClipScores, System, clip_name, evaluate_clip, read_clips, windows_of
from motion_grpo.evaluation.report import markdown
from motion_grpo.evaluation.summary import Key, key_of, summarize_split
from motion_grpo.files import write_text
from motion_grpo.motion import Motion
from motion_grpo.provenance import code_version

BASELINES = ("mean_pose", "nearest", "upright", "smoothed", "ground_truth")
"""Names of the systems that any other is compared with."""
FROM_TRAIN = {"mean_pose", "nearest"}
"""Those that are made from the split ``train``."""


@dataclass(frozen=True)
class EvaluationSet:
    """Recordings to score against."""

    dataset: str
    """Folder or Hub id, as for :func:`~motion_grpo.data.load_clips`."""
    clips: dict[str, list[Clip]]
    """By split, what is scored one by one: whole clips, or windows of them."""
    whole: dict[str, list[Clip]]
    """The clips themselves."""
    skeleton: Skeleton | None = None
    """Body that predictions refer to; the default body when None."""
    limit: int | None = None
    """Only so many clips a split, evenly spread."""
    window: int | None = None
    """Frames of a window; None for whole clips."""

    @classmethod
    def read(
        cls,
        dataset: str,
        splits: Sequence[str],
        skeleton: Skeleton | None = None,
        limit: int | None = None,
        window: int | None = None,
    ) -> "EvaluationSet":
        """The splits of a data set.

        Raises:
            FileNotFoundError, OSError, ValueError: as :func:`~motion_grpo.evaluation.read_clips`, and where no clip of
                a split is as long as a window.
        """
        whole = {split: read_clips(dataset, split, skeleton, limit) for split in splits}
        clips = whole
        if window is not None:
            clips = {split: _cut(split, members, window) for split, members in whole.items()}
        return cls(dataset, clips, whole, skeleton, limit, window)

    def __iter__(self):
        """Every clip or window, with the name of its split."""
        return ((split, clip) for split, members in self.clips.items() for clip in members)

    @property
    def all_clips(self) -> list[Clip]:
        """Clips or windows of all splits."""
        return list(chain.from_iterable(self.clips.values()))


def check_baselines(names: Sequence[str], dataset: str) -> None:
    """Refuses baselines that there are not, or that the data set gives nothing to make from.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError, ValueError: no split ``train`` for those that need it.
    """
    if unknown := set(names) - set(BASELINES):
        raise ValueError(f"--baselines names {', '.join(sorted(unknown))}; there are {', '.join(BASELINES)}.")
    if not FROM_TRAIN & set(names):
        return
    if not is_mocap_pack(dataset):
        load_motions(dataset, "train")
    elif not any(Path(dataset).glob("*_train.parquet")):
        raise FileNotFoundError(f"{dataset} holds no *_train.parquet, which mean_pose and nearest are made from.")


@dataclass(frozen=True)
class EvaluationRun:
    """One evaluation and its folder."""

    output: Path
    """Folder of the results; a run that is there already is resumed."""
    recordings: EvaluationSet
    system: System
    """What is evaluated."""
    name: str
    """Its name in the results."""
    baselines: tuple[str, ...] = ()
    """What it is compared with."""
    motion_folders: tuple[Path, ...] = ()
    """Folders for the system's motions, one a sample: they are saved there as ``SOURCE/CLIP.npz``."""

    def run(self, settings: dict[str, Any], state: PartialState) -> dict[str, Any] | None:
        """Scores what is not on record yet, shared among all processes, and writes the results.

        Args:
            settings: what the numbers depend on (:func:`~motion_grpo.evaluation.settings.settings_of`); a folder of
                other settings is refused.
            state: of the processes; each has to call this.

        Returns:
            What ``results.json`` holds, in the main process; None in the others.

        Raises:
            ValueError: a folder of other settings, or a line in it that is no result; ids of clips that would be saved
                to one file, or outside of the folder.
        """
        if state.is_main_process:
            self._prepare(settings, state.num_processes)
        state.wait_for_everyone()
        todo = self._todo()
        state.wait_for_everyone()  # All have to see the same, before anybody writes.
        with state.split_between_processes(todo) as share:
            self._score(share, state)
        state.wait_for_everyone()
        results = self._finish(settings) if state.is_main_process else None
        state.wait_for_everyone()
        return results

    @property
    def order(self) -> list[str]:
        """Names of all systems, as the results show them."""
        return [self.name, *self.baselines]

    def _prepare(self, settings: dict[str, Any], processes: int) -> None:
        """Refuses a folder of other settings, and cuts off lines that an interrupted run has left unfinished.

        Settings are written once, when a run starts, with the code that it started with; every session adds a line.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        path, code = self.output / "settings.json", code_version()
        if path.exists():
            there = json.loads(path.read_text())
            there.pop("code", None)  # a later session may be of other code, which its line says
            differing = [key for key in {**there, **settings} if there.get(key) != settings.get(key)]
            if differing:
                changes = "; ".join(f"{key} {there.get(key)} there, {settings.get(key)} now" for key in differing)
                raise ValueError(f"{self.output} holds results of other settings ({changes}); choose another --output.")
        else:
            write_text(path, json.dumps(settings | {"code": code}, indent=1) + "\n")
        session = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "code": code, "num_processes": processes}
        sessions = self.output / "sessions.jsonl"
        before = sessions.read_text() if sessions.exists() else ""
        write_text(sessions, before + json.dumps(session) + "\n")
        for shard in self.output.glob("clips*.jsonl"):
            text = shard.read_text()
            if text and not text.endswith("\n"):
                write_text(shard, text[: text.rfind("\n") + 1])

    def _todo(self) -> list[tuple[str, Clip, list[str]]]:
        """Split, clip, and the systems that have no scores there yet, or no saved motions."""
        records = _read_records(self.output)
        if self.motion_folders:
            _check_names(self.recordings.all_clips)

        def missing(split: str, clip: Clip, system: str) -> bool:
            unsaved = system == self.name and not all(path.exists() for path in self._files(clip))
            return unsaved or key_of(split, system, clip) not in records

        listed = ((split, clip, [n for n in self.order if missing(split, clip, n)]) for split, clip in self.recordings)
        return [row for row in listed if row[2]]

    def _score(self, share: Iterable[Any], state: PartialState) -> None:
        """Scores a process's share of :meth:`_todo`, line by line into a shard of its own."""
        systems = self._systems({name for *_, missing in share for name in missing})
        shard = self.output / f"clips.{state.process_index:03d}.jsonl"
        progress = track(share, "clips", console=Console(stderr=True), disable=not state.is_main_process)
        for split, clip, missing in progress:
            for name in missing:
                scores = evaluate_clip(systems[name], clip)
                if name == self.name:
                    _save(systems[name](clip), self._files(clip))
                with shard.open("a") as file:
                    file.write(_line(split, name, scores))

    def _systems(self, needed: set[str]) -> dict[str, System]:
        # What the latest clip gave is kept: it is scored, smoothed and saved.
        latest = lru_cache(maxsize=1)(self.system)
        systems: dict[str, System] = {self.name: latest, "upright": upright, "ground_truth": ground_truth}
        systems["smoothed"] = smoothed(latest)
        if FROM_TRAIN & needed:
            train = read_clips(self.recordings.dataset, "train", self.recordings.skeleton)
            systems["mean_pose"] = mean_pose(train)
            if "nearest" in needed:
                systems["nearest"] = NearestNeighbour(train)
        return systems

    def _finish(self, settings: dict[str, Any]) -> dict[str, Any]:
        records = _merge(self.output)
        splits = {
            split: summarize_split(split, members, self.recordings.whole[split], self.order, records)
            for split, members in self.recordings.clips.items()
        }
        results = {
            "settings": settings, "code": _codes(self.output), "limit": self.recordings.limit, "splits": splits
        }  # fmt: skip
        write_text(self.output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        write_text(self.output / "results.md", markdown(results))
        return results

    def _files(self, clip: Clip) -> list[Path]:
        return [folder / f"{clip_name(clip)}.npz" for folder in self.motion_folders]


def _cut(split: str, clips: list[Clip], window: int) -> list[Clip]:
    windows: list[Clip] = [part for clip in clips for part in windows_of(clip, window)]
    if not windows:
        longest = max(len(clip.motion) for clip in clips)
        raise ValueError(
            f"--window is {window} frames, and no clip of the split {split} has so many (the longest has "
            f"{longest}); choose a shorter window, or leave it out to evaluate whole clips."
        )
    return windows


def _check_names(clips: Iterable[Clip]) -> None:
    """Refuses an id that leads out of the folder of motions, and two clips of one file."""
    names: set[str] = set()
    for clip in clips:
        name = clip_name(clip)
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"Clip {clip.id} of {clip.source} would be saved outside of --save-motions; rename it.")
        if name in names:
            raise ValueError(f"Two clips would be saved as {name}.npz; evaluate their splits one by one.")
        names.add(name)


def _save(motions: list[Motion], paths: list[Path]) -> None:
    for motion, path in zip(motions, paths, strict=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        motion.save(path)


def _line(split: str, system: str, scores: ClipScores) -> str:
    return json.dumps({"split": split, "system": system, **asdict(scores)}) + "\n"


def _read_records(output: Path) -> dict[Key, ClipScores]:
    records = {}
    for shard in sorted(output.glob("clips*.jsonl")):
        for number, line in enumerate(shard.read_text().splitlines(), 1):
            try:
                row = json.loads(line)
                key = row.pop("split"), row.pop("system"), row["source"], row["clip"]
                records[key] = ClipScores(**row)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{shard}, line {number}, is no result of this command; delete the line.") from error
    return records


def _merge(output: Path) -> dict[Key, ClipScores]:
    """Puts what all processes and earlier runs have recorded into one file, sorted."""
    records = dict(sorted(_read_records(output).items()))
    lines = [_line(split, system, row) for (split, system, *_), row in records.items()]
    write_text(output / "clips.jsonl", "".join(lines))
    for shard in output.glob("clips.*.jsonl"):
        shard.unlink()
    return records


def _codes(output: Path) -> list[dict[str, str]]:
    """The code of all sessions, each once."""
    codes = [json.loads(line)["code"] for line in (output / "sessions.jsonl").read_text().splitlines()]
    return [code for number, code in enumerate(codes) if code not in codes[:number]]
