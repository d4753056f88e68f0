"""The contract of a fusion method.

A method is first shown all inputs, and may look through them (a threshold over a whole model, the
angle between two tensors); what it hands back then fuses piece by piece. It is pure, takes chance
only from named streams, may be called by several threads at once, and gives the same entries
however tensors are stored or ordered.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece, Unit
from mllmtool.fusion.settings import Settings


@dataclass(frozen=True)
class Fused:
    """Fused entries, (n,), and how many entries of each task vector a method that trims kept."""

    entries: Array
    kept: Sequence[int] = ()


@dataclass(frozen=True)
class Prepared:
    """What fuses a piece, and what was found while preparing, for the report."""

    fuse: Callable[[Piece], Fused]
    findings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A row of the table: a method, its paper, what it reads.

    prepare: looks through the inputs, whatever the scale; `at_once` for a method that need not.
    defaults: whose the values of `reads` are, in words.
    reads: the flags that it reads, with their defaults.
    unit: what a piece is: any `entries`, whole `rows`, the whole of a `matrix`, or of any `tensor`.
    num_models: how many it takes; None for any number from `at_least` on.
    shares: weights are shares of a whole, so their sum must be above 0.
    needs: the flag of files that it reads besides the models.
    check: says what is wrong with settings, from the flag on, or None.
    cost: CPU time in that of task arithmetic, as measured on bfloat16; of matrices, when 1024 wide.
    """

    prepare: Callable[[Inputs], Prepared]
    paper: str
    defaults: str
    reads: Mapping[str, float] = field(default_factory=dict)
    unit: Unit = "entries"
    num_models: int | None = None
    at_least: int = 1
    shares: bool = False
    needs: Literal["fisher", "moments"] | None = None
    check: Callable[[Settings], str | None] = lambda _: None
    cost: float = 1.0


def at_once(fuse: Callable[[Piece], Fused]) -> Callable[[Inputs], Prepared]:
    """The `prepare` of a method that has nothing to look for."""
    return lambda _: Prepared(fuse)


def moved(start: Array, change: Array) -> Array:
    """`start + change`, in the place of `change`; where that is 0, `start` to the bit."""
    np.subtract(0.0, change, out=change)
    return np.subtract(start, change, out=change)


def weighted_sum(arrays: Sequence[Array], factors: Sequence[float]) -> Array:
    r"""$\sum_t w_t x_t$, a new array."""
    pairs = zip(arrays, factors, strict=True)
    terms = (array if factor == 1 else array * factor for array, factor in pairs)
    first, second = next(terms), next(terms, None)
    total: Array = first.copy() if second is None else first + second
    for term in terms:
        total += term
    return total


def summed(arrays: Sequence[Array]) -> Array:
    r"""$\sum_t x_t$, a new array."""
    return weighted_sum(arrays, (1.0,) * len(arrays))


def num_kept(trimmed: Sequence[Array]) -> tuple[int, ...]:
    """How many entries of each trimmed task vector are left."""
    return tuple(int(np.count_nonzero(tau != 0)) for tau in trimmed)
