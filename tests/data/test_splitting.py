"""Rows of plain files, whatever ranges they are cut into."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mllmtool.data import splitting
from mllmtool.data.splitting import Layout, Span, layout, parsed, ranges, rows_in
from mllmtool.errors import DataError

quick = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# what looks like the border of two rows, inside of one
tricky = st.sampled_from(['}, {"id"', '"}', "[{", "\\", "é", "\n", "]", '{"id": 1}'])
values = st.recursive(
    st.one_of(tricky, st.integers(-9, 9), st.none(), st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "a", "b"]), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = st.sampled_from(["id", "a", "é", '{"'])
rows = st.lists(st.dictionaries(keys, values, max_size=3), max_size=8)


def joined(path: Path) -> list[Any]:
    """The rows, each range from where the one before has ended, if it guessed wrong."""
    shape = layout(path, "f")
    found, due = [], shape.first
    with path.open("rb") as file:
        for span in ranges(shape):
            if due >= span.end:
                continue
            piece = rows_in(file.fileno(), shape, span, parsed)
            if piece.start != due:
                exact = Span(due, span.end, exact=True)
                piece = rows_in(file.fileno(), shape, exact, parsed)
            texts = [*piece]
            assert in_batches(file.fileno(), shape, Span(due, span.end, exact=True)) == texts
            for at, data, values in texts:
                assert path.read_bytes()[at : at + len(data)] == data
                found.append(values)
            assert piece.next is not None
            due = piece.next
    return found


def in_batches(fd: int, shape: Layout, span: Span) -> list[Any]:
    """The rows of a range, of which those with a key are parsed many at once."""
    with patch.object(splitting, "BATCH", 2):
        batches = [*rows_in(fd, shape, span, parsed).batches(parsed_together)]
    return [text for batch in batches for text in zip(*batch, strict=True)]


def parsed_together(texts: Sequence[bytes]) -> Sequence[Any] | None:
    found = [parsed(text) if text.strip() == text else None for text in texts]
    return found if all(found) else None


@quick
@given(rows=rows, indent=st.sampled_from([None, 0, 1]), size=st.integers(1, 60))
def test_an_array_is_read_in_any_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any], indent: int | None, size: int
) -> None:
    monkeypatch.setattr(splitting, "RANGE", size)
    monkeypatch.setattr(splitting, "NEAR", 16)
    path = tmp_path / "f.json"
    path.write_text(" " + json.dumps(rows, indent=indent, ensure_ascii=False) + "\n ")
    assert joined(path) == rows


@quick
@given(rows=rows, blank=st.booleans(), end=st.booleans(), size=st.integers(1, 60))
def test_lines_are_read_in_any_ranges(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[Any],
    blank: bool,
    end: bool,
    size: int,
) -> None:
    monkeypatch.setattr(splitting, "RANGE", size)
    monkeypatch.setattr(splitting, "NEAR", 16)
    path = tmp_path / "f.jsonl"
    lines = [json.dumps(row) for row in rows]
    path.write_text(("\n \r\n" if blank else "\n").join(lines) + ("\n" if end else ""))
    assert joined(path) == rows


BROKEN = {
    "cut off": ('[{"id": 1}, {"id": 2}', "f:1: is not JSON (Expecting ',' delimiter)"),
    "cut off in a row": ('[{"id": 1},\n{"id": ', "f:2: is not JSON (Expecting value)"),
    "no comma": ('[{"id": 1}\n{"id": 2}]', "f:2: is not JSON (Expecting ',' delimiter)"),
    "more after it": ('[{"id": 1}]\n[]', "f:2: is not JSON (Extra data)"),
    "a comma at the end": ('[{"id": 1},]', "f:1: is not JSON (Expecting value)"),
    "no quotes": ('[{"id": 1}, {"id": 2}, {id: 3}]', "f:1: is not JSON (Expecting property name"),
    "too deep": ('[{"id": 1}, ' + "[" * 100_000, "f:1: is nested too deeply"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_array(tmp_path: Path, case: str) -> None:
    text, message = BROKEN[case]
    (tmp_path / "f").write_text(text)
    with pytest.raises(DataError) as caught:
        joined(tmp_path / "f")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("text", ['{"a": "%s"}', '[{"a": "%s"}]'])
def test_a_row_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(splitting, "RANGE", 1 << 20)
    monkeypatch.setattr(splitting, "MAX_ROW", 1 << 20)
    (tmp_path / "f").write_text(text % ("x" * (5 << 20)))
    with pytest.raises(DataError, match=r"f:1: the .* is longer than 1 MiB"):
        joined(tmp_path / "f")
