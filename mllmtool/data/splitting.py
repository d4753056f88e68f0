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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from mllmtool.errors import DataError

RANGE = 8 << 20  # bytes
MAX_ROW = 32 << 20
NEAR = 1 << 16
WHITE = b" \t\r\n"


Text = tuple[int, bytes, Any]  # where a row begins, its bytes, and what they were parsed to
Parse = Callable[[bytes], Any]  # None for what is not JSON


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
        if self.start is None:
            return
        at, lines = self.start, self._data.split(b"\n")
        lines[-1:] = [self._whole(lines[-1])] if lines[-1] else []
        for line in lines:
            if text := line.strip():
                yield at + line.index(text[:1]), text, self._parse(text)
            at += len(line) + 1
        self.next = at

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
        self.start: int | None = begin if exact else shape.first
        if begin > shape.first and not exact:
            self.start = self._first_from(begin)
        self.next = self.start

    def __iter__(self) -> Iterator[Text]:
        at = self.start
        if at is None or not self._shape.between:
            return
        if self._byte(at) == b"]":
            at = self._finish(at)
        gap = self._shape.between.rfind(b"{") - 1
        while at < self._end:
            found = self._near(at)
            if found:
                yield found
                at += len(found[1]) + gap
            else:
                found = self._far(at)
                yield found
                at = self._after(at + len(found[1]))
        self.next = at

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
        mark = self._shape.between or b"]"
        inner = mark.rfind(b"{", 1)
        low = max(begin - inner, self._shape.first)
        at = self._at(low, self._end - low + len(mark)).find(mark)
        found = low + at + inner
        return found if at >= 0 and begin <= found < self._end else None

    def _near(self, at: int) -> Text | None:
        """The element up to what looks like the beginning of the next, if that is right."""
        low = at - self._base
        if low < 0 or low + NEAR > len(self._data):
            self._load(at)
            low = 0
        cut = self._data.find(self._shape.between or b"]", low, low + NEAR)
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

    def _load(self, at: int) -> None:
        self._base = at
        self._data = os.pread(self._fd, max(self._end - at, 0) + 2 * NEAR, at)

    def _wrong(self, at: int, reason: str) -> DataError:
        return DataError(f"{position(self._shape, at)}: {reason}")


DECODER = json.JSONDecoder(strict=False)


def position(shape: Layout, offset: int) -> str:
    """`file:line` of a byte."""
    newlines = 0
    with shape.path.open("rb") as file:
        while offset > 0 and (piece := file.read(min(offset, 1 << 20))):
            newlines += piece.count(b"\n")
            offset -= len(piece)
    return f"{shape.name}:{newlines + 1}"
