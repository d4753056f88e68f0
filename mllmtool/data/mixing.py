"""How many rows a mix takes from its sources, which, and in what order.

Shares are exact. Each source has random streams of its own, named after it: of its rows a
permutation, of which a mix takes as many as it needs from the front, and for what it takes a
sequence of random keys, by which all rows of the mix are sorted. So another source, another share
or another total changes neither which rows of a source come first nor their order among themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mllmtool.context import Context

Integers = npt.NDArray[np.integer]


def quotas(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers in these shares that sum to `total`, by largest remainder (Hamilton).

    Shares count as the decimal numbers that they print as, so 0.1 is a tenth. Each quota is less
    than 1 off its exact share. Equal remainders: the earlier source first.
    """
    exact = [Fraction(str(share)) for share in shares]
    return _apportioned([share * total / sum(exact) for share in exact], total)


def quotas_around(shares: Sequence[float], anchor: int, count: int) -> list[int]:
    """As `quotas`, with the total such that the source `anchor` has `count`, to the nearest row."""
    exact = [Fraction(str(share)) for share in shares]
    wanted = [share * count / exact[anchor] for share in exact]
    return _apportioned(wanted, int(sum(wanted) + Fraction(1, 2)))


def _apportioned(wanted: Sequence[Fraction], total: int) -> list[int]:
    counts = [int(quota) for quota in wanted]
    by_remainder = sorted(range(len(wanted)), key=lambda i: counts[i] - wanted[i])
    for source in by_remainder[: total - sum(counts)]:
        counts[source] += 1
    return counts


def permutation(count: int, seed: int) -> Integers:
    """The numbers below `count` in a random order."""
    return np.argsort(_keys(count, seed), kind="stable")


def rows_for(quota: int, weights: Integers) -> int:
    """How many rows to take, in the order of `weights` and around, until they weigh `quota`."""
    sums = np.cumsum(weights, dtype=np.int64)
    passes, rest = divmod(quota, int(sums[-1])) if quota else (0, 0)
    return passes * len(sums) + (int(np.searchsorted(sums, rest)) + 1 if rest else 0)


@dataclass(frozen=True)
class Draws:
    """The rows of a mix: each one's source, its number there, and how often it was drawn before."""

    sources: Integers
    indices: Integers
    copies: Integers

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, part: slice) -> "Draws":
        return Draws(self.sources[part], self.indices[part], self.copies[part])


def draws(
    counts: Mapping[str, int], rows: Mapping[str, Integers], order: str, context: Context
) -> Draws:
    """`counts[name]` of the rows of each source, which has them in the drawn order `rows[name]`.

    A source that is too small is gone through as a whole, again and again, and then in part.
    `order` is `shuffle`, `source` or `blocks/B`.
    """
    names = list(counts)
    sources = np.repeat(np.arange(len(names)), list(counts.values()))
    taken = [np.arange(counts[name]) for name in names]
    copies = [place // max(1, len(rows[name])) for name, place in zip(names, taken, strict=True)]
    indices = [
        rows[name][place % max(1, len(rows[name]))] if len(place) else place
        for name, place in zip(names, taken, strict=True)
    ]
    keys = [_keys(counts[name], context.stream_seed(f"mix/{name}/order")) for name in names]
    drawn = Draws(sources, np.concatenate(indices), np.concatenate(copies))
    name, _, block = order.partition("/")
    arranged = ARRANGEMENTS[name](drawn, np.concatenate(keys), int(block or 1))
    return Draws(sources[arranged], drawn.indices[arranged], drawn.copies[arranged])


def _shuffled(_drawn: Draws, keys: Integers, _block: int) -> Integers:
    return np.argsort(keys, kind="stable")


def _by_source(drawn: Draws, _keys: Integers, _block: int) -> Integers:
    """Source after source, each as it lies in its file, pass after pass."""
    return np.lexsort((drawn.indices, drawn.copies, drawn.sources))


def _in_blocks(drawn: Draws, keys: Integers, block: int) -> Integers:
    """Shuffled within blocks; after each block every source is less than a row off its share."""
    counts = np.bincount(drawn.sources)
    starts = np.cumsum(counts) - counts
    blocks, done = np.empty(len(drawn), np.int64), [0] * len(counts)
    for number, after in enumerate(block_quotas(counts.tolist(), block)):
        for start, begin, end in zip(starts, done, after, strict=True):
            blocks[start + begin : start + end] = number
        done = after
    return np.lexsort((keys, blocks))


ARRANGEMENTS: dict[str, Callable[[Draws, Integers, int], Integers]] = {
    "shuffle": _shuffled,
    "source": _by_source,
    "blocks": _in_blocks,
}


def block_quotas(counts: Sequence[int], block: int) -> list[list[int]]:
    """How many rows of each source the mix holds after each block of rows.

    That is its share of them rounded down or up: an n-th row of a source may come once the share
    is above n - 1, must have come once it is n, and the earliest of these deadlines goes first.
    Such a plan exists (Tijdeman 1980, the chairman assignment problem), and the earliest deadline
    first finds one if there is any.
    """
    total, done, found = sum(counts), [0] * len(counts), []
    for rows in [*range(block, total, block), *([total] if total else [])]:
        due = [max(had, count * rows // total) for had, count in zip(done, counts, strict=True)]
        open_ones = [i for i, count in enumerate(counts) if due[i] * total < count * rows]
        open_ones.sort(key=lambda i: Fraction(due[i] + 1, counts[i]))
        for source in open_ones[: rows - sum(due)]:
            due[source] += 1
        done = due
        found.append(due)
    return found


def _keys(count: int, seed: int) -> npt.NDArray[np.uint64]:
    return np.random.Philox(key=seed).random_raw(count)
