"""The file that a mix is written to, and how other tools find their way in it."""

import json
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import from_json

from mllmtool.data.arrow import pyarrow_for
from mllmtool.data.texts import as_text

PIECE = 1 << 18  # bytes; Linux can take several times as long to write more at once
COLUMNS = ("id", "images", "messages", "_mix")


class Sink(Protocol):
    """Takes whole JSON lines."""

    def write(self, lines: bytes, /) -> object:
        """Some of them."""

    def close(self) -> object:
        """Finish the file."""


def open_sink(path: Path) -> Sink:
    """JSON lines, or Parquet by the name's end."""
    return ParquetSink(path) if path.suffix == ".parquet" else LineSink(path)


class LineSink:
    """The lines as they are."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, lines: bytes, /) -> None:
        """In pieces."""
        for begin in range(0, len(lines), PIECE):
            self._file.write(lines[begin : begin + PIECE])

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class ParquetSink:
    """Columns `id`, `images`, `messages`, `_mix`, and `more`: a row's further keys as JSON."""

    def __init__(self, path: Path) -> None:
        arrow = pyarrow_for(path)
        from pyarrow import parquet

        text, number = arrow.string(), arrow.int64()
        turn = arrow.struct([("role", text), ("content", text)])
        mix = [("source", text), ("index", number), ("copy", number), ("hash", text)]
        mix += [("control", text), ("turns_of", number), ("images_of", number), ("before", text)]
        types = (text, arrow.list_(text), arrow.list_(turn), arrow.struct(mix))
        self._schema = arrow.schema([*zip(COLUMNS, types, strict=True), ("more", text)])
        self._table = arrow.Table
        self._writer = parquet.ParquetWriter(path, self._schema)

    def write(self, lines: bytes, /) -> None:
        """A row group."""
        rows = [_flat(from_json(line)) for line in lines.split(b"\n") if line]
        self._writer.write_table(self._table.from_pylist(rows, self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    turns = [{**turn, "content": as_text(turn["content"])} for turn in row["messages"]]
    more = {key: value for key, value in row.items() if key not in COLUMNS}
    mix = row["_mix"]
    if "before" in mix:
        mix["before"] = json.dumps(mix["before"], ensure_ascii=False)
    return {
        "id": row["id"],
        "images": row.get("images", []),
        "messages": turns,
        "_mix": mix,
        "more": json.dumps(more, ensure_ascii=False) if more else None,
    }


def dataset_info(name: str) -> dict[str, Any]:
    """What LLaMA-Factory's `dataset_info.json` says of the file `name`."""
    return {
        "mix": {
            "file_name": name,
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }
    }
