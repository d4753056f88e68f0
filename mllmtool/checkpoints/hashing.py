"""Hash a file while others still write it: as far as it is whole, from the start."""

import hashlib
import threading
from collections import deque
from pathlib import Path

from mllmtool.checkpoints.dtypes import Array
from mllmtool.errors import OutputError

BLOCK = 1 << 18  # bytes


class GrowingHash:
    """SHA-256 of a file whose stretches become whole in any order.

    `saw` and `advance` may be called by several threads; one hashes, the others go on with their
    work. What is seen when all before it is hashed need not be read again.
    """

    def __init__(self, path: Path, begin: int, ends: dict[str, int]) -> None:
        """`ends`: where each stretch ends, by its name; they follow one another in this order.

        The first begins at `begin`; what is before is written.
        """
        self._path = path
        self._ends = deque(ends.items())
        self._whole: set[str] = set()
        self._sha256 = hashlib.sha256()
        self._done = 0  # bytes
        self._lock = threading.Lock()
        self._read_to(begin)

    def saw(self, begin: int, written: Array) -> None:
        """Say what was written to the file from byte `begin` on."""
        if begin == self._done and self._lock.acquire(blocking=False):
            try:
                if begin == self._done:
                    self._sha256.update(written.data)
                    self._done += written.nbytes
            finally:
                self._lock.release()

    def advance(self, whole: str) -> None:
        """Say that a stretch is whole, and hash as far as one can."""
        self._whole.add(whole)
        if self._lock.acquire(blocking=False):
            try:
                self._advance()
            finally:
                self._lock.release()

    def hexdigest(self) -> str:
        """The hash of the file, once all stretches are whole.

        Raises:
            OutputError: they are not, or the file was cut.
        """
        with self._lock:
            self._advance()
            if self._ends:
                raise OutputError(f"{self._path}: {self._ends[0][0]} was not written")
            return self._sha256.hexdigest()

    def _advance(self) -> None:
        end = self._done
        while self._ends and (self._ends[0][0] in self._whole or self._ends[0][1] <= self._done):
            end = self._ends.popleft()[1]
        self._read_to(end)

    def _read_to(self, end: int) -> None:
        if self._done >= end:
            return
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._done)
            while self._done < end:
                block = file.read(min(BLOCK, end - self._done))
                if not block:
                    raise OutputError(f"{self._path}: was cut while it was written")
                self._sha256.update(block)
                self._done += len(block)
