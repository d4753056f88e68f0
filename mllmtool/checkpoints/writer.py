"""Write a checkpoint tensor by tensor into files laid out like those of another.

Names, shapes and dtypes are known beforehand: a file's header comes first and a tensor goes to its
place as it is made, so memory holds one tensor, whatever the order. `finish` refuses an incomplete
checkpoint. Header: 8 bytes little-endian length, then JSON of name -> dtype, shape, data_offsets
(the safetensors format).
"""

import json
import math
import shutil
from pathlib import Path

import torch

from mllmtool.checkpoints.reader import INDEX, PICKLES, SINGLE, Checkpoint, TensorInfo
from mllmtool.errors import MismatchError, NumericError, some

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NOT_SIDECARS = (*PICKLES, "*.safetensors", "*.safetensors.index.json", "report.json", "*.h5")


class CheckpointWriter:
    """Writes tensors with the names, shapes and dtypes of `like` into the directory `into`."""

    def __init__(self, into: Path, like: Checkpoint) -> None:
        self.into = into
        self.infos = {name: like.info(name) for name in like.names}
        self.files = like.files
        self._places: dict[str, tuple[Path, int]] = {}
        self._missing = set(like.names)
        for file in sorted(set(like.files.values())):
            self._reserve(file, [name for name in like.names if like.files[name] == file])

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor, cast to its dtype on disk.

        Raises:
            MismatchError: its name is not expected or its shape is another.
            NumericError: it holds NaN or Inf after the cast.
        """
        if name not in self._missing:
            raise MismatchError(f"{name}: is not a tensor that is still to be written")
        info = self.infos[name]
        if tuple(tensor.shape) != info.shape:
            raise MismatchError(f"{name}: shape {tuple(tensor.shape)}, expected {info.shape}")
        stored = tensor.detach().to("cpu", _dtype(name, info)).contiguous()
        if stored.is_floating_point() and not torch.isfinite(stored).all():
            raise NumericError(f"{name}: became NaN or Inf as {info.dtype}")
        path, offset = self._places[name]
        with path.open("r+b") as file:
            file.seek(offset)
            if stored.numel():
                file.write(stored.view(-1).view(torch.uint8).numpy().data)
        self._missing.discard(name)

    def finish(self) -> None:
        """Write the index, if there are shards.

        Raises:
            MismatchError: tensors are missing.
        """
        if self._missing:
            raise MismatchError(f"{self.into}: not written: {some(sorted(self._missing))}")
        if set(self.files.values()) != {SINGLE}:
            sizes = (_num_bytes(name, info) for name, info in self.infos.items())
            index = {
                "metadata": {"total_size": sum(sizes)},
                "weight_map": dict(sorted(self.files.items())),
            }
            text = json.dumps(index, indent=2) + "\n"
            (self.into / INDEX).write_text(text, encoding="utf-8")

    def _reserve(self, file: str, names: list[str]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        # safetensors wants the wider dtypes first, so that every tensor is aligned
        for name in sorted(names, key=lambda n: (-_dtype(n, self.infos[n]).itemsize, n)):
            info = self.infos[name]
            begin, end = end, end + _num_bytes(name, info)
            header[name] = {
                "dtype": info.dtype,
                "shape": list(info.shape),
                "data_offsets": [begin, end],
            }
            self._places[name] = (self.into / file, begin)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        start = 8 + len(text)
        for name in names:
            path, begin = self._places[name]
            self._places[name] = (path, start + begin)
        with (self.into / file).open("wb") as opened:
            opened.write(len(text).to_bytes(8, "little") + text)
            opened.truncate(start + end)


def copy_sidecars(source: Path, into: Path) -> None:
    """Copy config, tokenizer, processor, chat template, licence: every file that is no weight."""
    for path in sorted(source.iterdir()):
        if path.is_file() and not any(path.match(pattern) for pattern in NOT_SIDECARS):
            shutil.copyfile(path, into / path.name)


def _dtype(name: str, info: TensorInfo) -> torch.dtype:
    if info.dtype not in DTYPES:
        raise MismatchError(f"{name}: dtype {info.dtype} cannot be written; convert the checkpoint")
    return DTYPES[info.dtype]


def _num_bytes(name: str, info: TensorInfo) -> int:
    return math.prod(info.shape) * _dtype(name, info).itemsize
