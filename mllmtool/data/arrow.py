"""Parquet files, and folders that `datasets` saved, by pyarrow alone: neither needs `datasets`.

Files come in the order of their names, or of `state.json`. The names of classes are what
`datasets` wrote into the schema, or into `dataset_info.json` beside the files.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mllmtool.errors import ConfigError, DataError, some

STATE, SPLITS, INFO = "state.json", "dataset_dict.json", "dataset_info.json"
SUFFIXES = (".parquet", ".arrow")
BATCH = 128  # rows in memory at once, with their pictures


@dataclass(frozen=True)
class Arrow:
    """The files of a table and its columns."""

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    class_names: dict[str, tuple[str, ...]]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the schemas.

        Raises:
            ConfigError: pyarrow is not installed.
            DataError: a file is missing or broken, files differ, or there are several splits.
        """
        files = _files(path)
        schemas = [_schema(file) for file in files]
        for file, schema in zip(files, schemas, strict=True):
            if schema.names != schemas[0].names:
                raise DataError(
                    f"{file}: has columns {some(schema.names)}, and {files[0]} has"
                    f" {some(schemas[0].names)}"
                )
        features = _features(schemas[0].metadata or {}, path / INFO)
        return cls(tuple(files), tuple(schemas[0].names), _class_names(features))

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Rows of these columns, or of all, each with its file and its number there, from 0 on."""
        columns = self.columns if columns is None else columns
        for file in self.files:
            number = 0
            for batch in _batches(file, columns):
                for row in batch.to_pylist():
                    yield f"{file} (row {number})", row
                    number += 1


def in_columns(path: Path) -> bool:
    """Whether rows lie in columns: Parquet, Arrow, or a folder."""
    return path.suffix.lower() in SUFFIXES or path.is_dir()


def pyarrow_for(path: Path) -> Any:
    """The library that a file needs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{path}: needs pyarrow; pip install 'mllmtool[parquet]'") from error
    return pyarrow


def is_arrow_folder(path: Path) -> bool:
    """Whether it was saved by `datasets`, or holds Parquet files."""
    return any((path / name).is_file() for name in (STATE, SPLITS)) or any(path.glob("*.parquet"))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / STATE).is_file():
        return _state_files(path)
    if folders := sorted(state.parent.name for state in path.glob(f"*/{STATE}")):
        raise DataError(f"{path}: holds the splits {some(folders)}; name the folder of one")
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise DataError(f"{path}: is a folder without {STATE} of `datasets` or Parquet files")
    splits = sorted({file.name.split("-")[0] for file in files if "-of-" in file.name})
    if len(splits) > 1:
        raise DataError(f"{path}: holds the splits {some(splits)}; name a file, or a folder of one")
    return files


def _state_files(path: Path) -> list[Path]:
    listed = _json(path / STATE).get("_data_files")
    entries = listed if isinstance(listed, list) else []
    names: list[Any] = [entry.get("filename") for entry in entries if isinstance(entry, dict)]
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise DataError(f"{path / STATE}: names no data files beside it")
    return [path / name for name in names]


def _schema(path: Path) -> Any:
    with _reading(path) as pyarrow:
        if path.suffix.lower() == ".parquet":
            return pyarrow.parquet.read_schema(path)
        with pyarrow.memory_map(str(path)) as source:
            return pyarrow.ipc.open_stream(source).schema


def _batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    with _reading(path) as pyarrow:
        if path.suffix.lower() == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(BATCH, columns=list(columns))
        else:
            with pyarrow.memory_map(str(path)) as source:
                for batch in pyarrow.ipc.open_stream(source):
                    wanted = batch.select(list(columns))
                    yield from (wanted[at : at + BATCH] for at in range(0, len(wanted), BATCH))


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Pyarrow, whose failures are said of `path`."""
    pyarrow = pyarrow_for(path)
    try:
        yield pyarrow
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read: {reason}") from error


def _features(metadata: Mapping[bytes, bytes], info: Path) -> Any:
    """What `datasets` says of each column, from the schema's metadata or the file beside it."""
    try:
        return json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return _json(info).get("features") if info.is_file() else None


def _class_names(features: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(features, dict):
        return {}
    named = {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and isinstance(feature.get("names"), list)
    }
    return {column: tuple(map(str, names)) for column, names in named.items()}


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: is not a JSON object")
    return values
