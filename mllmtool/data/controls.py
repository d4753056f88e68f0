"""Control sets: rows of a source whose images and texts are paired anew.

They ask what about other data keeps a model from forgetting (arXiv 2603.14493, section on hybrid
training). The paper took other data sets: one of the same images with other texts (its "fake"
set), one of other images with the same kind of text, one where both are other. Ours are made of
the source itself, so that only the pairing differs: a row keeps its images and takes another row's
turns (`other-text`), keeps its turns and takes another's images (`other-image`), or takes each from
another row (`other-both`). No text lands on an image that it stood beside in the source.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mllmtool.configs.mix_data import Control
from mllmtool.data.mixing import Integers, permutation

ROUNDS = 200
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Pairing:
    """For each row of a source the rows whose turns and images it takes; -1: there is none."""

    kind: Control
    turns: Integers
    images: Integers


def paired_anew(
    kind: Control, fields: npt.NDArray[np.void], usable: Integers, seed: int
) -> Pairing:
    """Pair the usable rows among those with as many images; a row without images has no partner."""
    turns = np.full(len(fields), -1)
    images = np.full(len(fields), -1)
    for number in np.unique(fields["images"][usable]):
        rows = usable[fields["images"][usable] == number]
        text, shown = fields["text"][rows], fields["pictures"][rows]
        other = derangement([(text, text), (shown, shown)], seed) if number else None
        if other is None:
            continue
        own = np.arange(len(rows))
        turned, seen = (other, own) if kind != "other-image" else (own, other)
        if kind == "other-both":
            pairs = [(shown, shown), (shown, shown[other]), (text, text[other])]
            again = derangement(pairs, seed + 1)
            if again is None:
                continue
            seen = again
        turns[rows], images[rows] = rows[turned], rows[seen]
    return Pairing(kind, turns, images)


def derangement(pairs: Sequence[tuple[Words, Words]], seed: int) -> Integers | None:
    """A random order in which every `values[order]` differs from its `forbidden` everywhere.

    Places that are wrong are shuffled again with as many others; None when that does not end.
    """
    count = len(pairs[0][0])
    order = permutation(count, seed)
    for step in range(ROUNDS):
        wrong = np.zeros(count, bool)
        for values, forbidden in pairs:
            wrong |= values[order] == forbidden
        if not wrong.any():
            return order
        others = permutation(count, seed ^ (2 * step + 1 << 64))[: int(wrong.sum())]
        places = np.union1d(np.flatnonzero(wrong), others)
        order[places] = order[places][permutation(len(places), seed ^ (2 * step + 2 << 64))]
    return None
