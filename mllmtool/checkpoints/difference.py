"""How far tensors are from others, entry by entry."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mllmtool.checkpoints.dtypes import Array, widen, working_dtype
from mllmtool.checkpoints.reader import PIECE, Checkpoint

ROW = 4096


@dataclass
class Difference:
    """Sums over the entries of a tensor or of several."""

    entries: int = 0
    squared: float = 0.0  # of the first side
    change_squared: float = 0.0
    largest: float = 0.0
    changed: int = 0

    def add(self, before: Array, after: Array, changed: int | None = None) -> None:
        """Count entries in, (n,) each. `changed`: how many differ, when not their values say."""
        change = after - before
        self.entries += change.size
        self.squared += dot(before, before)
        self.change_squared += dot(change, change)
        self.largest = max(
            self.largest, float(change.max(initial=0)), -float(change.min(initial=0))
        )
        self.changed += int(np.count_nonzero(change != 0)) if changed is None else changed

    def describe(self) -> dict[str, Any]:
        """For a report; six digits, and None for what is not defined.

        `relative_l2`: norm of the change over the first side's. `max`: largest absolute change.
        `changed`: share of the entries that differ.
        """
        return {
            "entries": self.entries,
            "relative_l2": ratio(math.sqrt(self.change_squared), math.sqrt(self.squared)),
            "max": ratio(self.largest, 1),
            "changed": ratio(self.changed, self.entries),
        }


def total(differences: Iterable[Difference]) -> Difference:
    """Several tensors as one."""
    whole = Difference()
    for difference in differences:
        whole.entries += difference.entries
        whole.squared += difference.squared
        whole.change_squared += difference.change_squared
        whole.largest = max(whole.largest, difference.largest)
        whole.changed += difference.changed
    return whole


def compare(a: Checkpoint, b: Checkpoint, name: str) -> Difference:
    """A tensor that both hold in one shape. Entries of one dtype differ when their bits do.

    Raises:
        NumericError: one holds NaN or Inf.
    """
    difference = Difference()
    dtypes, size = (a.info(name).dtype, b.info(name).dtype), a.info(name).size
    working = working_dtype(dtypes)
    for first in range(0, size, PIECE):
        stored = [side.read(name, first, min(PIECE, size - first)) for side in (a, b)]
        before, after = (widen(*each, working) for each in zip(stored, dtypes, strict=True))
        difference.add(before, after, _bits_changed(*stored))
    return difference


def ratio(part: float, whole: float) -> float | None:
    """A quotient to six digits; None when there is nothing to divide by."""
    return float(f"{part / whole:.6g}") if whole else None


def dot(a: Array, b: Array) -> float:
    """Row by row, so short that BLAS takes one thread and float32 does; wider where it must be."""
    cut = a.size - a.size % ROW
    rows = np.vecdot(a[:cut].reshape(-1, ROW), b[:cut].reshape(-1, ROW))
    product = float(rows.sum(dtype=np.float64))
    if cut < a.size:
        product += float(np.vecdot(a[cut:], b[cut:]))
    if math.isfinite(product):
        return product
    return float((a.astype(np.float64) * b).sum())


def _bits_changed(first: Array, second: Array) -> int | None:
    if first.dtype != second.dtype:
        return None
    bits = f"u{first.itemsize}"
    return int(np.count_nonzero(first.view(bits) != second.view(bits)))
