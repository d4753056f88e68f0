"""Random masks addressed by seed and place, the same however a tensor is cut.

PCG64DXSM (O'Neill 2014, as numpy has it) advances to any word of its stream in a few steps, so a
mask may begin anywhere; it takes half the time of a generator that is a hash of a counter. A draw
has 16 bits.
"""

import numpy as np

from mllmtool.checkpoints.dtypes import Array

DRAWS = 4  # a word of 64 bits
STEPS = 1 << 16  # of a probability


def probability(density: float) -> float:
    """The nearest probability that draws can have, and not 0."""
    return max(1, round(density * STEPS)) / STEPS


def bernoulli(seed: int, first: int, count: int, density: float) -> Array:
    """Entries `first` to `first + count` of a stream of truth values, each true by `density`.

    Exactly by `probability(density)`.
    """
    if density == 1:
        return np.ones(count, bool)
    kept: Array = draws(seed, first, count) < np.uint16(round(density * STEPS))
    return kept


def draws(seed: int, first: int, count: int) -> Array:
    """Entries `first` to `first + count` of a stream of uniform uint16."""
    word, skip = divmod(first, DRAWS)
    words = np.random.PCG64DXSM(seed).advance(word).random_raw(-(-(skip + count) // DRAWS))
    return words.astype("<u8", copy=False).view("<u2")[skip : skip + count]
