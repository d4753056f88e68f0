"""How far a fused tensor is from its base, and how far its models agree."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any, Self

import numpy as np

from mllmtool.checkpoints import difference
from mllmtool.checkpoints.difference import Difference, dot, ratio
from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Piece


@dataclass
class Drift:
    """Sums over entries, of a tensor or a part; `gram[s][t]` is the dot product of task vectors."""

    num_models: int
    change: Difference = field(default_factory=Difference)
    conflicts: int = 0
    gram: Array = field(init=False)
    kept: list[int] = field(default_factory=list)  # one a model, of a method that trims

    def __post_init__(self) -> None:
        self.gram = np.zeros((self.num_models, self.num_models))

    def add(self, piece: Piece, stored: Array, kept: Iterable[int]) -> None:
        """Count a piece in. `stored`: its fused entries as they were written, (n,)."""
        self.change.add(piece.base, stored)
        self.kept = [a + b for a, b in zip_longest(self.kept, kept, fillvalue=0)]
        taus = piece.task_vectors
        for s, first in enumerate(taus):
            for t, second in enumerate(taus[: s + 1]):
                self.gram[s, t] += dot(first, second)
        if len(taus) > 1:
            raised, lowered = taus[0] > 0, taus[0] < 0
            for tau in taus[1:]:
                raised |= tau > 0
                lowered |= tau < 0
            self.conflicts += int(np.count_nonzero(raised & lowered))

    def state(self) -> dict[str, Any]:
        """As JSON holds it, to the bit."""
        return {**asdict(self), "gram": self.gram.tolist()}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Of what `state` gave."""
        drift = cls(state["num_models"], Difference(**state["change"]), state["conflicts"])
        drift.gram, drift.kept = np.array(state["gram"]), state["kept"]
        return drift

    def describe(self) -> dict[str, Any]:
        """For the report; six digits, and None for what is not defined.

        `relative_l2`: norm of the change over the base's norm; `task_vectors`: the same of each
        model. `max`: largest absolute change. `changed`: share of the entries that differ from the
        base as stored. `cosine`: of the task vectors, mean over the pairs of models.
        `sign_conflict`: share of the entries that one model raises and another lowers. `kept`:
        share of each task vector's entries left by trimming.
        """
        several, entries = self.num_models > 1, self.change.entries
        norms, base = np.sqrt(np.diag(self.gram)), math.sqrt(self.change.squared)
        return {
            **self.change.describe(),
            "task_vectors": [ratio(float(norm), base) for norm in norms],
            "cosine": self._cosine(norms) if several else None,
            "sign_conflict": ratio(self.conflicts, entries) if several else None,
            "kept": [ratio(kept, entries) for kept in self.kept] or None,
        }

    def _cosine(self, norms: Array) -> float | None:
        if not norms.all():
            return None
        cosines = (self.gram / np.outer(norms, norms))[np.tril_indices(self.num_models, -1)]
        return ratio(float(cosines.mean()), 1)


def total(drifts: Sequence[Drift]) -> Drift:
    """Several tensors as one."""
    whole = Drift(drifts[0].num_models, difference.total(drift.change for drift in drifts))
    for drift in drifts:
        whole.conflicts += drift.conflicts
        whole.gram += drift.gram
        whole.kept = [a + b for a, b in zip_longest(whole.kept, drift.kept, fillvalue=0)]
    return whole
