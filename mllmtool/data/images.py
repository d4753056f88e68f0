"""Image files that rows name: they are there, inside their folder, and pictures."""

import hashlib
import os
import stat
import struct
import warnings
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from mllmtool.data.samples import image_path
from mllmtool.errors import DataError

NAMES = 300_000  # held at once; a hundred bytes each
OFTEN = 200
SIGNATURES = {
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "jpg",
    b"GIF8": "gif",
    b"RIFF": "webp",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
}


def suffix_of(data: bytes) -> str:
    """The kind of picture that begins with these bytes.

    Raises:
        DataError: none that is known, without the place.
    """
    suffix = next((s for magic, s in SIGNATURES.items() if data.startswith(magic)), None)
    if suffix is None:
        raise DataError("holds no PNG, JPEG, GIF, WebP, BMP or TIFF")
    return suffix


class ImageFolder:
    """Checks that images are there and do not lead out of their folder; fast for many.

    A folder that is asked for often is listed once, as long as it and the names held are few.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prefix = f"{root}/"
        self._inside: dict[str, bool] = {}
        self._asked = Counter[str]()
        self._known: set[str] = set()

    def check(self, name: str, where: str) -> None:
        """Accept an image file under the root, which the line `where` names.

        Raises:
            DataError: it is missing, or its name leads out.
        """
        try:
            self.find(name)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error

    def find(self, name: str) -> None:
        """Accept an image file under the root.

        Raises:
            DataError: it is missing, or its name leads out.
        """
        if name not in self._known:
            self.num_bytes(name)
            folder, _, _ = name.rpartition("/")
            self._asked[folder] += 1
            if self._asked[folder] == OFTEN:
                self._list(folder)

    def holds(self, names: Iterable[str]) -> bool:
        """Whether `find` accepts them all."""
        try:
            for name in set(names) - self._known:
                self.find(name)
        except DataError:
            return False
        return True

    def num_bytes(self, name: str) -> int:
        """The size of an image file under the root.

        Raises:
            DataError: it is missing, or its name leads out.
        """
        folder, _, _ = name.rpartition("/")
        try:
            found = os.lstat(self._prefix + name)
            if stat.S_ISREG(found.st_mode) and name[:1] != "/" and self._is_inside(folder):
                return found.st_size
        except (OSError, ValueError):
            pass
        return image_path(self.root, name).stat().st_size  # a link, or wrong: this says which

    def _is_inside(self, folder: str) -> bool:
        if (known := self._inside.get(folder)) is None:
            known = (self.root / folder).resolve().is_relative_to(self.root.resolve())
            self._inside[folder] = known
        return known

    def _list(self, folder: str) -> None:
        """Know the regular files of a folder inside the root, unless there are too many."""
        if not self._is_inside(folder):
            return
        room, start = NAMES - len(self._known), f"{folder}/" if folder else ""
        with os.scandir(self.root / folder) as entries:
            files = (entry.name for entry in entries if entry.is_file(follow_symlinks=False))
            names = {start + file for file in islice(files, room + 1)}
        if len(names) <= room:
            self._known |= names

    def sha256(self, name: str) -> bytes:
        """Hash of an image file's bytes."""
        try:
            with (self.root / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise DataError(f"{self.root / name}: cannot be read: {error}") from error

    def check_begin(self, name: str, where: str = "") -> None:
        """Accept a file that begins as a picture does; `where` is the line that names it.

        Raises:
            DataError: it does not, or cannot be read.
        """
        place = f"{where}: {self.root / name}" if where else str(self.root / name)
        try:
            with (self.root / name).open("rb") as file:
                suffix_of(file.read(max(map(len, SIGNATURES))))
        except OSError as error:
            raise DataError(f"{place}: cannot be read: {error.strerror}") from error
        except DataError as error:
            raise DataError(f"{place}: {error}") from error

    def decode(self, name: str) -> None:
        """Accept a picture.

        Raises:
            DataError: it is not one.
        """
        from PIL import Image

        bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
        broken = (OSError, ValueError, SyntaxError, struct.error, *bombs)
        try:
            with warnings.catch_warnings():  # of odd metadata
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(self.root / name) as image:
                    image.load()
        except broken as error:
            raise DataError(f"{self.root / name}: is not a readable image: {error}") from error
