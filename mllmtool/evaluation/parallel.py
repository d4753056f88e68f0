"""Further processes that help one, each with a place among all of them.

Under torchrun, accelerate or SLURM they are there already, and the environment says which one this
is; `helpers` starts them on this machine. They share no memory and send no message.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def helpers(number: int, work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Have `work` done by so many further processes; those that still run at the end are ended."""
    spawning = multiprocessing.get_context("spawn")
    started = [
        spawning.Process(target=_help, args=(place, work, arguments), daemon=True)
        for place in range(1, number + 1)
    ]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()


def _help(place: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    os.environ |= {"RANK": str(place), "LOCAL_RANK": str(place)}
    work(*arguments)
