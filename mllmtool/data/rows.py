"""A file of samples as rows: checked once, then read by number. Memory holds a few bytes a row."""

import hashlib
import stat
from array import array
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from mllmtool.data.samples import image_path, parse_object, parse_sample
from mllmtool.errors import DataError


@dataclass(frozen=True)
class RowFile:
    """Where each row begins, in bytes, and whether it has images."""

    path: Path
    images: Path
    begins: "array[int]"
    with_images: bytearray
    sha256: str
    changed: int  # when the file was last changed, ns

    def __len__(self) -> int:
        return len(self.begins)

    def line(self, file: BinaryIO, index: int) -> bytes:
        """A row as it is in `file`, the file opened, without the white space around it."""
        file.seek(self.begins[index])
        return file.readline().strip()

    def check_unchanged(self) -> None:
        """Refuse a file that has changed since it was checked.

        Raises:
            DataError: its time of change is another.
        """
        if not self.path.is_file() or self.path.stat().st_mtime_ns != self.changed:
            raise DataError(f"{self.path}: changed while it was read; run again")


def scan(path: Path, images: Path) -> RowFile:
    """Read and check a whole JSONL file of samples whose images lie under `images`.

    Raises:
        DataError: `file:line` and what is wrong there, or the file is missing or empty.
    """
    begins, with_images, digest = array("Q"), bytearray(), hashlib.sha256()
    folder = ImageFolder(images)
    try:
        changed, begin = path.stat().st_mtime_ns, 0
        with path.open("rb") as file:
            for line, text in enumerate(file, start=1):
                digest.update(text)
                if text.strip():
                    names = _image_names(text, f"{path}:{line}", folder)
                    begins.append(begin)
                    with_images.append(bool(names))
                begin += len(text)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not begins:
        raise DataError(f"{path}: holds no samples")
    return RowFile(path, images, begins, with_images, digest.hexdigest(), changed)


def _image_names(text: bytes, where: str, folder: "ImageFolder") -> tuple[str, ...]:
    names = parse_sample(parse_object(text, where), where).images
    for name in names:
        folder.check(name, where)
    return names


class ImageFolder:
    """Checks that images are there and do not lead out of their folder; fast for many."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._is_inside = lru_cache(maxsize=4096)(self._resolves_inside)

    def check(self, name: str, where: str) -> None:
        """Accept an image file under the root, which the line `where` names.

        Raises:
            DataError: it is missing, or its name leads out.
        """
        path = self._root / name
        try:
            regular = stat.S_ISREG(path.lstat().st_mode)
        except (OSError, ValueError):
            regular = False
        if regular and self._is_inside(path.parent):
            return
        try:  # a link, or wrong: the slow way says which
            image_path(self._root, name)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error

    def _resolves_inside(self, folder: Path) -> bool:
        return folder.resolve().is_relative_to(self._root.resolve())
