"""Forward passes that stop wherever they call a unit, so that a model can be run unit by unit.

Each pass has a thread of its own, and one thread runs at a time: the pass, or the one that drives
it. A stopped pass holds what the model's own code still needs, whatever the model: hidden states,
masks, position embeddings, images to attend to. So nothing of a model's wiring need be known.
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Semaphore, Thread, current_thread
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

PARKED_BYTES = 1 << 16  # smaller tensors stay in memory


@dataclass(frozen=True)
class Call:
    """What a unit was called with."""

    unit: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


OVER = Call("", (), {})


class Pass(Thread):
    """One forward pass. `call` is what it waits for, `OVER` before and after."""

    def __init__(self, forward: Callable[[], object], folder: Path | None = None) -> None:
        """`folder`: where tensors that wait lie, in files that go by themselves; or in memory."""
        super().__init__(daemon=True)
        self.call = OVER
        self._forward = forward
        self._folder = folder
        self._answer: Any = None
        self._error: BaseException | None = None
        self._closed = False
        self._here, self._there = Semaphore(0), Semaphore(0)

    def begin(self) -> None:
        """Run to the first unit."""
        self.start()
        self._wait()

    def answer(self, output: Any) -> None:
        """Give what the unit put out, and run to the next."""
        self.call, self._answer = OVER, output
        del output
        self._there.release()
        self._wait()

    def close(self) -> None:
        """End it where it is."""
        if self.is_alive():
            self._closed = True
            self._there.release()
            self.join()
        self.call = OVER

    def run(self) -> None:
        """The thread's own part."""
        try:
            with torch.no_grad(), suppress(_ClosedError):
                self._forward()
        except BaseException as error:  # noqa: BLE001 (it is raised where the pass is driven)
            self._error = error
        del self._forward
        self._here.release()

    def stop(self, call: Call) -> Any:
        """Wait, in its thread, for a unit's output."""
        if self._folder is not None:
            park((call.args, call.kwargs), self._folder)
        self.call = call
        del call
        self._here.release()
        self._there.acquire()
        if self._closed:
            raise _ClosedError
        answer, self._answer = self._answer, None
        return answer

    def _wait(self) -> None:
        self._here.acquire()
        if self._error is not None:
            raise self._error


class _ClosedError(Exception):
    """A pass is not wanted any more."""


def stop_at(units: Mapping[str, nn.Module]) -> None:
    """Have a pass stop where it calls one of the units; for good."""
    for unit, module in units.items():
        module.forward = partial(_forward, unit, module.forward)


def _forward(unit: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    thread = current_thread()
    if isinstance(thread, Pass):
        return thread.stop(Call(unit, args, kwargs))
    return forward(*args, **kwargs)


def park(value: Any, folder: Path) -> None:
    """Move the large tensors of nested containers to mapped files, for all who hold them.

    The files have no name: the system writes them out when memory is short, and they go with the
    tensors, or with the process.
    """
    for tensor in tree_leaves(value):
        wanted = isinstance(tensor, Tensor) and tensor.nbytes >= PARKED_BYTES
        if not wanted or not tensor.is_contiguous() or hasattr(tensor, "parked"):
            continue
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            mapped = torch.from_file(
                file.name, shared=True, size=tensor.numel(), dtype=tensor.dtype
            )
        tensor.set_(mapped.view(tensor.shape).copy_(tensor))
        tensor.parked = True
