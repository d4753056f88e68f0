"""The rows of a source: checked once, then read by number. Memory holds 49 bytes a row."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mllmtool.context import Context
from mllmtool.data.arrow import in_columns
from mllmtool.data.checks import ROW, Checks, Fields
from mllmtool.data.files import sha256_of, stamp
from mllmtool.data.parallel import Workers
from mllmtool.data.splitting import Layout, Span, position, ranges, rows_in
from mllmtool.errors import DataError


class Part(NamedTuple):
    """A file of a source: as it was given, its rows' layout, and its state when it was opened."""

    path: Path
    layout: Layout
    stamp: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Rows:
    """The rows of all files of a source, of which file `i` holds those from `starts[i]` on."""

    parts: Sequence[Part]
    starts: Sequence[int]
    fields: Fields
    sha256: Sequence[str]

    def __len__(self) -> int:
        return len(self.fields)

    def where(self, index: int) -> str:
        """`file:line` of a row."""
        number = self._number(index)
        begin = int(self.fields["begin"][index])
        return row_place(self.parts[number], begin, index - self.starts[number])

    def part_of(self, index: int) -> Part:
        """The file that a row is in."""
        return self.parts[self._number(index)]

    def _number(self, index: int) -> int:
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def check_unchanged(self) -> None:
        """Refuse files that have changed since they were opened.

        Raises:
            DataError: size or time of change is another.
        """
        for part in self.parts:
            if stamp(part.path) != part.stamp:
                raise DataError(f"{part.path}: changed while it was read; run again")


class Task(NamedTuple):
    """A range of a file of a source."""

    source: str
    part: int
    span: Span


class Found(NamedTuple):
    """The rows of a range, the first invalid one as (number, reason), and what ended the range."""

    start: int | None
    next: int | None
    fields: Fields
    problem: tuple[int, str] | None
    broken: DataError | None


Opened = Mapping[str, tuple[Sequence[Part], Checks]]


def scan(opened: Opened, workers: int, drop: bool, context: Context) -> dict[str, Rows]:
    """Read and check all files of all sources; invalid rows are an error unless they are dropped.

    Raises:
        DataError: `file:line` and what is wrong there, or a source is empty.
    """
    tasks = [
        Task(name, number, span)
        for name, (parts, _) in opened.items()
        for number, part in enumerate(parts)
        for span in ranges(part.layout)
    ]
    found: dict[str, list[list[Fields]]] = {
        name: [[] for _ in parts] for name, (parts, _) in opened.items()
    }
    with ThreadPoolExecutor(1) as thread, Workers(workers, opened) as pool:
        hashes = {
            name: [thread.submit(sha256_of, part.path) for part in parts]
            for name, (parts, _) in opened.items()
        }
        results = context.track(pool.map(scan_range, tasks), "reading", len(tasks))
        for task, piece in _joined(opened, tasks, results):
            pieces = found[task.source][task.part]
            if piece.problem and not drop:
                part, (number, reason) = opened[task.source][0][task.part], piece.problem
                begin = int(piece.fields["begin"][number])
                raise DataError(
                    f"{row_place(part, begin, number + sum(map(len, pieces)))}: {reason}"
                )
            pieces.append(piece.fields)
        sums = {name: [each.result() for each in digests] for name, digests in hashes.items()}
    return {name: _together(opened[name][0], found[name], sums[name]) for name in opened}


def scan_range(opened: Opened, task: Task) -> Found:
    """Check the rows that start in a range."""
    parts, checks = opened[task.source]
    shape = parts[task.part].layout
    found, problem, broken, count = [np.empty(0, ROW)], None, None, 0
    with shape.path.open("rb") as file:
        rows = rows_in(file.fileno(), shape, task.span, checks.parse)
        try:
            for batch in rows.batches(checks.parse_many):
                fields, problems = checks.rows(batch)
                if problems and not problem:
                    problem = count + problems[0][0], problems[0][1]
                found.append(fields)
                count += len(fields)
        except DataError as error:
            broken = error
    return Found(rows.start, rows.next, np.concatenate(found), problem, broken)


def _joined(
    opened: Opened, tasks: Sequence[Task], results: Iterator[Found]
) -> Iterator[tuple[Task, Found]]:
    """The ranges that rows start in, each from where the one before has ended."""
    due, before = 0, ("", -1)
    for task, result in zip(tasks, results, strict=True):
        layout = opened[task.source][0][task.part].layout
        if before != (task.source, task.part):
            due, before = layout.first, (task.source, task.part)
        end = task.span.end
        if due >= end:
            continue
        found = result
        if result.start != due:
            found = scan_range(opened, task._replace(span=Span(due, end, exact=True)))
        if found.broken:
            raise found.broken
        due = found.next if found.next is not None else end
        yield task, found


def row_place(part: Part, begin: int, number: int) -> str:
    """`file:line` of a row of a file; where lines say little, with its number."""
    if in_columns(part.path):
        return f"{part.path} (row {number})"
    place = position(part.layout, begin)
    return f"{place} (row {number})" if part.layout.is_array else place


def _together(
    parts: Sequence[Part], found: Sequence[Sequence[Fields]], sums: Sequence[str]
) -> Rows:
    counts = [sum(map(len, pieces)) for pieces in found]
    for part, count in zip(parts, counts, strict=True):
        if not count:
            raise DataError(f"{part.path}: holds no samples")
    starts = [sum(counts[:number]) for number in range(len(counts))]
    fields = np.concatenate([piece for pieces in found for piece in pieces])
    return Rows(parts, starts, fields, sums)
