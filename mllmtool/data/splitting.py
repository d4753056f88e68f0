"""Plain files of rows, cut into ranges of bytes that are read apart from each other.

A file holds a JSON object a line, or one JSON array of objects. In an array the end of an element
is found by its neighbour: the bytes between the first two, such as `}, {"id"`, are searched for,
and what lies before them is an element if it is JSON by itself. Else the element is read to its end
the slow way. A range begins at the first row that seems to start in it; whoever puts ranges
together checks that it starts where the range before has ended, and reads it again where not.
"""

import json
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic_core import from_json

from mllmtool.errors import DataError

RANGE = 2 << 20  # bytes
BATCH = 128  # rows that are read at once; more would not stay in the cache
MAX_ROW = 32 << 20
NEAR = 1 << 16
WHITE = b" \t\r\n"


Text = tuple[int, bytes, Any]  # where a row begins, its bytes, and what they were parsed to
Parse = Callable[[bytes], Any]  # None for what is not JSON
ParseMany = Callable[[Sequence[bytes]], Sequence[Any] | None]  # None unless each is a row


class Batch(NamedTuple):
    """Texts in columns."""

    begins: Sequence[int]
    data: Sequence[bytes]
    values: Sequence[Any]


class Span(NamedTuple):
    """A range of bytes of a file; `exact`: a row starts at its begin."""

    begin: int
    end: int
    exact: bool = False


@dataclass(frozen=True)
class Layout:
    """Where the first row of a file begins; of an array, what lies between two elements."""

    path: Path
    name: str  # of the file in messages: what was unpacked is named by what it was
    size: int
    first: int
    between: bytes | None = None

    @property
    def is_array(self) -> bool:
        """Or JSON lines."""
        return self.between is not None


