"""What a study keeps: one file of JSON lines, a line for each finished run, in the order of their names."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motion_grpo.files import write_text

KEY = ("base", "row", "seed")
"""What tells one record of a study from the others."""
FIXED = ("facts", "run")
"""What a finished run was is never written again."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a study; none where the file is not there yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def keep_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a record, or brings that of the same run up to date.

    Raises:
        ValueError: another run is kept there.
    """
    records = {_key(one): one for one in read_records(path)}
    kept = records.get(_key(record), record)
    if any(kept.get(name) != record.get(name) for name in FIXED):
        names = " ".join(map(str, _key(record)))
        raise ValueError(f"{path} holds another run of {names}; what is kept stays as it was: use another seed.")
    write_records(path, [*(records | {_key(record): record}).values()])


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Writes the records of a study, sorted."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in sorted(records, key=_key)))


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in KEY)
