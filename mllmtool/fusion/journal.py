"""Which tensors of an output are whole, line by line, so that a killed run goes on after them.

What was written before a line outlives the process, though not the machine: lines from before its
last start are not believed.
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from mllmtool.errors import OutputError
from mllmtool.fusion.drift import Drift

log = logging.getLogger(__name__)
NAME = "journal.jsonl"
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Journal:
    """The lines of one run; `done` has the drifts of each tensor that an earlier one ended."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Go on in `folder` if it is of the same `identity`; else begin anew there.

        Raises:
            OutputError: another process writes there.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise OutputError(
                f"{folder}: another process writes there; wait for it, or choose another --out"
            ) from error
        head = {**identity, "boot": BOOT.read_text() if BOOT.exists() else ""}
        self.done = self._read(json.dumps(head).encode())
        if self.done:
            log.info("going on after %d tensors in %s", len(self.done), folder)

    def add(self, name: str, drifts: Sequence[Drift]) -> None:
        """Say that a tensor is whole in every target."""
        states = [drift.state() for drift in drifts]
        self._write(json.dumps({"tensor": name, "drifts": states}).encode())

    def close(self) -> None:
        """Forget the lines; what they told of may then be moved."""
        (self.folder / NAME).unlink()
        os.close(self._file)

    def __enter__(self) -> Self:
        """Nothing is kept of a run that fails by itself: it left nothing half-written."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """As `__enter__` says."""
        if kind is not None:
            with suppress(OSError):
                self.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, head: bytes) -> dict[str, list[Drift]]:
        """What is done; a line that a kill cut short is written over.

        Heads agree to the byte: of weights by expression the order counts too.
        """
        text = (self.folder / NAME).read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        first, *rest = whole.splitlines() or [b""]
        if first == head:
            os.truncate(self._file, len(whole))
            lines = map(json.loads, rest)
            return {line["tensor"]: [Drift.of(state) for state in line["drifts"]] for line in lines}
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != NAME:
                path.unlink()
        os.truncate(self._file, 0)
        self._write(head)
        return {}

    def _write(self, line: bytes) -> None:
        os.write(self._file, line + b"\n")


def stamps(paths: Iterable[str]) -> dict[str, list[Any]]:
    """By which inputs are known again: names, sizes and times of their files."""
    found = {}
    for path in map(Path, paths):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [(file.name, file.stat()) for file in files if file.is_file()]
        found[str(path)] = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return found
