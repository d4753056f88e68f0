"""Random masks addressed by seed and place, the same however a tensor is cut.

Philox (Salmon et al. 2011) is a counter-based generator: block `n` of a stream is a function of the
seed and `n`, so a mask may begin anywhere.
"""

import numpy as np

from mllmtool.checkpoints.dtypes import Array

DRAWS = 8  # uint32 draws a block


def bernoulli(seed: int, first: int, count: int, density: float) -> Array:
    """Entries `first` to `first + count` of a stream of truth values, each true by `density`."""
    block, skip = divmod(first, DRAWS)
    num_blocks = -(-(skip + count) // DRAWS)
    words = np.random.Philox(key=seed, counter=block).random_raw(4 * num_blocks)
    draws = words.astype("<u8", copy=False).view("<u4")[skip : skip + count]
    kept: Array = draws < round(density * 2**32)
    return kept
