"""Random masks addressed by seed and place, the same however a tensor is cut.

Philox (Salmon et al. 2011) is a counter-based generator: block `n` of a stream is a function of the
seed and `n`, so a mask may begin anywhere. A draw has 16 bits.
"""

import numpy as np

from mllmtool.checkpoints.dtypes import Array

DRAWS = 16  # a block of 256 bits
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
    block, skip = divmod(first, DRAWS)
    num_blocks = -(-(skip + count) // DRAWS)
    words = np.random.Philox(key=seed, counter=block).random_raw(4 * num_blocks)
    return words.astype("<u8", copy=False).view("<u2")[skip : skip + count]
