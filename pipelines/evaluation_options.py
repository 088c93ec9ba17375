"""Options of the commands that evaluate: on which recordings."""

from typing import Annotated

import typer

Dataset = Annotated[str, typer.Option(help="Data set of `motion-grpo data` (folder or Hub id), or a pack.")]
Split = Annotated[str, typer.Option(help="One or more, with commas between.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many clips a split, evenly spread.")]


def listed(names: str, option: str) -> list[str]:
    """The names that an option gives with commas between.

    Raises:
        ValueError: an empty name, or one that stands twice.
    """
    found = [name.strip() for name in names.split(",")]
    if not all(found) or len(set(found)) != len(found):
        raise ValueError(f"{option} is {names!r}; give different names with commas between.")
    return found
