"""A base with a sparse patch on it, read like a checkpoint."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mllmtool.checkpoints import Checkpoint, TensorInfo
from mllmtool.checkpoints.dtypes import DTYPES, Array
from mllmtool.reports import file_sha256


class PatchedBase:
    """What `patch apply` would write, one tensor at a time; `path` is the patch file's."""

    def __init__(self, base: Checkpoint, path: str | Path) -> None:
        """Open the patch and check that it is of this base.

        Raises:
            CheckpointError: it is no patch, or not whole.
            MismatchError: it was made for another base.
        """
        from mllmtool.checkpoints import Patch

        self.patch = Patch.open(path)
        self.patch.check_base(base)
        self.path = self.patch.path
        self._base = base

    def info(self, name: str) -> TensorInfo:
        """As in the base."""
        return self._base.info(name)

    def pieces(self, name: str, length: int) -> Iterator[Array]:
        """As of a checkpoint; memory holds the tensor's mask and values besides."""
        if name not in self.patch:
            yield from self._base.pieces(name, length)
            return
        values = self.patch.values(name)
        if self._base.info(name).dtype == "BF16":
            values = values.view(DTYPES["U16"].torch)
        mask, rest, first = self.patch.mask(name).numpy().ravel(), values.numpy(), 0
        for entries in self._base.pieces(name, length):
            replaced = mask[first : first + entries.size]
            count = int(np.count_nonzero(replaced))
            entries[replaced], rest = rest[:count], rest[count:]
            first += entries.size
            yield entries

    def blake3(self, name: str) -> str:
        """Hash of an unpatched tensor's bytes."""
        return self._base.blake3(name)

    def fingerprint(self) -> str:
        """Hash of the patch file."""
        return file_sha256(self.path)
