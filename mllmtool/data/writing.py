"""The rows of a mix as JSON lines, each with where it is from."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from pydantic_core import from_json, to_json

from mllmtool.configs.mix_data import Format
from mllmtool.data.controls import Pairing
from mllmtool.data.formats import to_sample
from mllmtool.data.mixing import Draws, Integers
from mllmtool.data.rekeying import rekeyed
from mllmtool.data.rows import Rows
from mllmtool.errors import DataError

CHUNK = 4096  # rows
CHANGED = "changed while it was read; run again"


@dataclass(frozen=True)
class Origin:
    """A source as its rows are written; `prefix` leads from the images' folder to its own."""

    name: str
    form: Format
    prefix: str
    control: str | None = None

    @cached_property
    def head(self) -> str:
        """What is said of the origin of every row, as JSON."""
        return f', "_mix": {{"source": {json.dumps(self.name)}, "index": '

    def quickly(self, data: bytes, ours: bool) -> bytes | None:
        """The row in our shape, as JSON, if that takes no parser."""
        if self.control or self.prefix:
            return None
        return data if ours else rekeyed(data) if self.form == "llava" else None

    def sample(self, data: bytes, index: int) -> dict[str, Any]:
        """The row with its image names as they are from the images' folder."""
        try:
            values = from_json(data, cache_strings="keys")
            sample = to_sample(values, self.form, f"{self.name}-{index}")
        except (ValueError, DataError) as error:
            raise DataError(f"{self.name}: {CHANGED}") from error
        if self.prefix and sample.get("images"):
            sample["images"] = [str(PurePosixPath(self.prefix, n)) for n in sample["images"]]
        return sample


@dataclass(frozen=True)
class Writing:
    """What every chunk needs: sources, and the files of all of them, in order."""

    origins: Sequence[Origin]
    paths: Sequence[Path]


class Chunk(NamedTuple):
    """Some rows of a mix. Places are (file, begin, length).

    `turns` and `images` are the rows, indices and places, that a row of a control takes its from.
    """

    drawn: Draws
    ours: Integers
    places: Integers
    turns: tuple[Integers, Integers] | None = None
    images: tuple[Integers, Integers] | None = None


def chunks(
    drawn: Draws, rows: Sequence[Rows], pairings: Sequence[Pairing | None]
) -> Iterator[Chunk]:
    """A mix, or a part of it, cut."""
    for begin in range(0, len(drawn), CHUNK):
        some = drawn[begin : begin + CHUNK]
        ours = np.zeros(len(some), bool)
        for source, each in enumerate(rows):
            mine = some.sources == source
            ours[mine] = each.fields["ours"][some.indices[mine]]
        chunk = Chunk(some, ours, _places(some.sources, some.indices, rows))
        if any(pairings):
            others = [_partners(some, pairings, name) for name in ("turns", "images")]
            turns, images = ((each, _places(some.sources, each, rows)) for each in others)
            chunk = chunk._replace(turns=turns, images=images)
        yield chunk


def write_chunk(writing: Writing, chunk: Chunk) -> bytes:
    """The lines.

    Raises:
        DataError: a file is no longer what it was.
    """
    texts = _read(writing.paths, chunk.places)
    turns = _read(writing.paths, chunk.turns[1]) if chunk.turns else texts
    images = _read(writing.paths, chunk.images[1]) if chunk.images else texts
    drawn, lines = chunk.drawn, []
    columns = (drawn.sources, drawn.indices, drawn.copies, chunk.ours)
    rows = zip(*(column.tolist() for column in columns), texts, strict=True)
    for number, (source, index, copy, ours, text) in enumerate(rows):
        origin = writing.origins[source]
        digest = sha256(text).hexdigest()[:16]
        body = origin.quickly(text, ours)
        if not body:
            sample = origin.sample(text, index)
            if ours or origin.control or "_mix" in sample:
                mix = {"source": origin.name, "index": index, "copy": copy, "hash": digest}
                if origin.control and chunk.turns and chunk.images:
                    at = int(chunk.turns[0][number]), int(chunk.images[0][number])
                    said, shown = origin.sample(turns[number], 0), origin.sample(images[number], 0)
                    sample |= {"messages": said["messages"], "images": shown["images"]}
                    mix |= {"control": origin.control, "turns_of": at[0], "images_of": at[1]}
                lines.append(_line(sample, mix))
                continue
            body = to_json(sample)
        mixed = f'{origin.head}{index}, "copy": {copy}, "hash": "{digest}"}}}}\n'
        lines += body[:-1].rstrip(), mixed.encode()
    return b"".join(lines)


def _line(sample: dict[str, Any], mix: dict[str, Any]) -> bytes:
    """A line with its origin, and before that the origin of the row in an earlier mix."""
    if "_mix" in sample:
        mix["before"] = sample["_mix"]
    return json.dumps({**sample, "_mix": mix}, ensure_ascii=False).encode() + b"\n"


def _places(sources: Integers, indices: Integers, rows: Sequence[Rows]) -> Integers:
    places = np.empty((len(indices), 3), np.int64)
    files = 0
    for source, each in enumerate(rows):
        mine = sources == source
        chosen = indices[mine]
        places[mine, 0] = files + np.searchsorted(each.starts, chosen, side="right") - 1
        places[mine, 1] = each.fields["begin"][chosen]
        places[mine, 2] = each.fields["length"][chosen]
        files += len(each.parts)
    return places


def _partners(drawn: Draws, pairings: Sequence[Pairing | None], name: str) -> Integers:
    """Of each row the one whose turns or images it takes; where there is no control, itself."""
    found = drawn.indices.copy()
    for source, pairing in enumerate(pairings):
        if pairing:
            mine = drawn.sources == source
            found[mine] = getattr(pairing, name)[drawn.indices[mine]]
    return found


def _read(paths: Sequence[Path], places: Integers) -> list[bytes]:
    """The bytes at some places, read in the order in which they lie on the disk."""
    order = np.lexsort((places[:, 1], places[:, 0]))
    numbers, begins, lengths = places[order].T.tolist()
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")).fileno() for path in paths]
        data = list(map(os.pread, [files[number] for number in numbers], lengths, begins))
    if list(map(len, data)) != lengths:
        wrong = next(n for n, text in enumerate(data) if len(text) != lengths[n])
        raise DataError(f"{paths[numbers[wrong]]}: {CHANGED}")
    found = [b""] * len(places)
    for place, text in zip(order.tolist(), data, strict=True):
        found[place] = text
    return found
