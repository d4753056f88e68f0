"""A base with a sparse patch on it, read like a checkpoint."""

from functools import lru_cache
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
        self._patched = lru_cache(maxsize=1)(self._apply)

    def info(self, name: str) -> TensorInfo:
        """As in the base."""
        return self._base.info(name)

    def read(self, name: str, first: int = 0, count: int | None = None) -> Array:
        """As `Checkpoint.read`."""
        if name not in self.patch:
            return self._base.read(name, first, count)
        return self._patched(name)[first : None if count is None else first + count]

    def sha256(self, name: str) -> str:
        """Hash of an unpatched tensor's bytes."""
        return self._base.sha256(name)

    def fingerprint(self) -> str:
        """Hash of the patch file."""
        return file_sha256(self.path)

    def _apply(self, name: str) -> Array:
        entries = self._base.read(name)
        values = self.patch.values(name)
        if self._base.info(name).dtype == "BF16":
            values = values.view(DTYPES["U16"].torch)
        entries[np.flatnonzero(self.patch.mask(name).numpy())] = values.numpy()
        return entries
