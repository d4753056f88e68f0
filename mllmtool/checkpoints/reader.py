"""A checkpoint directory, one tensor at a time.

It is `config.json` beside `model.safetensors`, or beside shards and `model.safetensors.index.json`.
Opening one reads headers only; a tensor's bytes are read when it is asked for, and pickle never.
"""

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from blake3 import blake3
from safetensors import SafetensorError, safe_open

from mllmtool.checkpoints.dtypes import DTYPES, Array, finite
from mllmtool.errors import CheckpointError, NumericError, some

if TYPE_CHECKING:
    import torch

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
PIECE = 1 << 17  # entries read at once: a few such arrays fit in a processor's cache


@dataclass(frozen=True)
class TensorInfo:
    """What a safetensors header says of a tensor; `dtype` in its words (`F32`, `BF16`)."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many entries."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes on disk."""
        return self.size * DTYPES[self.dtype].stored.itemsize

    @property
    def floating(self) -> bool:
        """Whether it holds weights, not integers or truth values."""
        return DTYPES[self.dtype].floating


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes lie."""

    path: Path
    begin: int  # bytes from the start of the file
    info: TensorInfo


class Checkpoint:
    """A lazily read checkpoint. `names` are the names on disk, sorted."""

    def __init__(self, path: Path, places: dict[str, Place]) -> None:
        self.path = path
        self.names = tuple(sorted(places))
        self.files = {
            name: places[name].path.name for name in self.names
        }  # tensor name -> file name
        self.places = places
        self._hashes: dict[Place, str] = {}  # by place: a tensor may have several names

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a directory and read its headers.

        Raises:
            CheckpointError: it is missing, truncated, pickled or quantised, or index and files
                disagree.
        """
        path = Path(path)
        if not path.is_dir():
            raise CheckpointError(f"{path}: no such checkpoint directory")
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path}: has no config.json; is it a checkpoint?")
        if (path / "adapter_config.json").exists():
            raise CheckpointError(
                f"{path}: has an adapter beside its weights (adapter_config.json);"
                " merge it, or remove the file"
            )
        promised = _promised(path)
        places: dict[str, Place] = {}
        for file in sorted(set(promised.values())) if promised else [SINGLE]:
            found = places_in(path / file)
            if promised:
                _check_promise(path / file, {n for n in promised if promised[n] == file}, found)
            places |= found
        if not places:
            raise CheckpointError(f"{path}: holds no tensors")
        return cls(path, places)

    @property
    def folder(self) -> Path:
        """Where its config, tokenizer and processor lie."""
        return self.path

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`.

        Raises:
            CheckpointError: it is not a JSON object.
        """
        return _json_object(self.path / "config.json")

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape, from the header."""
        return self._place(name).info

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def __getitem__(self, name: str) -> "torch.Tensor":
        """The tensor, on the CPU.

        Raises:
            CheckpointError: it is not there.
            NumericError: it holds NaN or Inf.
        """
        import torch

        info = self.info(name)
        tensor = torch.from_numpy(self.read(name))
        return tensor.view(DTYPES[info.dtype].torch).reshape(info.shape)

    def read(self, name: str, first: int = 0, count: int | None = None) -> Array:
        """`count` stored entries of the flattened tensor from `first` on, all by default.

        They are as numpy holds them: bfloat16 as its bits, see `checkpoints.dtypes`.

        Raises:
            CheckpointError: the tensor is not there, or the file was cut since it was opened.
            NumericError: there is NaN or Inf among them.
        """
        info = self.info(name)
        count = info.size - first if count is None else count
        entries = np.empty(count, DTYPES[info.dtype].stored)
        self._fill(name, first, entries)
        if not finite(entries, info.dtype):
            raise NumericError(f"{name}: holds NaN or Inf in {self.path}")
        return entries

    def pieces(self, name: str, length: int | None = None) -> Iterator[Array]:
        """The stored entries of a tensor in pieces that fit a cache, each in the place of the last.

        Who has seen them all has also hashed them: `blake3` then need not read them again.
        """
        info, length = self.info(name), length or PIECE
        buffer = np.empty(min(length, info.size), DTYPES[info.dtype].stored)
        unseen = None if self._place(name) in self._hashes else blake3()
        for first in range(0, info.size, length):
            entries = buffer[: info.size - first]
            self._fill(name, first, entries)
            if unseen:
                unseen.update(entries.view(np.uint8).data)
            yield entries
        if unseen:
            self._hashes[self._place(name)] = unseen.hexdigest()

    def fingerprint(self) -> str:
        """Hash of all tensors, the same however they are sharded."""
        return self.digest(self.names)

    def digest(self, names: Iterable[str]) -> str:
        """SHA-256 of a list of these tensors: name, dtype, shape and BLAKE3 of the bytes."""
        whole = hashlib.sha256()
        for name in names:
            info = self.info(name)
            whole.update(f"{name} {info.dtype} {info.shape} {self.blake3(name)}\n".encode())
        return whole.hexdigest()

    def blake3(self, name: str) -> str:
        """Hash of a tensor's bytes, as they were first seen."""
        if self._place(name) not in self._hashes:
            deque(self.pieces(name), maxlen=0)
        return self._hashes[self._place(name)]

    def _place(self, name: str) -> Place:
        if name not in self.places:
            raise CheckpointError(f"{name}: is not in {self.path}")
        return self.places[name]

    def _fill(self, name: str, first: int, entries: Array) -> None:
        """Read the stored entries from `first` on."""
        place = self._place(name)
        try:
            complete = _read_into(place.path, place.begin + first * entries.itemsize, entries)
        except OSError as error:
            raise CheckpointError(f"{place.path}: cannot be read: {error}") from error
        if not complete:
            raise CheckpointError(f"{place.path}: was cut while it was read")


def _read_into(path: Path, begin: int, entries: Array) -> bool:
    """Fill the array from this byte of the file on; False when the file ends before."""
    if not entries.size:
        return True
    rest, file = entries.data.cast("B"), os.open(path, os.O_RDONLY)
    try:
        while rest.nbytes and (got := os.preadv(file, [rest], begin)):
            rest, begin = rest[got:], begin + got
    finally:
        os.close(file)
    return not rest.nbytes


def tensor_sha256(tensor: "torch.Tensor") -> str:
    """Hash of a tensor's bytes, row-major."""
    import torch

    if not tensor.numel():
        return hashlib.sha256().hexdigest()
    return hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()


def _promised(path: Path) -> dict[str, str]:
    """Tensor name -> file name of the index; empty when there is one file and no index."""
    single, index = (path / SINGLE).is_file(), (path / INDEX).is_file()
    if single and index:
        raise CheckpointError(
            f"{path}: holds both {SINGLE} and {INDEX}, so which one counts is unclear;"
            " remove the stale one"
        )
    if not single and not index:
        raise CheckpointError(_no_weights(path))
    return _index(path / INDEX) if index else {}


def _check_promise(path: Path, promised: set[str], found: dict[str, Place]) -> None:
    if absent := sorted(promised - set(found)):
        raise CheckpointError(f"{path}: lacks {some(absent)} that {INDEX} promises")
    if extra := sorted(set(found) - promised):
        raise CheckpointError(f"{path}: holds {some(extra)} that {INDEX} does not name")


def places_in(path: Path) -> dict[str, Place]:
    """Where each tensor of a file lies. The library checks the header: size, order, no gaps."""
    try:
        with safe_open(path, framework="np"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing, though {INDEX} names it") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: is not a whole safetensors file ({error}); copy or download it again"
        ) from error
    header.pop("__metadata__", None)
    return {name: _place(path, name, entry, 8 + length) for name, entry in header.items()}


def _place(path: Path, name: str, entry: dict[str, Any], start: int) -> Place:
    if entry["dtype"] not in DTYPES:
        raise CheckpointError(
            f"{name}: dtype {entry['dtype']} in {path} is not one that can be computed with;"
            " convert the checkpoint to BF16, F16 or F32"
        )
    info = TensorInfo(entry["dtype"], tuple(entry["shape"]))
    return Place(path, start + entry["data_offsets"][0], info)


def _index(path: Path) -> dict[str, str]:
    files = _json_object(path).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(f, str) for f in files.values()):
        raise CheckpointError(f"{path}: has no weight_map of tensor names to file names")
    if not files:
        raise CheckpointError(f"{path}: names no tensors")
    for file in sorted(set(files.values())):
        if Path(file).name != file or not file.endswith(".safetensors") or "\0" in file:
            raise CheckpointError(f"{path}: names {file!r}, which is no safetensors file beside it")
    return files


def _json_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: is not readable JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return values


def _no_weights(path: Path) -> str:
    pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if pickles:
        return (
            f"{path}: holds pickled weights only ({some(pickles)}), which can run code when read;"
            " convert them to safetensors"
        )
    return f"{path}: has neither {SINGLE} nor {INDEX}"