def layout(path: Path, name: str) -> Layout:
    """How the rows of a file, which messages call `name`, lie.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size, head = os.fstat(file.fileno()).st_size, file.read(NEAR)
            start = len(head) - len(head.lstrip(WHITE))
            if head[start : start + 1] != b"[":
                return Layout(path, name, size, 0)
            shape = Layout(path, name, size, start + 1, b"")
            whole = Elements(file.fileno(), shape, Span(0, size), parsed)
            return Layout(path, name, size, whole.skip_white(start + 1), whole.between())
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error}") from error


def ranges(shape: Layout) -> list[Span]:
    """All of a file."""
    return [Span(at, min(at + RANGE, shape.size)) for at in range(0, shape.size, RANGE)]


def rows_in(fd: int, shape: Layout, span: Span, parse: Parse) -> "Lines | Elements":
    """The rows that start in a range of a file open at `fd`."""
    return (Elements if shape.is_array else Lines)(fd, shape, span, parse)


def all_rows(fd: int, shape: Layout) -> Iterator[Text]:
    """Every row of a file that is open at `fd`, one range in memory at a time."""
    due = shape.first
    for begin, end, _ in ranges(shape):
        if due < end:
            rows = rows_in(fd, shape, Span(max(due, begin), end, exact=True), parsed)
            yield from rows
            due = end if rows.next is None else rows.next


def parsed(data: bytes) -> Any:
    """Its values; None if it is not JSON."""
    try:
        return from_json(data, cache_strings="keys")  # texts hardly repeat
    except ValueError:
        return None


class Lines:
    """JSON lines.

    `start` is where the first begins, None without one; `next`, once they have been gone through,
    where the one after the last does.
    """

    def __init__(self, fd: int, shape: Layout, span: Span, parse: Parse) -> None:
        begin, end, exact = span
        self._fd, self._shape, self._end, self._parse = fd, shape, end, parse
        base = begin if exact or not begin else begin - 1  # a row starts after a newline
        self._data = os.pread(fd, end - base, base)
        skipped = self._data.find(b"\n") + 1 if base < begin else 0
        is_none = base < begin and not 0 < skipped < end - base
        self.start: int | None = None if is_none else base + skipped
        self.next = self.start
        self._data = self._data[skipped:]

    def __iter__(self) -> Iterator[Text]:
        for at, lines in self._lines():
            yield from self._texts(at, lines)

    def batches(self, parse_many: ParseMany) -> Iterator[Batch]:
        """The same, many at once."""
        for at, lines in self._lines():
            if values := parse_many(lines):
                before = accumulate(map(len, lines), initial=at)
                begins = [length + number for number, length in enumerate(before)]
                yield Batch(begins[:-1], lines, values)
            elif texts := [*self._texts(at, lines)]:
                yield Batch(*zip(*texts, strict=True))

    def _lines(self) -> Iterator[tuple[int, list[bytes]]]:
        """Some at a time, with the place of the first."""
        if self.start is None:
            return
        at, lines = self.start, self._data.split(b"\n")
        lines[-1:] = [self._whole(lines[-1])] if lines[-1] else []
        for low in range(0, len(lines), BATCH):
            some = lines[low : low + BATCH]
            yield at, some
            at += sum(map(len, some)) + len(some)
        self.next = at

    def _texts(self, at: int, lines: Sequence[bytes]) -> Iterator[Text]:
        for line in lines:
            if text := line.strip():
                yield at + line.index(text[:1]), text, self._parse(text)
            at += len(line) + 1

    def _whole(self, line: bytes) -> bytes:
        """The last line, up to its end after the range."""
        at, pieces, length = self._end, [line], len(line)
        while at < self._shape.size:
            piece = os.pread(self._fd, NEAR, at)
            newline = piece.find(b"\n")
            pieces.append(piece if newline < 0 else piece[:newline])
            at, length = at + len(piece), length + len(piece)
            if newline >= 0 or not piece:
                break
            if length > MAX_ROW:
                place = position(self._shape, self._end - len(line))
                raise DataError(f"{place}: the line is longer than {MAX_ROW >> 20} MiB")
        return b"".join(pieces)


class Elements:
    """Those of a JSON array, as `Lines`. What is wrong between two of them is a `DataError`."""

    def __init__(self, fd: int, shape: Layout, span: Span, parse: Parse) -> None:
        begin, end, exact = span
        self._fd, self._shape, self._end, self._parse = fd, shape, end, parse
        self._base, self._data = begin, b""
        self._mark = shape.between or b"]"
        self._inner = self._mark.find(b"{")
        self.start: int | None = begin if exact else shape.first
        if begin > shape.first and not exact:
            self.start = self._first_from(begin)
        self.next = self.start

    def __iter__(self) -> Iterator[Text]:
        while (at := self._due()) is not None:
            if found := self._near(at):
                self.next = at + len(found[1]) - 1 + self._inner
            else:
                found = self._far(at)
                self.next = self._after(at + len(found[1]))
            yield found

    def batches(self, parse_many: ParseMany) -> Iterator[Batch]:
        """The same, many at once."""
        while (at := self._due()) is not None:
            yield self._many(at, parse_many) or Batch(*zip(*islice(self, BATCH), strict=True))

    def _due(self) -> int | None:
        """Where the next element begins; None when it is not in the range."""
        if self.next == self._shape.first and self._byte(self.next) == b"]":
            self.next = self._finish(self.next)
        return None if self.next is None or self.next >= self._end else self.next

    def _many(self, at: int, parse_many: ParseMany) -> Batch | None:
        """Elements up to what looks like the beginning of the next, if all of them are right."""
        low = self._held(at)
        first = bisect_left(self._cuts, low)
        cuts = self._cuts[first : first + BATCH]
        begins = [low, *[cut + self._inner for cut in cuts]]
        data = [self._data[begin : cut + 1] for begin, cut in zip(begins, cuts, strict=False)]
        values = parse_many(data)
        if not values:
            return None
        self.next = self._base + begins.pop()
        return Batch([self._base + begin for begin in begins], data, values)

    def between(self) -> bytes:
        """The bytes from the end of the first element to the first key of the second."""
        first = self.skip_white(self._shape.first)
        if self._byte(first) == b"]":
            return b"]"
        end = first + len(self._far(first)[1])
        second = self._after(end)
        opening = re.compile(rb'\{\s*"(?:[^"\\]|\\.)*"').match(self._at(first, NEAR))
        return b"}" + self._at(end, second - end) + (opening[0] if opening else b"{")

    def skip_white(self, at: int) -> int:
        """The place of the next byte that is not white space."""
        while (piece := self._at(at, 256)) and not piece.lstrip(WHITE):
            at += len(piece)
        return at + len(piece) - len(piece.lstrip(WHITE))

    def _first_from(self, begin: int) -> int | None:
        self._held(max(begin - self._inner, self._shape.first))
        found = [self._base + cut + self._inner for cut in self._cuts[:1]]
        return found[0] if found and found[0] < self._end else None

    def _near(self, at: int) -> Text | None:
        """The element up to what looks like the beginning of the next, if that is right."""
        low = self._held(at)
        cut = self._data.find(self._mark, low, low + NEAR)
        if cut < 0:
            return None
        data = self._data[low : cut + 1]
        values = self._parse(data)
        return None if values is None else (at, data, values)

    def _far(self, at: int) -> Text:
        """The element, read to its end in windows that grow."""
        window = NEAR
        while True:
            data = self._at(at, window)
            try:  # every byte a character: offsets stay, and JSON's own signs are one byte in UTF-8
                _, end = DECODER.raw_decode(data.decode("latin-1"))
            except RecursionError as error:
                raise self._wrong(at, "is nested too deeply") from error
            except json.JSONDecodeError as error:
                if len(data) < window:
                    raise self._wrong(at + error.pos, f"is not JSON ({error.msg})") from error
            else:
                if end < window:  # a number may go on
                    return at, data[:end], self._parse(data[:end])
            if window >= MAX_ROW:
                raise self._wrong(at, f"the row is longer than {MAX_ROW >> 20} MiB")
            window *= 8

    def _after(self, at: int) -> int:
        """From the end of an element to the next, or to the end of the file."""
        at = self.skip_white(at)
        sign = self._byte(at)
        if sign == b",":
            return self.skip_white(at + 1)
        if sign == b"]":
            return self._finish(at)
        raise self._wrong(at, "is not JSON (Expecting ',' delimiter)")

    def _finish(self, at: int) -> int:
        after = self.skip_white(at + 1)
        if after < self._shape.size:
            raise self._wrong(after, "is not JSON (Extra data)")
        return self._shape.size

    def _at(self, at: int, length: int) -> bytes:
        low = at - self._base
        if low >= 0 and low + length <= len(self._data):
            return self._data[low : low + length]
        return os.pread(self._fd, length, at)

    def _byte(self, at: int) -> bytes:
        return self._at(at, 1)

    def _held(self, at: int) -> int:
        """Where a place is in the data that is held, which goes on after it."""
        if not 0 <= at - self._base <= len(self._data) - NEAR:
            self._base = at
            self._data = os.pread(self._fd, max(self._end - at, 0) + 2 * NEAR, at)
            cuts = places(self._mark, self._data)
            self._cuts = cuts[: bisect_left(cuts, self._end - at - self._inner) + 1]
        return at - self._base

    def _wrong(self, at: int, reason: str) -> DataError:
        return DataError(f"{position(self._shape, at)}: {reason}")


def places(mark: bytes, data: bytes) -> list[int]:
    """Where a mark stands; faster than a search for one whose signs are frequent."""
    signs = np.frombuffer(data, np.uint8)
    found = np.flatnonzero(signs[: max(0, len(data) - len(mark) + 1)] == mark[0])
    for place in range(len(mark) - 1, 0, -1):
        found = found[signs[found + place] == mark[place]]
    return found.tolist()


DECODER = json.JSONDecoder(strict=False)


def position(shape: Layout, offset: int) -> str:
    """`file:line` of a byte."""
    newlines = 0
    with shape.path.open("rb") as file:
        while offset > 0 and (piece := file.read(min(offset, 1 << 20))):
            newlines += piece.count(b"\n")
            offset -= len(piece)
    return f"{shape.name}:{newlines + 1}"
