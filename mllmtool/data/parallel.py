"""Work in processes, with results in the order of the tasks."""

import gc
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")
PRELOADED = ["mllmtool.data.rows", "mllmtool.data.writing"]  # once for all processes
AHEAD = 2  # tasks a worker; results wait in memory for their turn


class Workers:
    """Processes that each hold `shared`; with one worker, this process.

    Meanwhile no cycles are collected: rows are trees, and looking takes a twentieth of the time.
    """

    def __init__(self, workers: int, shared: Any) -> None:
        self._shared, self._ahead = shared, AHEAD * workers
        self._pool: ProcessPoolExecutor | None = None
        if workers > 1:
            context = get_context("forkserver")  # a fork of this process would copy held locks
            context.set_forkserver_preload(PRELOADED)
            self._pool = ProcessPoolExecutor(workers, context, _begin, (shared,))

    def __enter__(self) -> "Workers":
        self._collects = gc.isenabled()
        gc.disable()
        return self

    def __exit__(self, *_: object) -> None:
        if self._collects:
            gc.enable()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[S, T], R], tasks: Iterable[T]) -> Iterator[R]:
        """`function(shared, task)` of each task, in order; few are done ahead."""
        if self._pool is None:
            yield from (function(self._shared, task) for task in tasks)
            return
        waiting = deque[Any]()
        for task in tasks:
            waiting.append(self._pool.submit(_do, function, task))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_held: list[Any] = []


def _begin(shared: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the others
    gc.disable()
    _held[:] = [shared]


def _do(function: Callable[[Any, Any], Any], task: Any) -> Any:
    return function(_held[0], task)
