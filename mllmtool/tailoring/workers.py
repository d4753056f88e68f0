"""Several processes that tailor as one, under torchrun: each has its share of batches and solves.

What they record is summed, so that every process knows every moment; a map is solved by one of
them, and what became of it is told to all. The same batches are run in any number of processes.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from mllmtool.tailoring.capture import Recorder
from mllmtool.tailoring.sites import Use

T = TypeVar("T")
U = TypeVar("U")


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes of torchrun, if there are any."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
        dist.barrier()  # what one process keeps for the others goes with it
    finally:
        dist.destroy_process_group()


def share(items: Sequence[T]) -> Sequence[T]:
    """Those that are this process's own."""
    return items[dist.get_rank() :: dist.get_world_size()] if dist.is_initialized() else items


def everyone(value: T) -> list[T]:
    """The value that each process has here, in their order."""
    if not dist.is_initialized():
        return [value]
    values: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def solved_by_all(items: Sequence[T], solve: Callable[[T], U]) -> Iterator[U]:
    """What `solve` makes of each item, in their order, each made by one process."""
    if not dist.is_initialized():
        yield from map(solve, items)
        return
    shares = everyone([solve(item) for item in share(items)])
    for place in range(len(items)):
        yield shares[place % len(shares)][place // len(shares)]


def add_up(recorder: Recorder) -> None:
    """Sum what all processes recorded, of each use; those that share one sum go on to."""
    if not dist.is_initialized():
        return
    uses = list(recorder.uses)
    tokens = torch.tensor([recorder.tokens[use] for use in uses])
    dist.all_reduce(tokens)
    recorder.tokens.update(zip(uses, tokens.tolist(), strict=True))
    shapes: dict[int, tuple[int, torch.Size]] = {}  # use -> the first use of its sum, and its shape
    for found in everyone(_shapes(recorder, uses)):
        shapes.update(found)
    for place, (first, shape) in sorted(shapes.items()):
        if first == place:
            own = recorder.sums.get(uses[place])
            total = torch.zeros(shape, dtype=torch.float64) if own is None else own.cpu()
            dist.all_reduce(total)
            recorder.sums[uses[place]] = total
        else:
            recorder.sums[uses[place]] = recorder.sums[uses[first]]


def _shapes(recorder: Recorder, uses: Sequence[Use]) -> dict[int, tuple[int, torch.Size]]:
    first: dict[int, int] = {}
    found = {}
    for place, use in enumerate(uses):
        if use in recorder.sums:
            total = recorder.sums[use]
            found[place] = (first.setdefault(id(total), place), total.shape)
    return found
