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

import torch

from mllmtool.errors import ConfigError


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


def chosen_device(name: str) -> torch.device:
    """The device of a name; `auto` is this process's own GPU, or the CPU where there is none.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto" and torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
        return torch.device("cuda", local % torch.cuda.device_count())
    try:
        device = torch.device("cpu" if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--device: {name} cannot be used: {reason}") from error
    return device


def _help(place: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    os.environ |= {"RANK": str(place), "LOCAL_RANK": str(place)}
    work(*arguments)
