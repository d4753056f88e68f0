"""Write a checkpoint tensor by tensor into files laid out like those of another.

Names, shapes and dtypes are known beforehand: a file's header comes first and entries go to their
place as they are made, so memory holds one tensor or less, whatever the order. `finish` refuses an
incomplete checkpoint. Header: 8 bytes little-endian length, then JSON of name -> dtype, shape,
data_offsets (the safetensors format), laid out as the safetensors library does it.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mllmtool.checkpoints.dtypes import DTYPES, LAYOUT, Array, finite
from mllmtool.checkpoints.hashing import GrowingHash
from mllmtool.checkpoints.reader import INDEX, PICKLES, SINGLE, Checkpoint, TensorInfo
from mllmtool.errors import MismatchError, NumericError, some

if TYPE_CHECKING:
    import torch

# Weights in any form, what would make a loader look for weights that are not there, and reports.
SHARD = "model-{:05d}-of-{:05d}.safetensors"
TOKENIZER = "tokenizer_config.json"
NOT_SIDECARS = (
    *(*PICKLES, "*.safetensors", "*.index.json", "*.h5", "*.msgpack", "*.gguf", "*.npz"),
    *("*.onnx", "*.onnx_data", "adapter_config.json", "report.json"),
)


@dataclass
class _Place:
    path: Path
    begin: int  # bytes from the start of the file
    info: TensorInfo
    written: int = 0  # entries


class CheckpointWriter:
    """Writes tensors with the names, shapes and dtypes of `like` into the directory `into`.

    `files`: the file of each tensor; by default as in `like`.
    """

    def __init__(
        self, into: Path, like: Checkpoint, files: Mapping[str, str] | None = None
    ) -> None:
        self.into = into
        self.files = like.files if files is None else files
        self._places: dict[str, _Place] = {}
        self._unwritten = set(like.names)
        self._hashes: dict[str, GrowingHash] = {}
        for file in sorted(set(self.files.values())):
            infos = {name: like.info(name) for name in like.names if self.files[name] == file}
            self._places |= _reserve(into / file, infos)

    def add(self, name: str, tensor: "torch.Tensor") -> None:
        """Write one tensor, cast to its dtype on disk.

        Raises:
            MismatchError: its name is not expected or its shape is another.
            NumericError: it holds NaN or Inf after the cast.
        """
        info = self._expected(name).info
        if tuple(tensor.shape) != info.shape:
            raise MismatchError(f"{name}: shape {tuple(tensor.shape)}, expected {info.shape}")
        dtype = DTYPES[info.dtype]
        entries = tensor.detach().to("cpu", dtype.torch).contiguous().view(-1)
        if info.dtype == "BF16":
            entries = entries.view(DTYPES["U16"].torch)
        self.write(name, entries.numpy())

    def write(self, name: str, entries: Array) -> None:
        """Write the next stored entries of the flattened tensor, as `Checkpoint.read` gives them.

        Raises:
            MismatchError: the name is not expected, or the entries are too many.
            NumericError: there is NaN or Inf among them.
        """
        place = self._expected(name)
        if place.written + entries.size > place.info.size:
            raise MismatchError(f"{name}: more entries than its shape {place.info.shape} holds")
        if not finite(entries, place.info.dtype):
            raise NumericError(f"{name}: became NaN or Inf as {place.info.dtype}")
        begin = place.begin + place.written * entries.itemsize
        _write_all(place.path, begin, entries)
        place.written += entries.size
        if place.written == place.info.size:
            self._unwritten.discard(name)
        if hashed := self._hashes.get(self.files[name]):
            hashed.saw(begin, entries)
            if place.written == place.info.size:
                hashed.advance(name)

    def keep(self, name: str) -> None:
        """Take a tensor as it lies in the file already, from a run that was killed.

        Raises:
            MismatchError: the name is not expected.
        """
        place = self._expected(name)
        place.written = place.info.size
        self._unwritten.discard(name)
        if hashed := self._hashes.get(self.files[name]):
            hashed.advance(name)

    def copy(self, name: str, source: Checkpoint) -> None:
        """Write a tensor as it is in `source`, byte for byte.

        Raises:
            NumericError: it holds NaN or Inf.
        """
        for piece in source.pieces(name):
            if not finite(piece, source.info(name).dtype):
                raise NumericError(f"{name}: holds NaN or Inf in {source.path}")
            self.write(name, piece)

    def finish(self) -> None:
        """Write the index, if there are shards.

        Raises:
            MismatchError: tensors are missing.
        """
        missing = sorted(name for name in self._unwritten if self._places[name].info.size)
        if missing:
            raise MismatchError(f"{self.into}: not written: {some(missing)}")
        if set(self.files.values()) != {SINGLE}:
            size = sum(place.info.num_bytes for place in self._places.values())
            index = {
                "metadata": {"total_size": size},
                "weight_map": dict(sorted(self.files.items())),
            }
            text = json.dumps(index, indent=2) + "\n"
            (self.into / INDEX).write_text(text, encoding="utf-8")

    @property
    def layout(self) -> tuple[str, ...]:
        """All names, as they lie in the files."""
        return tuple(self._places)

    def hashes(self) -> dict[str, GrowingHash]:
        """For each file, its hash, which grows from now on as tensors are written to it."""
        ends: dict[str, dict[str, int]] = {file: {} for file in self.files.values()}
        begins: dict[str, int] = {}
        for name, place in self._places.items():
            begins.setdefault(self.files[name], place.begin)
            ends[self.files[name]][name] = place.begin + place.info.num_bytes
        for file, begin in begins.items():
            self._hashes[file] = GrowingHash(self.into / file, begin, ends[file])
        return self._hashes

    def _expected(self, name: str) -> _Place:
        if name not in self._unwritten:
            raise MismatchError(f"{name}: is not a tensor that is still to be written")
        return self._places[name]


def sharded(like: Checkpoint, shard_bytes: int) -> dict[str, str]:
    """A file for each tensor, in their order, so that none is larger unless one tensor is.

    Files are named as transformers does it.
    """
    numbers, filled = {}, 0
    number = 1
    for name in like.names:
        size = like.info(name).num_bytes
        if filled and filled + size > shard_bytes:
            number, filled = number + 1, 0
        numbers[name], filled = number, filled + size
    if number == 1:
        return dict.fromkeys(numbers, SINGLE)
    return {name: SHARD.format(of, number) for name, of in numbers.items()}


def copy_sidecars(source: Path, into: Path) -> None:
    """Copy config, tokenizer, processor, chat template, licence: every file that is no weight.

    Of folders, those of a further tokenizer, such as InstructBLIP's.
    """
    further = [
        p for p in sorted(source.iterdir()) if not p.is_symlink() and (p / TOKENIZER).is_file()
    ]
    for folder in (source, *further):
        (into / folder.relative_to(source)).mkdir(exist_ok=True)
        for path in sorted(folder.iterdir()):
            if path.is_file() and not any(path.match(pattern) for pattern in NOT_SIDECARS):
                shutil.copyfile(path, into / path.relative_to(source))


def _reserve(path: Path, infos: dict[str, TensorInfo]) -> dict[str, _Place]:
    """Write a file's header, give it its full length, and say where each tensor goes.

    What lies in the file already stays.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begins, end = {}, 0
    for name in sorted(infos, key=lambda name: (LAYOUT[infos[name].dtype], name)):
        info = infos[name]
        begins[name], end = end, end + info.num_bytes
        offsets = [begins[name], end]
        header[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(start + end)
    return {name: _Place(path, start + begin, infos[name]) for name, begin in begins.items()}


def _write_all(path: Path, begin: int, entries: Array) -> None:
    if not entries.size:
        return
    rest, file = np.ascontiguousarray(entries).data.cast("B"), os.open(path, os.O_WRONLY)
    try:
        while rest.nbytes:
            done = os.pwrite(file, rest, begin)
            rest, begin = rest[done:], begin + done
    finally:
        os.close(file)
