"""Memory that was freed goes back to the system."""

import ctypes

THRESHOLD, MAP_THRESHOLD = 1 << 20, -3  # bytes; glibc's name of the setting (malloc.h)


def map_tensors() -> None:
    """Have every large block mapped alone, so that none lies between others in glibc's heap.

    glibc otherwise raises the size from which it does so with every block that is freed.
    """
    setting = getattr(ctypes.CDLL(None), "mallopt", None)
    if setting is not None:
        setting(MAP_THRESHOLD, THRESHOLD)


def trim() -> None:
    """Hand freed memory back; glibc keeps what lies between blocks that are in use."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)
