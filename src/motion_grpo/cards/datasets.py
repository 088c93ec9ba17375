"""The README.md of a data set: which files are which split, what the columns hold, whose recordings they are."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from motion_grpo.cards.templates import SourceFacts, dataset_card
from motion_grpo.data.schema import COLUMN_NOTES, FEATURES, SCHEMA_VERSION
from motion_grpo.data.splits import by_split, split_configs
from motion_grpo.files import write_text

_FACTS = ["source", "split", "skeleton", "fps", "num_frames"]


def write_dataset_card(
    folder: str | Path,
    *,
    title: str,
    licence: str,
    summary: str,
    sources: Sequence[SourceFacts],
    repo_id: str | None = None,
    tags: Sequence[str] = (),
) -> Path:
    """Fills hub_cards/dataset.md.jinja from the Parquet files of a folder and writes its README.md.

    Args:
        folder: what an import wrote, ``SPLIT/*.parquet``.
        title: of the data set.
        licence: of the whole, as an identifier of the Hub (``cc-by-nc-4.0``, ``other``).
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
    given = {"title": title, "licence": licence, "summary": summary}
    given |= {f"{source.name}'s {key}": value for source in sources for key, value in asdict(source).items()}
    empty = sorted(key for key, value in given.items() if not value.strip())
    if empty:
        raise ValueError(f"The card of {folder} needs {', '.join(empty)}.")
    metadata = {
        "license": licence,
        "pretty_name": title,
        "tags": ["motion", "egocentric", "smpl-h", "human-pose", "motion-grpo", *tags],
        "motion_grpo_schema": SCHEMA_VERSION,
        "configs": split_configs(folder),
    }
    stated = {
        "title": title,
        "summary": summary,
        "clips": len(facts),
        "hours": float(facts["hours"].sum()),
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
    return path


def _read_facts(folder: Path) -> pd.DataFrame:
    shards = [path for config in split_configs(folder)[0]["data_files"] for path in sorted(folder.glob(config["path"]))]
    facts = pa.concat_tables(pq.read_table(path, columns=_FACTS) for path in shards).to_pandas()
    return facts.assign(hours=facts["num_frames"] / facts["fps"] / 3600)


def _count(clips: pd.DataFrame) -> dict[str, Any]:
    return {"clips": len(clips), "frames": int(clips["num_frames"].sum()), "hours": float(clips["hours"].sum())}


def _type(feature: Any) -> str:
    shape = getattr(feature, "shape", None)
    if shape is not None:
        return f"{feature.dtype} ({', '.join('T' if n is None else str(n) for n in shape)})"
    return f"{feature.feature.dtype} ({feature.length},)" if hasattr(feature, "feature") else feature.dtype
