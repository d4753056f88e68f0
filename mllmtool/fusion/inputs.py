"""What a fusion reads: aligned models, in pieces of one tensor."""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from mllmtool.checkpoints import Checkpoint, TensorInfo
from mllmtool.checkpoints.dtypes import Array, finite, widen, working_dtype
from mllmtool.checkpoints.reader import PIECE
from mllmtool.checkpoints.workers import in_order
from mllmtool.context import Context
from mllmtool.errors import NumericError
from mllmtool.fusion.settings import Settings
from mllmtool.fusion.statistics import Moments

HEAP_BYTES = 1 << 24
R = TypeVar("R")
LOOKUP = re.compile(r"embed|lm_head|shared\.weight$")  # rows stand for tokens or places
Unit = Literal["entries", "rows", "matrix", "tensor"]


class Source(Protocol):
    """A tuned model that is read under the names and shapes of its base."""

    @property
    def path(self) -> Path:
        """The directory or file that it was opened from."""

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape of what `pieces` gives."""

    def pieces(self, name: str, length: int) -> Iterator[Array]:
        """The stored entries of a flattened tensor, in order, `length` at a time.

        Each piece lies where the last lay.
        """

    def blake3(self, name: str) -> str:
        """Hash of a tensor."""

    def fingerprint(self) -> str:
        """Hash of the model."""


class Stored(NamedTuple):
    """Entries as on disk, and the dtype that they have there."""

    entries: Array
    dtype: str


@dataclass(frozen=True)
class Piece:
    """Entries `first` to `first + n` of one flattened tensor, to be used before the next is read.

    `shape` is the whole tensor's. A method of unit `rows` gets whole rows, `columns` entries each;
    one of unit `matrix` the whole of each matrix (`is_matrix`), and entries of the others; one of
    unit `tensor` the whole of each. Numbers are float32 or float64, and are made of what is stored
    when they are asked for, so that as few arrays as can be are in the processor's cache.
    """

    tensor: str
    shape: tuple[int, ...]
    first: int
    settings: Settings
    working: type[np.floating[Any]]
    stored: tuple[Stored, ...]  # of the base and of each model
    statistics: tuple[Stored, ...]

    @property
    def columns(self) -> int:
        """Entries in a row: all axes but the first; a vector is one row."""
        return columns(self.shape)

    @cached_property
    def base(self) -> Array:
        r"""$\theta_0$, (n,)."""
        return widen(*self.stored[0], self.working)

    @property
    def tuned(self) -> tuple[Array, ...]:
        r"""$\theta_t$, one a model, (n,) each."""
        return tuple(widen(*each, self.working) for each in self.stored[1:])

    @cached_property
    def task_vectors(self) -> tuple[Array, ...]:
        r"""$\tau_t = \theta_t - \theta_0$, one a model, (n,) each. Ilharco et al. 2023."""
        return tuple(widen(*each, self.working) - self.base for each in self.stored[1:])

    @property
    def diagonals(self) -> tuple[Array, ...]:
        """Of Fisher information, one a model, (n,) each."""
        return tuple(widen(*each, self.working) for each in self.statistics)

    def under(self, settings: Settings) -> "Piece":
        """The same entries, with other settings."""
        if settings == self.settings:
            return self
        other = copy(self)
        object.__setattr__(other, "settings", settings)
        return other


@dataclass(frozen=True)
class Inputs:
    """The base, the tuned models, and `names`: the tensors to be fused.

    `narrow`: all is reckoned in float32, else what is stored in 32 bits in float64. `scattered`:
    what is fused is rounded up or down by chance, without bias. `factors`: of
    the scale, for tensors where it is not 1. `weights`: of tensors that have others than the
    settings'. `diagonals` and `moments` are there for the methods
    that read them.
    """

    base: Checkpoint
    models: tuple[Source, ...]
    names: tuple[str, ...]
    settings: Settings
    context: Context
    unit: Unit = "entries"
    workers: int = 1
    narrow: bool = False
    scattered: bool = False
    factors: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    diagonals: tuple[Source, ...] = ()
    moments: Moments = field(default_factory=lambda: Moments(()))

    def __post_init__(self) -> None:
        # glibc hands large blocks back to the system when they are freed, and every piece would
        # fault its pages in again, until one of this size was freed: then it keeps them.
        np.empty(HEAP_BYTES, np.uint8)

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """One a model; they tell the models apart whatever their order."""
        whole = [model for model in self.models if isinstance(model, Checkpoint)]
        places = [(model, name) for model in whole for name in model.names]
        deque(in_order(_hash, places, self.workers), maxlen=0)
        return tuple(model.fingerprint() for model in self.models)

    @property
    def num_entries(self) -> int:
        """Entries of all tensors to be fused, in one model."""
        return sum(self.base.info(name).size for name in self.names)

    def pieces(self, name: str) -> Iterator[Piece]:
        """One tensor, in order.

        Raises:
            NumericError: a model holds NaN or Inf there.
        """
        settings, count = self.settings_at(name), 1 + len(self.models)
        sources: tuple[Source, ...] = (self.base, *self.models, *self.diagonals)
        shape, length = self.base.info(name).shape, self._length(name)
        dtypes = [source.info(name).dtype for source in sources]
        working, first = np.float32 if self.narrow else working_dtype(dtypes), 0
        for read in zip(*(source.pieces(name, length) for source in sources), strict=True):
            stored = tuple(map(Stored, read, dtypes))
            for source, each in zip(sources, stored, strict=True):
                if not finite(*each):
                    raise NumericError(f"{name}: holds NaN or Inf in {source.path}")
            yield Piece(name, shape, first, settings, working, stored[:count], stored[count:])
            first += read[0].size

    def settings_at(self, name: str) -> Settings:
        """The settings of one tensor."""
        scale = self.factors.get(name, 1.0) * self.settings.scale
        weights = self.weights.get(name, self.settings.weights)
        return replace(self.settings, scale=scale, weights=weights)

    def over(self, job: Callable[[str], R], label: str) -> Iterator[R]:
        """What a job makes of each tensor, by its name, with progress under `label`."""
        found = in_order(job, self.names, self.workers)
        return self.context.track(found, label, total=len(self.names))

    def longest_piece(self, name: str) -> int:
        """Entries of the longest piece of a tensor."""
        return min(self._length(name), self.base.info(name).size)

    def _length(self, name: str) -> int:
        shape = self.base.info(name).shape
        if self.unit == "tensor" or (self.unit == "matrix" and is_matrix(name, shape)):
            return max(1, self.base.info(name).size)
        if self.unit == "rows":
            row = max(1, columns(shape))
            return max(1, PIECE // row) * row
        return PIECE


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the weight of a linear layer: of two axes, no embedding and no head."""
    return len(shape) == 2 and not LOOKUP.search(name)


def columns(shape: tuple[int, ...]) -> int:
    """Entries in a row of a tensor of this shape; a vector is one row."""
    whole = int(np.prod(shape, dtype=np.int64))
    return whole // shape[0] if len(shape) > 1 and whole else whole


def _hash(place: tuple[Checkpoint, str]) -> None:
    model, name = place
    model.blake3(name)
