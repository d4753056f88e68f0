"""The files that rows come in: plain JSON, compressed, Parquet, or a folder of `datasets`.

What is not plain is unpacked to plain JSON lines first, where rows are to be read by number.
Parquet, Arrow and zstd need pyarrow, the extra `parquet`.
"""

import glob
import gzip
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import PydanticSerializationError, to_json

from mllmtool.data.arrow import Arrow, in_columns, pyarrow_for
from mllmtool.data.formats import IMAGE_KEYS
from mllmtool.data.splitting import Layout, layout
from mllmtool.errors import DataError
from mllmtool.reports import file_sha256


def find_files(pattern: str) -> list[Path]:
    """The file or folder of that name, else the files that match it, sorted.

    Raises:
        DataError: none does.
    """
    if os.path.lexists(pattern) or not glob.has_magic(pattern):
        return [Path(pattern)]
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (an absolute pattern too)
    if not found:
        raise DataError(f"{pattern}: no file matches")
    return [Path(name) for name in found]


def open_layout(path: Path, spool: Path) -> Layout:
    """The layout of a file, which is unpacked into the folder `spool` unless it is plain.

    Raises:
        DataError: it cannot be read, or is cut off.
    """
    plain = path
    if in_columns(path) or path.suffix in OPENERS:
        spool.mkdir(exist_ok=True)
        plain = spool / f"{len(list(spool.iterdir()))}.jsonl"
        (_unpack_table if in_columns(path) else _unpack_stream)(path, plain)
    return layout(plain, str(path))


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes; of a folder's files, their names and hashes."""
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in _files_in(path):
        digest.update(f"{file_sha256(file)}  {file.relative_to(path).as_posix()}\n".encode())
    return digest.hexdigest()


def stamp(path: Path) -> tuple[tuple[int, int], ...]:
    """Size and time of the last change of a file, or of a folder's files."""
    files = _files_in(path) if path.is_dir() else [path]
    try:
        return tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def table_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a table in columns, each with its file and its number there.

    Raises:
        DataError: it cannot be read, or embeds images.
    """
    for where, row in Arrow.open(path).rows():
        _check_embedded(row, where)
        yield where, row


def _check_embedded(row: dict[str, Any], where: str) -> None:
    for key in IMAGE_KEYS:
        value = row.get(key)
        for image in value if isinstance(value, list) else [value]:
            found = image.get("bytes") if isinstance(image, dict) else image
            if isinstance(found, bytes):
                raise DataError(
                    f"{where}: {key}: an image is embedded as bytes;"
                    " write it to a file and name that in its place"
                )


def _unpack_table(path: Path, plain: Path) -> None:
    with plain.open("wb") as out:
        for where, row in table_rows(path):
            try:
                out.write(to_json(row) + b"\n")
            except PydanticSerializationError as error:
                raise DataError(f"{where}: is not JSON ({error})") from error


def _unpack_stream(path: Path, plain: Path) -> None:
    with plain.open("wb") as out:
        _copy(path, out)


def _copy(path: Path, out: BinaryIO) -> None:
    try:
        with OPENERS[path.suffix](path) as file:
            shutil.copyfileobj(file, out, 1 << 20)
    except (EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            raise  # of the output: a full disk
        raise DataError(f"{path}: cannot be unpacked: {error}") from error


def _open_gzip(path: Path) -> Any:
    return gzip.open(path)


def _open_zstd(path: Path) -> Any:
    return pyarrow_for(path).CompressedInputStream(str(path), "zstd")


OPENERS = {".gz": _open_gzip, ".zst": _open_zstd}


def _files_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())
