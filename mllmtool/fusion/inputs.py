"""What a fusion reads: aligned checkpoints, in stretches of one tensor that fit a cache."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mllmtool.checkpoints import Checkpoint
from mllmtool.checkpoints.dtypes import Array, widen, working_dtype
from mllmtool.checkpoints.reader import PIECE
from mllmtool.context import Context
from mllmtool.fusion.patched import PatchedBase

HEAP_BYTES = 1 << 24
Tuned = Checkpoint | PatchedBase


@dataclass(frozen=True)
class Piece:
    """Entries `first` to `first + n` of one flattened tensor, float32 or float64."""

    tensor: str
    first: int
    base: Array  # (n,)
    tuned: tuple[Array, ...]  # one a model, (n,) each

    @cached_property
    def task_vectors(self) -> tuple[Array, ...]:
        r"""$\tau_t = \theta_t - \theta_0$, one a model, (n,) each. Ilharco et al. 2023."""
        return tuple(tuned - self.base for tuned in self.tuned)


@dataclass(frozen=True)
class Inputs:
    """The base, the tuned models, and `names`: the tensors to be fused."""

    base: Checkpoint
    models: tuple[Tuned, ...]
    names: tuple[str, ...]
    context: Context

    def __post_init__(self) -> None:
        # glibc hands large blocks back to the system when they are freed, and every piece would
        # fault its pages in again, until one of this size was freed: then it keeps them.
        np.empty(HEAP_BYTES, np.uint8)

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """One a model; they tell the models apart whatever their order."""
        return tuple(model.fingerprint() for model in self.models)

    @property
    def num_entries(self) -> int:
        """Entries of all tensors to be fused, in one model."""
        return sum(self.base.info(name).size for name in self.names)

    def pieces(self, name: str) -> Iterator[Piece]:
        """One tensor, in order.

        Raises:
            NumericError: a checkpoint holds NaN or Inf there.
        """
        sources = (self.base, *self.models)
        dtypes = [source.info(name).dtype for source in sources]
        working, size = working_dtype(dtypes), self.base.info(name).size
        for first in range(0, size, PIECE):
            count = min(PIECE, size - first)
            base, *tuned = (
                widen(source.read(name, first, count), dtype, working)
                for source, dtype in zip(sources, dtypes, strict=True)
            )
            yield Piece(name, first, base, tuple(tuned))

    def sweep(self, label: str) -> Iterator[Piece]:
        """All tensors, with progress under `label`."""
        for name in self.context.track(self.names, label):
            yield from self.pieces(name)
