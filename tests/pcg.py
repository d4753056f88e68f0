"""PCG64DXSM (O'Neill 2014, cheap multiplier, output DXSM), on Python integers."""

import numpy as np

WORD, WIDE = (1 << 64) - 1, (1 << 128) - 1
MULTIPLIER = 0xDA942042E4DD58B5


def words(seed: int, count: int) -> list[int]:
    """The first words of a stream; numpy makes the first state of the seed."""
    begun = np.random.PCG64DXSM(seed).state["state"]
    state, found = begun["state"], []
    for _ in range(count):
        high, low = state >> 64, state & WORD | 1
        high ^= high >> 32
        high = high * MULTIPLIER & WORD
        high ^= high >> 48
        found.append(high * low & WORD)
        state = (state * MULTIPLIER + begun["inc"]) & WIDE
    return found
