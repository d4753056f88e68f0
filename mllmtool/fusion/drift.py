"""How far a fused tensor is from its base, and how far its models agree."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import zip_longest
from typing import Any

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Piece


@dataclass
class Drift:
    """Sums over entries, of a tensor or a part; `gram[s][t]` is the dot product of task vectors."""

    num_models: int
    entries: int = 0
    base_squared: float = 0.0
    change_squared: float = 0.0
    changed: int = 0
    conflicts: int = 0
    gram: Array = field(init=False)
    kept: list[int] = field(default_factory=list)  # one a model, of a method that trims

    def __post_init__(self) -> None:
        self.gram = np.zeros((self.num_models, self.num_models))

    def add(self, piece: Piece, stored: Array, trimmed: Iterable[Array]) -> None:
        """Count a piece in. `stored`: its fused entries as they were written, (n,)."""
        change = stored - piece.base
        self.entries += change.size
        self.base_squared += _dot(piece.base, piece.base)
        self.change_squared += _dot(change, change)
        self.changed += int(np.count_nonzero(change != 0))
        self._add_agreement(piece.task_vectors)
        kept = (int(np.count_nonzero(tau != 0)) for tau in trimmed)
        self.kept = [a + b for a, b in zip_longest(self.kept, kept, fillvalue=0)]

    def _add_agreement(self, taus: tuple[Array, ...]) -> None:
        for s, first in enumerate(taus):
            for t, second in enumerate(taus[: s + 1]):
                self.gram[s, t] += _dot(first, second)
        if len(taus) > 1:
            lowest, highest = reduce(np.minimum, taus), reduce(np.maximum, taus)
            self.conflicts += int(np.count_nonzero((lowest < 0) & (highest > 0)))

    def describe(self) -> dict[str, Any]:
        """For the report; six digits, and None for what is not defined.

        `drift`: norm of the change over the base's norm. `task_vectors`: the same of each model.
        `changed`: share of the entries that differ from the base as stored. `cosine`: of the task
        vectors, mean over the pairs of models. `sign_conflict`: share of the entries that one model
        raises and another lowers. `kept`: share of each task vector's entries left by trimming.
        """
        several = self.num_models > 1
        return {
            "entries": self.entries,
            "drift": ratio(math.sqrt(self.change_squared), math.sqrt(self.base_squared)),
            "task_vectors": [
                ratio(math.sqrt(self.gram[t, t]), math.sqrt(self.base_squared))
                for t in range(self.num_models)
            ],
            "changed": ratio(self.changed, self.entries),
            "cosine": self._cosine() if several else None,
            "sign_conflict": ratio(self.conflicts, self.entries) if several else None,
            "kept": [ratio(kept, self.entries) for kept in self.kept] or None,
        }

    def _cosine(self) -> float | None:
        norms = np.sqrt(np.diag(self.gram))
        if not norms.all():
            return None
        cosines = (self.gram / np.outer(norms, norms))[np.tril_indices(self.num_models, -1)]
        return ratio(float(cosines.mean()), 1)


def total(drifts: Sequence[Drift]) -> Drift:
    """Several tensors as one."""
    whole = Drift(drifts[0].num_models)
    for drift in drifts:
        whole.entries += drift.entries
        whole.base_squared += drift.base_squared
        whole.change_squared += drift.change_squared
        whole.changed += drift.changed
        whole.conflicts += drift.conflicts
        whole.gram += drift.gram
        whole.kept = [a + b for a, b in zip_longest(whole.kept, drift.kept, fillvalue=0)]
    return whole


def ratio(part: float, whole: float) -> float | None:
    """A quotient to six digits; None when there is nothing to divide by."""
    return float(f"{part / whole:.6g}") if whole else None


def _dot(a: Array, b: Array) -> float:
    """Without BLAS, whose order of summation depends on threads; wider where it must be."""
    with np.errstate(over="ignore"):
        product = float((a * b).sum())
    return product if math.isfinite(product) else float((a.astype(np.float64) * b).sum())
