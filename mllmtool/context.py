"""What a running command may ask of its surroundings: chance, progress, warnings.

Every use of chance has a name, and its seed is a hash of `seed/name`. So a result does not depend
on the order of tensors, on threads or on what ran before, and a new stream changes no other.
"""

import hashlib
import logging
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

log = logging.getLogger(__name__)
T = TypeVar("T")
PACE = 5.0  # seconds between lines of progress, at least


def is_main_process() -> bool:
    """Whether this process writes and speaks: the only one, or the first of torchrun or SLURM."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


@dataclass
class Context:
    """Handed to every command by the runner.

    `work` is a hidden directory beside the output that outlives a kill; a command that can resume
    makes it, keeps its state there, and the runner removes it once the output is whole.
    """

    seed: int = 0
    quiet: bool = False
    work: Path | None = None
    warnings: list[str] = field(default_factory=list)

    def stream_seed(self, name: str) -> int:
        """Seed of the stream `name`, 63 bits, for a `torch.Generator` or numpy."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def rng(self, name: str) -> random.Random:
        """A fresh generator of the stream `name`."""
        return random.Random(self.stream_seed(name))

    def warn(self, text: str) -> None:
        """Log a warning, and record it for the report."""
        log.warning(text)
        self.warnings.append(text)

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items and show how far it is: a bar on a terminal, else a line each tenth."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        if self.quiet:
            yield from items
        elif sys.stderr.isatty():
            with Progress(console=Console(stderr=True), transient=True) as progress:
                yield from progress.track(items, total=total, description=label)
        else:
            yield from _lines(items, label, total)


def _lines(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    started, tenth, next_line = time.monotonic(), 0, PACE
    for done, item in enumerate(items, start=1):
        yield item
        seconds = time.monotonic() - started
        if total and done * 10 // total > tenth and seconds >= next_line:
            tenth, next_line = done * 10 // total, seconds + PACE
            log.info("%s: %d of %d, %.0f s", label, done, total, seconds)
