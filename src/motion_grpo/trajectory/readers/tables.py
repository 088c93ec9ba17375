"""Reading columns of large text files, plain or gzipped, with errors that name the line."""

import csv as rows_of_csv
import gzip
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float64
from pyarrow import csv

_NAME_AND_UNIT = re.compile(r"[^\s\[(]+(?:\s*\[[^\]]*\]|\s*\([^)]*\))?")
_COMMENTS = ("#", "%", "//")
_MISSING = {"", "nan", "na", "n/a", "null", "none"}


def read_header(path: Path) -> str:
    """The first line with text in it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty or undecodable file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with (gzip.open if _is_gzipped(path) else open)(path, "rt", encoding="utf-8-sig") as file:
            for line in file:
                if line.strip():
                    return line.strip()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text: {error}.") from error
    raise ValueError(f"{path} is empty.")


def _is_gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def column_names(header: str) -> list[str]:
    """The names in a CSV's header line, without quotes and surrounding blanks."""
    return [name.strip().strip('"') for name in header.split(",")]


def require_columns(path: str | os.PathLike[str], present: list[str], required: list[str], kind: str) -> None:
    """Raises ValueError naming the columns that are missing."""
    missing = [name for name in required if name not in present]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)} that {kind} has; it has {', '.join(present)}.")


def read_table(path: Path, columns: dict[str, pa.DataType], kind: str) -> pa.Table:
    """Reads the named columns of a CSV or CSV.GZ; missing numbers become NaN.

    Raises:
        ValueError: missing columns, a row with too few or too many fields (a truncated file), or text where numbers
            belong.
    """
    header = read_header(path)
    names = column_names(header)
    require_columns(path, names, list(columns), kind)
    broken: list[csv.InvalidRow] = []

    def refuse(row: csv.InvalidRow) -> str:
        broken.append(row)
        return "error"

    try:
        table = csv.read_csv(
            # By the content: browsers unpack a .csv.gz and keep its name.
            pa.input_stream(str(path), compression="gzip" if _is_gzipped(path) else None),
            # One thread: only then are rows numbered. Names are given because a header may be quoted or padded.
            read_options=csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1, block_size=1 << 24),
            parse_options=csv.ParseOptions(invalid_row_handler=refuse),
            convert_options=csv.ConvertOptions(include_columns=list(columns), column_types=columns),
        )
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        if broken:
            row = broken[0]
            raise ValueError(
                f"Line {row.number} of {path} has {row.actual_columns} fields where the header has "
                f"{row.expected_columns}: the file is cut off or damaged there. Copy it again, or delete that line."
            ) from error
        raise ValueError(f"{path} cannot be read as {kind}: {error}.") from error
    if table.num_rows == 0:
        raise ValueError(f"{path} has a header but no rows.")
    return table


@dataclass(frozen=True)
class TextTable:
    """Rows of numbers and words as people write them: any of the usual separators, comments, names in a header or not.

    Separators are commas, semicolons, tabs or blanks; numbers may have decimal commas where commas do not separate.
    Empty lines and lines that begin with #, % or // are no rows. Both plain and gzipped files, UTF-8 or UTF-16, with
    or without a byte order mark, with line ends of any system.
    """

    path: Path
    header: list[str] | None
    """Names of the columns, of a file whose first line is no comment and holds no number."""
    comments: list[str]
    """Lines before the first row, without their mark: one of them may name the columns."""
    rows: list[str]
    lines: Sequence[int]
    """The line of each row, from 1."""
    separator: str | None
    """None is blanks."""

    def fields(self, row: int) -> list[str]:
        """What stands between the separators."""
        return _fields(self.rows[row], self.separator)

    @cached_property
    def width(self) -> int:
        """Fields of the first row."""
        return len(self.fields(0))

    def numbers(self, columns: Sequence[int], names: Sequence[str]) -> Float64[np.ndarray, "rows columns"]:
        """Columns as numbers; what is missing becomes NaN.

        Raises:
            ValueError: a row with too few or too many fields (a damaged file), or words where numbers belong.
        """
        text = "\n".join(self.rows if self.separator else (",".join(row.split()) for row in self.rows))
        decimal_comma = self.separator in (";", "\t") and any("," in self.fields(0)[i] for i in columns)
        wanted = [str(i) for i in dict.fromkeys(columns)]
        try:
            table = csv.read_csv(
                pa.BufferReader(text.encode()),
                read_options=csv.ReadOptions(column_names=[str(i) for i in range(len(names))], block_size=1 << 24),
                parse_options=csv.ParseOptions(delimiter=self.separator or ","),
                convert_options=csv.ConvertOptions(
                    include_columns=wanted,
                    column_types=dict.fromkeys(wanted, pa.float64()),
                    decimal_point="," if decimal_comma else ".",
                ),
            )
        except pa.ArrowInvalid as error:
            raise ValueError(self._first_fault(columns, names, decimal_comma) or f"{self.path}: {error}.") from error
        return np.stack([table[str(i)].to_numpy() for i in columns], axis=1)

    def _first_fault(self, columns: Sequence[int], names: Sequence[str], decimal_comma: bool) -> str:
        for row, line in enumerate(self.lines):
            fields = self.fields(row)
            if len(fields) != len(names):
                return (
                    f"Line {line} of {self.path} has {len(fields)} fields where {len(names)} columns are named: the "
                    "file is cut off or damaged there. Copy it again, or delete that line."
                )
            for column in sorted(columns):
                value = fields[column].replace(",", ".") if decimal_comma else fields[column]
                if value.lower() not in _MISSING and not is_number(value):
                    return (
                        f"Line {line} of {self.path} has {value!r} where a number belongs (column {names[column]}): "
                        "write one, or delete that line. Times are numbers too, no dates."
                    )
        return ""


def read_text_table(path: Path) -> TextTable:
    """Reads the rows of a text file, and what stands before them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty or undecodable file.
    """
    comments: list[str] = []
    rows: list[str] = []
    lines: list[int] = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        # Tabs at the end are empty fields, so they stay.
        row = line.strip(" \r\f\0")
        if not row.strip():
            continue
        if row.lstrip().startswith(_COMMENTS):
            if not rows:
                comments.append(row.strip().lstrip("#%/").strip())
            continue
        rows.append(row)
        lines.append(number)
    if not rows and not comments:
        raise ValueError(f"{path} is empty.")
    header = None
    separator = _separator(rows[0]) if rows else None
    if rows and not any(is_number(field) for field in _fields(rows[0], separator)):
        header = split_names(rows[0])
        rows, lines = rows[1:], lines[1:]
        separator = _separator(rows[0]) if rows else separator
    if separator is None:
        rows = [row.partition("#")[0] for row in rows]
    return TextTable(path, header, comments, rows, lines, separator)


def split_names(line: str) -> list[str]:
    """The names in a header, which need not be separated like the rows; units in brackets stay with their name."""
    separator = _separator(line)
    return _NAME_AND_UNIT.findall(line) if separator is None else _fields(line, separator)


def is_number(word: str) -> bool:
    """Whether this reads as a number, with a decimal point or comma."""
    try:
        float(word.replace(",", "."))
    except ValueError:
        return False
    return True


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as text: {error}.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _separator(line: str) -> str | None:
    return next((mark for mark in (";", "\t", ",") if mark in line), None)


def _fields(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    if '"' in line:
        return [field.strip() for field in next(rows_of_csv.reader([line], delimiter=separator, skipinitialspace=True))]
    return [field.strip() for field in line.split(separator)]
