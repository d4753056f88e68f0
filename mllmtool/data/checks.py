"""What is asked of each row of a mix, and what is noted of it."""

import struct
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mllmtool.configs.mix_data import Format
from mllmtool.data.exclusion import Exclusion
from mllmtool.data.formats import IMAGE_MARK, to_sample
from mllmtool.data.images import ImageFolder
from mllmtool.data.looks import Look, quick_look, slow_look
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
        ("ours", "u1"),  # of our shape, so that its bytes stay
    ]
)
pack = struct.Struct("<QIIIIIIQQB").pack  # of ROW, little-endian


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

    def row(self, values: Any) -> tuple[int, ...]:
        """The fields of `ROW` from `state` on.

        Raises:
            DataError: what is wrong, without the place.
        """
        if type(values) is not dict:
            raise DataError("is not a JSON object")
        look, sample = quick_look(values, self.form), None
        if look is None or self.reads_texts:
            sample = to_sample(values, self.form, "")
            look = look or self._second_look(sample, sample is values)
        turns, chars, images, ours = look
        for name in images:
            self.folder.find(name)
            if self.decode:
                self.folder.decode(name)
        state, weight = GOOD, len(images) if self.unit == "images" else 1
        if sample is None:
            return state, len(images), turns, chars, weight, 0, 0, ours
        if self.unit == "tokens":
            weight = self._tokens(sample)
        if self.exclusion:
            own = sample["id"] if "id" in values else None
            reason = self.exclusion.reason(sample, own, self.folder)
            state = EXCLUDED[reason] if reason else GOOD
        text, pictures = short_hash(canonical(sample)), short_hash("\0".join(images))
        return state, len(images), turns, chars, weight, text, pictures, ours

    def _second_look(self, sample: dict[str, Any], untouched: bool) -> Look:
        turns, chars, images, _ = quick_look(sample, "messages") or slow_look(sample)
        return turns, chars, images, untouched

    @cached_property
    def reads_texts(self) -> bool:
        """Whether more is asked than whether a row is right."""
        return self.hashes or self.unit == "tokens" or self.exclusion is not None

    def _tokens(self, sample: dict[str, Any]) -> int:
        assert self.tokenizer is not None  # noqa: S101 (the config says so)
        count = _load(self.tokenizer)
        texts = [text.replace(IMAGE_MARK, "") for _, text in spoken(sample)]
        return sum(len(count.encode(text, add_special_tokens=False)) for text in texts)


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
