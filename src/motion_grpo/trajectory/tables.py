"""Reading columns of large CSV files, plain or gzipped, with errors that name the line."""

import gzip
import os
from pathlib import Path

import pyarrow as pa
from pyarrow import csv


def read_header(path: Path) -> str:
    """The first line with text in it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty or undecodable file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for line in file:
                if line.strip():
                    return line.strip()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text: {error}.") from error
    raise ValueError(f"{path} is empty.")


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
            path,
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
