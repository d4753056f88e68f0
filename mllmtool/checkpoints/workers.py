"""Work on several tensors at once, in threads: numpy, hashing and the disk all let others run."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(job: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """What the job makes of each item, in their order whichever is done first.

    After a failure or an interrupt no further item is begun.
    """
    if workers == 1:
        yield from map(job, items)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(job, items)
    finally:
        pool.shutdown(cancel_futures=True)
