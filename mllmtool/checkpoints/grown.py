"""A base read with the vocabulary rows that a tuned checkpoint adds to it."""

from pathlib import Path
from typing import Any

from mllmtool.checkpoints.dtypes import Array
from mllmtool.checkpoints.naming import EMBEDDINGS, HEAD, by_canonical
from mllmtool.checkpoints.reader import Checkpoint, TensorInfo


class GrownBase(Checkpoint):
    """The base, but rows `first` and on of embeddings and head are the tuned checkpoint's.

    So are the config and the tokenizer, which go with them. The fingerprint stays the base's.
    """

    def __init__(self, base: Checkpoint, tuned: Checkpoint, first: int) -> None:
        super().__init__(base.path, base.places)
        self.base, self.tuned, self.first = base, tuned, first
        names = by_canonical(base.names, base.path)
        self._rows = {
            names[key]
            for key in (EMBEDDINGS, HEAD)
            if key in names and names[key] in tuned and _fits(base, tuned, names[key])
        }

    @property
    def folder(self) -> Path:
        """The tuned checkpoint's."""
        return self.tuned.folder

    @property
    def config(self) -> dict[str, Any]:
        """The tuned checkpoint's `config.json`."""
        return self.tuned.config

    def info(self, name: str) -> TensorInfo:
        """As in the base, with the tuned checkpoint's rows."""
        info = super().info(name)
        return TensorInfo(info.dtype, self.tuned.info(name).shape) if name in self._rows else info

    def fingerprint(self) -> str:
        """The base's."""
        return self.base.fingerprint()

    def _fill(self, name: str, first: int, entries: Array) -> None:
        if name not in self._rows:
            return super()._fill(name, first, entries)
        split = self.first * self.info(name).shape[1] - first
        ours = min(max(0, split), entries.size)
        super()._fill(name, first, entries[:ours])
        entries[ours:] = self.tuned.read(name, first + ours, entries.size - ours)
        return None


def _fits(base: Checkpoint, tuned: Checkpoint, name: str) -> bool:
    """Whether a matrix has the base's columns and dtype, and no fewer rows."""
    ours, theirs = base.info(name), tuned.info(name)
    if len(ours.shape) != 2 or len(theirs.shape) != 2 or ours.dtype != theirs.dtype:
        return False
    return ours.shape[1] == theirs.shape[1] and ours.shape[0] <= theirs.shape[0]
