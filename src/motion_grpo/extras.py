"""Extras: what only some need is installed by name, and who lacks it is told the name."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports that need the extra of this name.

    Raises:
        ModuleNotFoundError: something is not installed; the message says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "motion_grpo"):
            raise
        message = f'{missing} is not installed; it belongs to the extra {name!r}: pip install "motion-grpo[{name}]".'
        raise ModuleNotFoundError(message, name=error.name, path=error.path) from error
