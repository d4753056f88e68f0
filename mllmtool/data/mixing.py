"""Which rows a mix takes from its sources, and in what order.

Shares are of instances and exact. Each source has random streams of its own, named after it: of its
rows a permutation, of which a mix takes as many as it needs from the front, and for what it takes
a sequence of random keys, by which all rows of the mix are sorted. So another source, another share
or another total changes neither which rows of a source come first nor their order among themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
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
    wanted = [share * total / sum(exact) for share in exact]
    counts = [int(quota) for quota in wanted]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - wanted[i])
    for source in by_remainder[: total - sum(counts)]:
        counts[source] += 1
    return counts


def permutation(count: int, seed: int) -> Integers:
    """The numbers below `count` in a random order."""
    return np.argsort(_keys(count, seed), kind="stable")


@dataclass(frozen=True)
class Draw:
    """A row of the mix: its source, its number there, and how often it was drawn before."""

    source: str
    index: int
    copy: int


def draws(counts: Mapping[str, int], rows: Mapping[str, int], context: Context) -> Iterator[Draw]:
    """`counts[name]` rows of each source, which has `rows[name]`, all shuffled together.

    Within a source rows are drawn uniformly without replacement; one that is too small is gone
    through as a whole, again and again, and then in part.
    """
    names = [name for name, count in counts.items() if count]
    sources = np.concatenate([np.full(counts[name], i) for i, name in enumerate(names)])
    places = np.concatenate([np.arange(counts[name]) for name in names])
    keys = [_keys(counts[name], context.stream_seed(f"mix/{name}/order")) for name in names]
    orders = [permutation(rows[name], context.stream_seed(f"mix/{name}/rows")) for name in names]
    for row in np.argsort(np.concatenate(keys), kind="stable"):
        source, place = sources[row], int(places[row])
        copy, turn = divmod(place, len(orders[source]))
        yield Draw(names[source], int(orders[source][turn]), copy)


def _keys(count: int, seed: int) -> npt.NDArray[np.uint64]:
    return np.random.Philox(key=seed).random_raw(count)
