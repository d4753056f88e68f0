"""Tables of any kind as rows: JSONL, CSV, TSV, Parquet, or a folder that `datasets` saved."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mllmtool.data.arrow import Arrow, in_columns, is_arrow_folder
from mllmtool.data.samples import read_jsonl
from mllmtool.errors import DataError

Rows = Iterator[tuple[str, dict[str, Any]]]
DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Table:
    """Columns, and `read`, which gives rows of some of them, each with where it is.

    `columns` is None where each row may have its own. `class_names` has the names of the columns
    of class numbers.
    """

    path: Path
    columns: tuple[str, ...] | None
    read: Callable[[Sequence[str]], Rows]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)


def is_table(path: Path) -> bool:
    """Whether it is read as a table: not a folder, or one of Arrow or Parquet files."""
    return not path.is_dir() or is_arrow_folder(path)


def open_table(path: Path) -> Table:
    """Open a table; its rows are read later.

    Raises:
        DataError: it cannot be read, or two columns have one name.
    """
    suffix = path.suffix.lower()
    if in_columns(path):
        arrow = Arrow.open(path)
        return Table(path, arrow.columns, arrow.rows, arrow.class_names)
    if suffix in DELIMITERS:
        columns = _header(path, DELIMITERS[suffix])
        return Table(path, columns, lambda _: _csv_rows(path, DELIMITERS[suffix]))
    return Table(path, None, lambda _: _jsonl_rows(path))


def _jsonl_rows(path: Path) -> Rows:
    for line, values in read_jsonl(path):
        yield f"{path}:{line}", values


def _header(path: Path, delimiter: str) -> tuple[str, ...]:
    columns = tuple(next((cells for _, cells in _cells(path, delimiter)), ()))
    if not columns:
        raise DataError(f"{path}: has no line of column names")
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}:1: two columns are named {twice!r}")
    return columns


def _csv_rows(path: Path, delimiter: str) -> Rows:
    lines = _cells(path, delimiter)
    _, columns = next(lines)
    for line, cells in lines:
        if len(cells) != len(columns):
            raise DataError(f"{path}:{line}: has {len(cells)} cells for {len(columns)} columns")
        yield f"{path}:{line}", dict(zip(columns, cells, strict=True))


def _cells(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers, of a row's end, and cells; blank lines are skipped."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: is not CSV ({error})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
