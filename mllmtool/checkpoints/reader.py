"""A checkpoint directory, one tensor at a time.

It is `config.json` beside `model.safetensors`, or beside shards and `model.safetensors.index.json`.
Opening one reads headers only; a tensor's bytes are read when it is asked for, and pickle never.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open

from mllmtool.errors import CheckpointError, NumericError, some

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class TensorInfo:
    """What a safetensors header says of a tensor; `dtype` in its words (`F32`, `BF16`)."""

    dtype: str
    shape: tuple[int, ...]


class Checkpoint:
    """A lazily read checkpoint. `names` are the names on disk, sorted."""

    def __init__(self, path: Path, files: dict[str, str]) -> None:
        self.path = path
        self.files = files  # tensor name -> file name
        self.names = tuple(sorted(files))
        self._open: dict[str, Any] = {}

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a directory and read its headers.

        Raises:
            CheckpointError: it is missing, truncated, pickled, or index and files disagree.
        """
        path = Path(path)
        if not path.is_dir():
            raise CheckpointError(f"{path}: no such checkpoint directory")
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path}: has no config.json; is it a checkpoint?")
        if (path / INDEX).is_file():
            files = _index(path / INDEX)
        elif (path / SINGLE).is_file():
            files = dict.fromkeys(_keys(path / SINGLE), SINGLE)
        else:
            raise CheckpointError(_no_weights(path))
        checkpoint = cls(path, files)
        for name in sorted(set(files.values())):
            there = set(_keys(path / name))
            absent = sorted(t for t, file in files.items() if file == name and t not in there)
            if absent:
                raise CheckpointError(f"{path / name}: lacks {some(absent)} that {INDEX} promises")
        return checkpoint

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`.

        Raises:
            CheckpointError: it is not a JSON object.
        """
        return _json_object(self.path / "config.json")

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape, from the header."""
        view = self._file(name).get_slice(name)
        return TensorInfo(view.get_dtype(), tuple(view.get_shape()))

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def __getitem__(self, name: str) -> torch.Tensor:
        """The tensor, on the CPU.

        Raises:
            CheckpointError: it is not there.
            NumericError: it holds NaN or Inf.
        """
        tensor: torch.Tensor = self._file(name).get_tensor(name)
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise NumericError(f"{name}: holds NaN or Inf in {self.path}")
        return tensor

    def fingerprint(self) -> str:
        """Hash of all tensors, the same however they are sharded."""
        whole = hashlib.sha256()
        for name in self.names:
            info, part = self.info(name), tensor_sha256(self._file(name).get_tensor(name))
            whole.update(f"{name} {info.dtype} {info.shape} {part}\n".encode())
        return whole.hexdigest()

    def _file(self, name: str) -> Any:
        if name not in self.files:
            raise CheckpointError(f"{name}: is not in {self.path}")
        file = self.files[name]
        if file not in self._open:
            self._open[file] = _safe_open(self.path / file)
        return self._open[file]


def tensor_sha256(tensor: torch.Tensor) -> str:
    """Hash of a tensor's bytes."""
    if not tensor.numel():
        return hashlib.sha256().hexdigest()
    return hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()


def _safe_open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing, though {INDEX} names it") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: is not a whole safetensors file ({error}); copy or download it again"
        ) from error


def _keys(path: Path) -> list[str]:
    return list(_safe_open(path).keys())


def _index(path: Path) -> dict[str, str]:
    files = _json_object(path).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(f, str) for f in files.values()):
        raise CheckpointError(f"{path}: has no weight_map of tensor names to file names")
    for file in set(files.values()):
        if Path(file).name != file:
            raise CheckpointError(f"{path}: names {file!r}, which is not a file beside it")
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
