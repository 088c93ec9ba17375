"""Finding source files, and writing files so that nobody ever sees half of one."""

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NPZ_ERRORS = (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for an npz that is damaged, holds objects, or is another file."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it takes the place of ``path`` unless the block fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text as a whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text)


def write_between(path: Path, start: str, text: str, end: str) -> None:
    """Puts a text between two marks in a document, in place of what stands there.

    Raises:
        ValueError: the marks are not there, or more than once.
    """
    document = path.read_text()
    if document.count(start) != 1 or document.count(end) != 1:
        raise ValueError(f"{path} has no lines {start} and {end}, once each, for the results to stand between.")
    before, rest = document.split(start)
    write_text(path, f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}")


def source_files(root: Path, pattern: str = "*") -> list[Path]:
    """What is below a folder, by path, without hidden files: macOS puts ``._NAME`` and ``__MACOSX`` into archives.

    Raises:
        FileNotFoundError: no such folder.
    """
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root} is {'a file' if Path(root).exists() else 'not there'}; give a folder.")
    return sorted(p for p in Path(root).rglob(pattern) if not any(map(is_hidden, p.relative_to(root).parts)))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a data set."""
    return name.startswith(".") or name == "__MACOSX"
