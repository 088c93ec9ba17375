"""Which files are which split: the `configs` of a data set card."""

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import metadata_load

from motion_grpo.files import write_text

CONFIG = "default"
"""The one configuration of a data set."""
_SPLIT_ORDER = {name: place for place, name in enumerate(("train", "val", "validation", "test"))}


def name_splits(folder: str | Path) -> None:
    """Makes the front matter of ``folder/README.md`` say which files are which split; leaves the rest as it is."""
    path = Path(folder) / "README.md"
    metadata = (metadata_load(path) if path.is_file() else None) or {}
    text = path.read_text() if path.is_file() else ""
    body = text.split("\n---\n", 1)[1] if text.startswith("---\n") and "\n---\n" in text else text
    metadata["configs"] = split_configs(Path(folder))
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    write_text(path, f"---\n{front}---\n{body}")


def split_configs(folder: Path) -> list[dict[str, Any]]:
    """The card's ``configs``: ``SPLIT/*.parquet`` of every split in the folder.

    Raises:
        FileNotFoundError: there is none.
    """
    splits = sorted({path.parent.name for path in folder.glob("*/*.parquet")}, key=lambda name: by_split((name,)))
    if not splits:
        raise FileNotFoundError(f"{folder} holds no SPLIT/*.parquet: nothing was imported into it.")
    files = [{"split": split, "path": f"{split}/*.parquet"} for split in splits]
    return [{"config_name": CONFIG, "data_files": files}]


def by_split(named: tuple) -> tuple[int, str]:
    """Sorting key of ``(split, ...)``: train, val, test, then the others by name."""
    return _SPLIT_ORDER.get(named[0], len(_SPLIT_ORDER)), named[0]
