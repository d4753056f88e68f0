"""Training samples: `{"id", "images": [...], "messages": [{"role", "content"}]}`, one a line.

`content` is text with an `<image>` mark for each image, in order, or a list of parts
`{"type": "image"}` and `{"type": "text", "text": ...}`. Further keys are kept untouched.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllmtool.errors import DataError

IMAGE_MARK = "<image>"


class ContentPart(BaseModel):
    """One part of a message: an image's place, or text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["image", "text"]
    text: str = ""


class Message(BaseModel):
    """One turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str | tuple[ContentPart, ...]

    @property
    def parts(self) -> tuple[ContentPart, ...]:
        """The content as parts, the marks of a text content resolved."""
        if not isinstance(self.content, str):
            return self.content
        pieces = re.split(rf"({IMAGE_MARK})\n?", self.content)
        return tuple(
            ContentPart(type="image")
            if piece == IMAGE_MARK
            else ContentPart(type="text", text=piece)
            for piece in pieces
            if piece
        )


class Sample(BaseModel):
    """One training sample."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    images: tuple[str, ...] = ()
    messages: tuple[Message, ...] = Field(min_length=1)


def read_samples(path: str | Path) -> Iterator[Sample]:
    """Read a JSONL file of samples, checked one by one.

    Raises:
        DataError: `file:line` and what is wrong there.
    """
    return (sample for _, sample in locate_samples(path))


def locate_samples(path: str | Path) -> Iterator[tuple[str, Sample]]:
    """As `read_samples`, each with its `file:line`."""
    for line, values in read_jsonl(path):
        where = f"{path}:{line}"
        sample = parse_line(Sample, values, where)
        marks = sum(part.type == "image" for m in sample.messages for part in m.parts)
        if marks != len(sample.images):
            raise DataError(f"{where}: {marks} {IMAGE_MARK} marks for {len(sample.images)} images")
        yield where, sample


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a JSONL file; blank lines are skipped.

    Raises:
        DataError: the file is missing or a line is not a JSON object.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield line, _object(text, f"{path}:{line}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write objects, one a line."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def parse_line(model: type[Any], values: dict[str, Any], where: str) -> Any:
    """Validate one line's object as `model`; `where` is its `file:line`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        issue = error.errors(include_url=False)[0]
        place = [".".join(str(step) for step in issue["loc"])] if issue["loc"] else []
        reason = issue["msg"].removeprefix("Value error, ")
        raise DataError(": ".join([where, *place, reason])) from error


def image_path(root: Path, name: str, setting: str = "--images") -> Path:
    """The file of an image, which must lie under `root`; `setting` is what chooses `root`.

    Raises:
        DataError: it is missing, or its name leads out of `root`.
    """
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{name}: leads out of the image folder {root}; set {setting}")
    if not path.is_file():
        raise DataError(f"{path}: no such image")
    return path


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise DataError(f"{where}: is not a JSON object")
    return values
