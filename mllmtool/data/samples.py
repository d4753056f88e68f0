"""Training samples: `{"id", "images": [...], "messages": [{"role", "content"}]}`, one a line.

`content` is text with an `<image>` mark for each image, in order, or a list of parts
`{"type": "image"}` and `{"type": "text", "text": ...}`. Further keys are kept untouched.
Rows of the other formats in `formats` and files of the other kinds in `files` are read as these.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from mllmtool.configs.mix_data import Format
from mllmtool.data import formats
from mllmtool.data.arrow import in_columns
from mllmtool.data.files import open_layout, table_rows
from mllmtool.data.splitting import all_rows
from mllmtool.errors import DataError
from mllmtool.reports import read_report
from mllmtool.reports.report import REPORT_NAME

IMAGE_MARK = formats.IMAGE_MARK


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
    """Read a file of samples, checked one by one.

    Raises:
        DataError: `file:line` and what is wrong there.
    """
    return (sample for _, sample in locate_samples(path))


def locate_samples(path: str | Path) -> Iterator[tuple[str, Sample]]:
    """As `read_samples`, each with its `file:line`."""
    form: Format | None = None
    name = Path(path).name.partition(".")[0]
    for number, (where, values) in enumerate(read_rows(Path(path))):
        form = form or formats.detect(values, where)
        yield where, parse_sample(values, where, form, f"{name}-{number}")


def parse_sample(
    values: dict[str, Any], where: str, form: Format = "messages", name: str = ""
) -> Sample:
    """Check one row of a format; `where` is its `file:line`, `name` its id if it has none.

    Raises:
        DataError: `where` and what is wrong there.
    """
    try:
        return check_sample(formats.to_sample(values, form, name))
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def check_sample(values: dict[str, Any]) -> Sample:
    """A sample of our shape.

    Raises:
        DataError: what is wrong, without the place.
    """
    sample: Sample = _validated(Sample, values)
    marks = sum(part.type == "image" for m in sample.messages for part in m.parts)
    if marks != len(sample.images):
        raise DataError(f"{marks} {IMAGE_MARK} marks for {len(sample.images)} images")
    return sample


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row's `file:line` and object, of JSON lines, a JSON array, or a table.

    Raises:
        DataError: the file cannot be read, or a row is not a JSON object.
    """
    if in_columns(path):
        yield from table_rows(path)
        return
    with TemporaryDirectory() as folder:
        shape = open_layout(path, Path(folder))
        if not shape.is_array:
            for line, values in read_jsonl(shape.path, shape.name):
                yield f"{shape.name}:{line}", values
            return
        with shape.path.open("rb") as file:
            for number, (_, data, _) in enumerate(all_rows(file.fileno(), shape)):
                where = f"{shape.name} (row {number})"
                yield where, parse_object(data, where)


def read_jsonl(path: str | Path, name: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a JSONL file; blank lines are skipped.

    Raises:
        DataError: the file, which messages call `name`, is missing or a line is not a JSON object.
    """
    name = str(path) if name is None else name
    try:
        with Path(path).open(encoding="utf-8") as file:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield line, parse_object(text, f"{name}:{line}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: cannot be read: {error}") from error


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write objects, one a line."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def parse_line(model: type[Any], values: dict[str, Any], where: str) -> Any:
    """Validate one line's object as `model`; `where` is its `file:line`."""
    try:
        return _validated(model, values)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _validated(model: type[Any], values: dict[str, Any]) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        issue = error.errors(include_url=False)[0]
        place = [".".join(str(step) for step in issue["loc"])] if issue["loc"] else []
        reason = issue["msg"].removeprefix("Value error, ")
        raise DataError(": ".join([*place, reason])) from error


def images_root(samples: str | Path, images: str | None = None) -> Path:
    """The folder that the image names in a file of samples or items are relative to.

    It is `images`, what `--images` gave; else what the report beside the file says, for `mix-data`
    and `build-vqa` leave images where they are; else the file's own folder.
    """
    if images is not None:
        return Path(images)
    folder = Path(samples).parent
    return folder / _reported_root(folder / REPORT_NAME, Path(samples).name)


def _reported_root(report: Path, name: str) -> str:
    """What a report that made the file `name` says of its images' folder."""
    if not report.is_file():
        return "."
    try:
        made = read_report(report)
    except DataError:  # a report.json of another tool
        return "."
    root = made.run.get("images_root")
    listed = any(output.path == name for output in made.outputs)
    return root if listed and isinstance(root, str) else "."


def image_path(root: Path, name: str, setting: str = "--images") -> Path:
    """The file of an image, which must lie under `root`; `setting` is what chooses `root`.

    Raises:
        DataError: it is missing, or its name leads out of `root`.
    """
    path = root / name
    try:
        inside, there = path.resolve().is_relative_to(root.resolve()), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, a loop of links
        raise DataError(f"{name!r}: cannot be an image's name: {error}") from error
    if not inside:
        raise DataError(f"{name}: leads out of the image folder {root}; set {setting}")
    if not there:
        raise DataError(f"{path}: no such image")
    return path


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """A line's JSON object.

    Raises:
        DataError: it is not one, or not UTF-8.
    """
    try:
        return json_object(text)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def json_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: it is not one, or not UTF-8, without the place.
    """
    try:
        values = from_json(text)
    except ValueError as error:
        raise DataError(f"is not JSON ({_json_error(text) or error})") from error
    if not isinstance(values, dict):
        raise DataError("is not a JSON object")
    return values


def _json_error(text: str | bytes) -> Exception | None:
    """What Python's own parser says of it, which names the place in characters."""
    try:
        json.loads(text.decode() if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as error:
        return error
    return None
