"""Labelled images: a folder with one subfolder a class, or a table with columns of both."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mllmtool.data.images import ImageFolder, suffix_of
from mllmtool.data.samples import IMAGE_MARK, image_path, images_root, parse_line
from mllmtool.data.tables import Table, is_table, open_table
from mllmtool.errors import DataError

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class Labelled(BaseModel):
    """An image, by its name in the folder of the images, and its class.

    `fields` has what templates want of the row besides; `where` is the row's place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Annotated[str, Field(min_length=1)]
    class_name: str
    id: Annotated[str, Field(min_length=1)] | None = None
    fields: Mapping[str, str] = {}
    where: Annotated[str, Field(exclude=True)] = ""

    @field_validator("class_name")
    @classmethod
    def _plain(cls, value: str) -> str:
        return option_text(value)

    @field_validator("fields")
    @classmethod
    def _unmarked(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if any(IMAGE_MARK in text for text in value.values()):
            raise ValueError(f"a text holds {IMAGE_MARK}")
        return value

    @property
    def key(self) -> str:
        """The id, else the image."""
        return self.id or self.image


@dataclass(frozen=True)
class LabelledImages:
    """All of them, the folder that they are in, how many files or rows were passed over, and why.

    `duplicates` are rows without ids that say again all that an earlier one said.
    """

    root: Path
    images: tuple[Labelled, ...]
    passed_over: int = 0
    duplicates: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(sorted({labelled.class_name for labelled in self.images}))

    @property
    def sha256(self) -> str:
        """Hash of ids, images' names, classes and fields; image files are not read."""
        digest = hashlib.sha256()
        for labelled in self.images:
            digest.update(labelled.model_dump_json().encode() + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what, and `root`, the folder that its paths are relative to.

    `fields` are the columns that templates want.
    """

    image: str = "image"
    label: str = "class_name"
    fields: tuple[str, ...] = ()
    root: Path | None = None


def option_text(value: str) -> str:
    """A text that can stand in one line of a prompt, stripped.

    Raises:
        ValueError: it cannot.
    """
    if not value.strip() or IMAGE_MARK in value or len(value.splitlines()) > 1:
        raise ValueError(f"{value!r} cannot be an option's text")
    return value.strip()


def read_labelled(path: Path, columns: Columns, into: Path | None = None) -> LabelledImages:
    """Read all of them; embedded images are written to `into/images`, unless it is None.

    Of image files the first bytes are read, to see that they are pictures.

    Raises:
        DataError: there are none, one is missing, leads out of its folder or is no picture, an id
            occurs twice, or a column is missing.
    """
    return _read_table(path, columns, into) if is_table(path) else _read_folder(path)


def _read_folder(root: Path) -> LabelledImages:
    """Hidden files and folders are passed over, and so is all that is no image."""
    folder, images, passed_over = ImageFolder(root), [], 0
    for place, name in _files(root):
        if len(name.parts) < 2 or name.suffix.lower() not in IMAGE_SUFFIXES or _hidden(name):
            passed_over += 1
            continue
        folder.check(name.as_posix(), str(root))
        folder.check_begin(name.as_posix())
        values = {"image": name.as_posix(), "class_name": name.parts[0], "where": str(place)}
        images.append(parse_line(Labelled, values, str(place)))
    if not images:
        raise DataError(f"{root}: holds no images in a subfolder named after their class")
    return LabelledImages(root, tuple(images), passed_over)


def _files(root: Path) -> Iterator[tuple[Path, Path]]:
    """Every file, and its name under the root, in a fixed order."""
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders.sort()
        for name in folders:
            if (Path(folder) / name).is_symlink():
                raise DataError(
                    f"{folder}/{name}: is a link to a folder, which is not followed; copy it"
                )
        for file in sorted(files):
            yield Path(folder) / file, (Path(folder) / file).relative_to(root)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _read_table(path: Path, columns: Columns, into: Path | None) -> LabelledImages:
    table = open_table(path)
    needed = (columns.image, columns.label, *columns.fields)
    if table.columns is not None:
        _check_columns(table.columns, columns, str(path))
    wanted = [name for name in table.columns or () if name in {*needed, "id"}]
    reader = _RowReader(table, columns, into)
    for where, row in table.read(wanted):
        _check_columns(tuple(row), columns, where)
        reader.add(row, where)
    if not reader.images:
        raise DataError(f"{path}: holds no images")
    return LabelledImages(reader.root, tuple(reader.images.values()), duplicates=reader.duplicates)


def _check_columns(found: Sequence[str], columns: Columns, where: str) -> None:
    needed = {columns.image: "; name one with --image-column"}
    needed |= {columns.label: "; name one with --label-column"}
    needed |= dict.fromkeys(columns.fields, "")
    missing = next((name for name in needed if name not in found), None)
    if missing is not None:
        raise DataError(
            f"{where}: has no column {missing!r}; its columns are {', '.join(found)}"
            f"{needed[missing]}"
        )


class _RowReader:
    """Rows to labelled images, each once."""

    def __init__(self, table: Table, columns: Columns, into: Path | None) -> None:
        own = images_root(table.path) if table.path.is_file() else table.path
        self.root = columns.root or own
        self.images: dict[str, Labelled] = {}
        self.duplicates = 0
        self._columns = columns
        self._names = table.class_names.get(columns.label)
        self._folder = ImageFolder(self.root)
        self._into = into
        self._embedded: bool | None = None

    def add(self, row: Mapping[str, Any], where: str) -> None:
        values = {
            "image": self._image(row[self._columns.image], where),
            "class_name": self._class_name(row[self._columns.label], where),
            "id": _text(row.get("id")),
            "fields": {name: _text(row[name]) for name in self._columns.fields},
            "where": where,
        }
        labelled: Labelled = parse_line(Labelled, values, where)
        before = self.images.setdefault(labelled.key, labelled)
        if before is labelled:
            return
        if before.id is not None or labelled.id is not None:
            raise DataError(f"{where}: id {labelled.key!r} is also that of {before.where}")
        if before.model_copy(update={"where": where}) != labelled:
            raise DataError(
                f"{where}: image {labelled.image!r} is also in {before.where}, with another class"
                " or text; give the rows ids in a column id"
            )
        self.duplicates += 1

    def _image(self, cell: Any, where: str) -> str:
        """The image's name, of a path, of bytes, or of `datasets`' {bytes, path}."""
        if isinstance(cell, Mapping):
            cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
        embedded = isinstance(cell, bytes)
        if self._embedded is None:
            self._embedded = embedded
            self.root = self._into or self.root if embedded else self.root
        if embedded != self._embedded or not isinstance(cell, bytes | str):
            wanted = "an embedded image" if self._embedded else "a path"
            raise DataError(f"{where}: {self._columns.image}: is not {wanted}")
        if isinstance(cell, bytes):
            return _keep(cell, self._into, f"{where}: {self._columns.image}")
        self._check(cell, where)
        if cell not in self.images:
            self._folder.check_begin(cell, where)
        return cell

    def _check(self, name: str, where: str) -> None:
        try:
            self._folder.check(name, where)
        except DataError:
            try:  # again, to name the flag that can mend it
                image_path(self.root, name, "--image-root")
            except DataError as error:
                raise DataError(f"{where}: {error}") from error

    def _class_name(self, cell: Any, where: str) -> Any:
        if not isinstance(cell, int) or isinstance(cell, bool):
            return cell
        column = f"{where}: {self._columns.label}"
        if self._names is None:
            raise DataError(f"{column}: is the number {cell}, and the file names no classes")
        if not 0 <= cell < len(self._names):
            raise DataError(f"{column}: is {cell}, and there are {len(self._names)} classes")
        return self._names[cell]


def _keep(data: bytes, into: Path | None, where: str) -> str:
    """Write an image under the hash of its bytes, and return its name."""
    try:
        suffix = suffix_of(data)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    name = f"images/{hashlib.sha256(data).hexdigest()}.{suffix}"
    if into is not None and not (into / name).exists():
        (into / "images").mkdir(exist_ok=True)
        (into / name).write_bytes(data)
    return name


def _text(cell: Any) -> Any:
    """A number as its text; what else is no text is refused by the model."""
    return str(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else cell
