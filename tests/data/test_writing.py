"""Lines of a mix, written from where their rows lie."""

from pathlib import Path

import numpy as np
import pytest

from mllmtool.data.mixing import Draws
from mllmtool.data.writing import Chunk, Origin, Writing, write_chunk
from mllmtool.errors import DataError


def test_a_source_that_was_cut_since_it_was_read(tmp_path: Path) -> None:
    path, row = tmp_path / "a.jsonl", b'{"id": "1", "messages": []}'
    path.write_bytes(row)
    one = np.zeros(1, np.int64)
    chunk = Chunk(Draws(one, one, one), np.ones(1, bool), np.array([[0, 0, len(row)]]))
    writing = Writing([Origin("a", "messages", "")], [path])
    assert write_chunk(writing, chunk).startswith(row[:-1])
    path.write_bytes(row[:-1])
    with pytest.raises(DataError) as caught:
        write_chunk(writing, chunk)
    assert str(caught.value) == f"{path}: changed while it was read; run again"
