"""The k-th largest magnitude of a whole task vector, exactly, in two passes and little memory.

The bits of a float32 that is not negative grow with its value. One pass counts the upper 16 of the
31 bits, which tells the upper bits of the k-th largest and how many are above; a second counts the
lower 15 bits of those that share them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece

LOW_BITS = 15


@dataclass(frozen=True)
class Threshold:
    """Entries of at least `magnitude` are kept: `kept` of them, of which `ties` equal to it."""

    magnitude: np.float32
    kept: int
    ties: int

    def describe(self) -> dict[str, Any]:
        """For the report."""
        return {"magnitude": float(self.magnitude), "kept": self.kept, "ties": self.ties}


def magnitudes(task_vector: Array) -> Array:
    r"""$|\tau|$ as float32, by which entries are ranked whatever their dtype."""
    return np.abs(task_vector).astype(np.float32, copy=False)


def thresholds(inputs: Inputs) -> list[Threshold]:
    """For each model, the smallest magnitude among its `density` largest entries.

    That is the k-th largest for k = density times the number of entries, to the nearest integer and
    at least 1. Entries that are 0 are never kept: the smallest threshold is above 0.
    """
    rank = max(1, round(inputs.settings.density * inputs.num_entries))
    return _over_all(inputs, rank, sizes, "thresholds")


def thresholds_of(inputs: Inputs, name: str, rank: int) -> list[Threshold]:
    """For each model, the magnitude of this rank from above in one tensor; above 0."""
    return _selected(lambda digits, _: _counts(inputs, name, sizes, digits), rank)


def ranked(inputs: Inputs, rank: int, measure: "Measure", label: str) -> list[np.float32]:
    """For each model, the measure of this rank from above over all fused tensors."""
    found = _over_all(inputs, rank, measure, label)
    return [each.magnitude if each.ties else np.float32(0) for each in found]


def sizes(piece: Piece) -> list[Array]:
    """Magnitudes of each model's task vector."""
    return [magnitudes(tau) for tau in piece.task_vectors]


Measure = Callable[[Piece], Sequence[Array]]  # float32 of 0 or more, one array a model
Digits = Callable[[int, Array], Array]  # of a model's bits, those by which they are counted


def _over_all(inputs: Inputs, rank: int, measure: Measure, label: str) -> list[Threshold]:
    def counts(digits: Digits, number: int) -> Array:
        found = inputs.over(
            lambda name: _counts(inputs, name, measure, digits), f"{label}, pass {number} of 2"
        )
        return sum(found, np.zeros((len(inputs.models), 1 << 16), np.int64))

    return _selected(counts, rank)


def _selected(counts: Callable[[Digits, int], Array], rank: int) -> list[Threshold]:
    tops = [_rank(found, rank) for found in counts(lambda _, bits: bits >> LOW_BITS, 1)]
    low = counts(
        lambda model, bits: bits[bits >> LOW_BITS == tops[model][0]] & (1 << LOW_BITS) - 1, 2
    )
    return [_threshold(top, found, rank) for top, found in zip(tops, low, strict=True)]


def _counts(inputs: Inputs, name: str, measure: Measure, digits: Digits) -> Array:
    """How often each digit occurs in a tensor: (models, 2^16)."""
    counts = np.zeros((len(inputs.models), 1 << 16), np.int64)
    for piece in inputs.pieces(name):
        for model, measured in enumerate(measure(piece)):
            found = digits(model, measured.view(np.uint32))
            counts[model] += np.bincount(found, minlength=1 << 16)
    return counts


def _rank(counts: Array, rank: int) -> tuple[int, int]:
    """The digit of the entry of this rank from above, and how many entries have larger digits."""
    above = np.cumsum(counts[::-1])
    place = int(np.searchsorted(above, rank))
    return len(counts) - 1 - place, int(above[place] - counts[::-1][place])


def _threshold(top: tuple[int, int], counts: Array, rank: int) -> Threshold:
    high, above = top
    low, above_low = _rank(counts, rank - above)
    bits, ties = high << LOW_BITS | low, int(counts[low])
    if bits == 0:
        return Threshold(
            np.float32(np.nextafter(np.float32(0), np.float32(1))), above + above_low, 0
        )
    magnitude = np.uint32(bits).view(np.float32)
    return Threshold(magnitude, above + above_low + ties, ties)
