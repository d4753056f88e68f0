"""Embeddings on disk, found by the content that they are of.

A folder of shards, each written once and by one rename, so that several runs may share it and an
interrupted one loses little. What is in a shard is keyed by SHA-256.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from mllmtool.errors import DataError, OutputError

Vectors = NDArray[np.float32]


@dataclass
class EmbeddingCache:
    """The embeddings of one checkpoint in `folder`, which is made when the first are added.

    `added` counts what was added since it was opened.
    """

    folder: Path
    added: int = 0
    _places: dict[bytes, tuple[Path, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for shard in sorted(self.folder.glob("*.safetensors")):
            self._index(shard, self._load(shard)["keys"])

    def missing(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those that are not here, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if key not in self._places]

    def add(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Keep vectors of shape (keys, width).

        Raises:
            OutputError: the folder cannot be written.
        """
        packed = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)
        data = save({"keys": packed, "vectors": vectors})
        shard = self.folder / f"{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
        part = shard.with_suffix(f".{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(data)
                part.replace(shard)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{shard}: cannot be written: {error}; name a --cache") from error
        self._index(shard, packed)
        self.added += len(keys)

    def walk(self, keys: Sequence[bytes]) -> Iterator[tuple[list[int], Vectors]]:
        """Numbers of keys with their vectors, shard by shard; every key must be here."""
        shards: dict[Path, list[int]] = {}
        for number, key in enumerate(keys):
            shards.setdefault(self._places[key][0], []).append(number)
        for shard, numbers in shards.items():
            vectors = self._load(shard)["vectors"]
            yield numbers, vectors[[self._places[keys[number]][1] for number in numbers]]

    def stack(self, keys: Sequence[bytes]) -> Vectors:
        """Vectors of shape (keys, width); every key must be here."""
        found = {
            n: row
            for numbers, rows in self.walk(keys)
            for n, row in zip(numbers, rows, strict=True)
        }
        return np.stack([found[number] for number in range(len(keys))])

    def _index(self, shard: Path, keys: NDArray[np.uint8]) -> None:
        for row, key in enumerate(keys):
            self._places.setdefault(key.tobytes(), (shard, row))

    def _load(self, shard: Path) -> dict[str, NDArray[Any]]:
        try:
            arrays: dict[str, NDArray[Any]] = load_file(shard)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{shard}: is not a shard of embeddings ({error}); remove it"
            ) from error
        keys, vectors = (arrays.get(name, np.empty(0)) for name in ("keys", "vectors"))
        whole = keys.ndim == vectors.ndim == 2 and len(keys) == len(vectors)
        if not whole or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
            raise DataError(f"{shard}: is not a shard of embeddings; remove it")
        return arrays
