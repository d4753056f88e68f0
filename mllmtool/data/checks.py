"""What is asked of each row of a mix, and what is noted of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mllmtool.configs.mix_data import Format
from mllmtool.data.exclusion import Exclusion
from mllmtool.data.formats import IMAGE_MARK, to_sample
from mllmtool.data.images import ImageFolder
from mllmtool.data.looks import quick_looks, slow_look
from mllmtool.data.plain import lined_up, parser, parser_of_many
from mllmtool.data.samples import json_object
from mllmtool.data.splitting import Batch, Parse, ParseMany
from mllmtool.data.texts import canonical, short_hash, spoken
from mllmtool.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GOOD, INVALID, DUPLICATE = 0, 1, 2
EXCLUDED = {"text": 3, "image": 4, "id": 5}
ROW = np.dtype(
    [
        ("begin", "<u8"),
        ("length", "<u4"),  # bytes
        ("state", "<u4"),
        ("images", "<u4"),
        ("turns", "<u4"),
        ("chars", "<u4"),
        ("weight", "<u4"),
        ("text", "<u8"),  # hashes, where they are asked for
        ("pictures", "<u8"),
        ("ours", "?"),  # of our shape and in one line: can be written as it is
    ]
)
UNKNOWN = (0,) * (len(ROW.fields or ()) - 3)
FEW = 8  # rows that are looked at one by one where not all are right
Fields = npt.NDArray[np.void]
Problem = tuple[int, str]  # the number of an invalid row, and what is wrong with it


@dataclass(frozen=True)
class Checks:
    """How the rows of a source are read; `hashes`: of texts, and of the names of images."""

    form: Format
    folder: ImageFolder
    unit: str = "instances"
    tokenizer: Path | None = None
    hashes: bool = False
    decode: bool = False
    exclusion: Exclusion | None = None

    def rows(self, batch: Batch) -> tuple[Fields, list[Problem]]:
        """What is noted of each row, and the invalid ones."""
        begins, data, values = batch
        fields = np.zeros(len(data), ROW)
        fields["begin"], fields["length"] = begins, list(map(len, data))
        problems = [*_noted(self._note, self._quick(values, fields), batch, fields)]
        if self.decode or self.reads_texts:
            good = np.flatnonzero(fields["state"] == GOOD).tolist()
            problems += _noted(self._note_more, good, batch, fields)
        if fields["ours"].any() and not _in_one_line(b"".join(data)):
            fields["ours"] &= list(map(_in_one_line, data))
        return fields, sorted(problems)

    def _quick(self, values: Sequence[Any], fields: Fields, begin: int = 0) -> Iterator[int]:
        """Note what a quick look sees; the rows, numbered from `begin` on, that need another."""
        plain = lined_up(values, self.form)
        looks = quick_looks(plain, self.form) if plain else None
        if looks and self.folder.holds(chain.from_iterable(looks.images)):
            images = list(map(len, looks.images))
            fields["turns"], fields["chars"], fields["ours"] = looks.turns, looks.chars, looks.ours
            fields["images"], fields["weight"] = images, images if self.unit == "images" else 1
        elif len(values) <= FEW:
            yield from range(begin, begin + len(values))
        else:
            half = len(values) // 2
            yield from self._quick(values[:half], fields[:half], begin)
            yield from self._quick(values[half:], fields[half:], begin + half)

    def _note(self, data: bytes, values: Any, noted: np.void) -> None:
        values = _object(data, values)
        sample = to_sample(values, self.form, "")
        plain = lined_up([sample], "messages")
        if looks := quick_looks(plain, "messages") if plain else None:
            turns, chars, images = int(looks.turns[0]), int(looks.chars[0]), looks.images[0]
        else:
            turns, chars, images = slow_look(sample)
        for name in images:
            self.folder.find(name)
        noted["turns"], noted["chars"], noted["images"] = turns, chars, len(images)
        noted["weight"] = len(images) if self.unit == "images" else 1
        noted["ours"] = sample is values and "_mix" not in sample

    def _note_more(self, data: bytes, values: Any, noted: np.void) -> None:
        values = _object(data, values)
        sample = to_sample(values, self.form, "")
        images = sample.get("images", ())
        if self.decode:
            for name in images:
                self.folder.decode(name)
        if self.unit == "tokens":
            noted["weight"] = self._tokens(sample)
        if self.exclusion:
            own = sample["id"] if "id" in values else None
            reason = self.exclusion.reason(sample, own, self.folder)
            noted["state"] = EXCLUDED[reason] if reason else GOOD
        noted["text"] = short_hash(canonical(sample))
        noted["pictures"] = short_hash("\0".join(images))

    @property
    def parse(self) -> Parse:
        """What reads a row."""
        return parser(self.form)

    @property
    def parse_many(self) -> ParseMany:
        """What reads rows that are all plain."""
        return parser_of_many(self.form)

    @cached_property
    def reads_texts(self) -> bool:
        """Whether more is asked than whether a row is right."""
        return self.hashes or self.unit == "tokens" or self.exclusion is not None

    def _tokens(self, sample: dict[str, Any]) -> int:
        assert self.tokenizer is not None  # noqa: S101 (the config says so)
        count = _load(self.tokenizer)
        texts = [text.replace(IMAGE_MARK, "") for _, text in spoken(sample)]
        return sum(len(count.encode(text, add_special_tokens=False)) for text in texts)


def _in_one_line(data: bytes) -> bool:
    return b"\n" not in data and b"\r" not in data


def _object(data: bytes, values: Any) -> dict[str, Any]:
    """A row's values; what is wrong is a `DataError`."""
    return values if type(values) is dict else json_object(data)


def _noted(
    note: Callable[[bytes, Any, np.void], None],
    numbers: Iterable[int],
    batch: Batch,
    fields: Fields,
) -> Iterator[Problem]:
    """Note what is asked of rows one by one; the invalid ones."""
    for number in numbers:
        data = batch.data[number]
        try:
            note(data, batch.values[number], fields[number])
        except DataError as error:
            fields[number] = (batch.begins[number], len(data), INVALID, *UNKNOWN)
            yield number, str(error)


def tokenizer_file(tokenizer: Path) -> Path:
    """Of a checkpoint, or the file itself."""
    return tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer


@cache
def _load(tokenizer: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    file = tokenizer_file(tokenizer)
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"--tokenizer: {file} cannot be read: {error}") from error
