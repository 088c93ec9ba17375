"""The README.md of a data set: which files are which split, what the columns hold, whose recordings they are."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from motion_grpo.cards.results import task_id
from motion_grpo.cards.templates import SourceFacts, dataset_card
from motion_grpo.data.schema import COLUMN_NOTES, FEATURES, SCHEMA_VERSION
from motion_grpo.data.splits import CONFIG, by_split, split_configs
from motion_grpo.files import write_text
from motion_grpo.metrics import METRIC_UNITS

TASKS_FILE = "eval.yaml"
_FACTS = ["source", "split", "skeleton", "fps", "num_frames"]


def write_dataset_card(
    folder: str | Path,
    *,
    title: str,
    license: str,
    summary: str,
    sources: Sequence[SourceFacts],
    repo_id: str | None = None,
    tags: Sequence[str] = (),
) -> Path:
    """Writes the README.md of a folder of Parquet files, and ``eval.yaml``: the tasks that its test splits set.

    A model's results on the Hub (``.eval_results/``) name these tasks. Recordings of heads alone set none.

    Args:
        folder: what an import wrote, ``SPLIT/*.parquet``.
        title: of the data set.
        license: of the whole, as an identifier of the Hub (``cc-by-nc-4.0``, ``other``).
        summary: one paragraph.
        sources: one entry for every value of the column ``source``.
        repo_id: where it will be on the Hub; the folder's path when None.
        tags: beside the usual ones.

    Raises:
        FileNotFoundError: no Parquet files there.
        ValueError: a source in the data is not described, or a fact is empty.
    """
    folder = Path(folder)
    facts = _read_facts(folder)
    known = {source.name: source for source in sources}
    unknown = sorted(set(facts["source"]) - known.keys())
    if unknown:
        raise ValueError(f"{folder} has clips of {', '.join(unknown)}, which no entry of sources describes.")
    given = {"title": title, "license": license, "summary": summary}
    given |= {f"{source.name}'s {key}": value for source in sources for key, value in asdict(source).items()}
    empty = sorted(key for key, value in given.items() if not value.strip())
    if empty:
        raise ValueError(f"The card of {folder} needs {', '.join(empty)}.")
    metadata = {
        "license": license,
        "pretty_name": title,
        "tags": ["motion", "egocentric", "smpl-h", "human-pose", "motion-grpo", *tags],
        "task_categories": ["other"],
        "size_categories": [size_category(len(facts))],
        "motion_grpo_schema": SCHEMA_VERSION,
        "configs": split_configs(folder),
    }
    stated = {
        "title": title,
        "summary": summary,
        "clips": len(facts),
        "hours": _hours(facts),
        "schema_version": SCHEMA_VERSION,
        "repo_id": repo_id or str(folder),
        "splits": [{"name": name} | _count(part) for name, part in sorted(facts.groupby("split"), key=by_split)],
        "sources": [asdict(known[str(name)]) | _count(part) for name, part in facts.groupby("source")],
        "heads_only": not any(facts["skeleton"]),
        "skeletons": sorted(set(facts["skeleton"]) - {""}) or ["none, heads only"],
        "rates": [f"{rate:g}" for rate in sorted(facts["fps"].unique())],
        "columns": [{"name": n, "type": _type(feature), "note": COLUMN_NOTES[n]} for n, feature in FEATURES.items()],
    }
    path = folder / "README.md"
    write_text(path, str(dataset_card(metadata, stated)))
    _write_tasks(folder, stated)
    return path


def _write_tasks(folder: Path, stated: dict[str, Any]) -> None:
    path = folder / TASKS_FILE
    splits = [split["name"] for split in stated["splits"] if split["name"] != "train"]
    if stated["heads_only"] or not splits:
        path.unlink(missing_ok=True)
        return
    tasks = [
        {"id": task_id(split, metric), "config": CONFIG, "split": split} for split in splits for metric in METRIC_UNITS
    ]
    described = f"{stated['summary']} Full-body motion is recovered from the head's trajectory and compared with it."
    content = {"name": stated["title"], "description": described, "evaluation_framework": "motion-grpo", "tasks": tasks}
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=118))


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows."""
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    below = next((place for place, power in enumerate(range(3, 10)) if rows < 10**power), len(bounds))
    if below == 0:
        return "n<1K"
    return f"{bounds[below - 1]}<n<{bounds[below]}" if below < len(bounds) else "n>1B"


def _read_facts(folder: Path) -> pd.DataFrame:
    shards = [path for config in split_configs(folder)[0]["data_files"] for path in sorted(folder.glob(config["path"]))]
    facts = pa.concat_tables(pq.read_table(path, columns=_FACTS) for path in shards).to_pandas()
    return facts.assign(hours=facts["num_frames"] / facts["fps"] / 3600)


def _hours(clips: pd.DataFrame) -> float:
    return float(clips["hours"].to_numpy().sum())


def _count(clips: pd.DataFrame) -> dict[str, Any]:
    return {"clips": len(clips), "frames": int(clips["num_frames"].to_numpy().sum()), "hours": _hours(clips)}


def _type(feature: Any) -> str:
    shape = getattr(feature, "shape", None)
    if shape is not None:
        return f"{feature.dtype} ({', '.join('T' if n is None else str(n) for n in shape)})"
    return f"{feature.feature.dtype} ({feature.length},)" if hasattr(feature, "feature") else feature.dtype
