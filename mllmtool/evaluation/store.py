"""Predictions that outlive a kill, and that several processes make together.

A folder of append-only files, one a process, one line a prediction under its key, each line by one
write. A last line that a kill cut short is dropped. Processes share work by locks on ranges of one
file, which the system frees when a process dies: nobody waits for the dead, and no message is sent.
"""

import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mllmtool.data.samples import parse_line, parse_object
from mllmtool.errors import DataError, OutputError
from mllmtool.evaluation.predictions import Prediction

CLAIMS = "claims"
PATIENCE = 60.0  # seconds that a helping process waits for the main one to open the folder


class Store:
    """The predictions in a folder."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, or join those who work in it."""
        self.folder = folder
        self._found: dict[str, Prediction] = {}
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines of a file
        self._own: tuple[int, Path] | None = None
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            self._claims = os.open(folder / CLAIMS, os.O_RDWR | os.O_CREAT, 0o666)
        self.refresh()

    def close(self) -> None:
        """Free every claim."""
        os.close(self._claims)
        if self._own is not None:
            os.close(self._own[0])

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Prediction:
        return self._found[key]

    def add(self, key: str, prediction: Prediction) -> None:
        """Append a prediction; one that is there already stays as it is.

        Raises:
            OutputError: it cannot be written whole; those before it are kept.
        """
        if key in self._found:
            return
        line = json.dumps({"key": key, **prediction.model_dump()}, ensure_ascii=False) + "\n"
        data = line.encode()
        with self._writing():
            if self._own is None:
                prefix = f"{socket.gethostname()}-{os.getpid()}-"
                file, name = tempfile.mkstemp(".jsonl", prefix, self.folder)
                self._own = file, Path(name)
            if os.write(self._own[0], data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._found[key] = prediction

    def refresh(self) -> None:
        """Take in what other processes have written.

        Raises:
            DataError: a whole line is no prediction.
        """
        own = self._own[1] if self._own else None
        for path in sorted(path for path in self.folder.glob("*.jsonl") if path != own):
            done, line = self._read.get(path, (0, 0))
            with path.open("rb") as file:
                file.seek(done)
                whole, _, _ = file.read().rpartition(b"\n")
            if not whole:
                continue
            texts = whole.split(b"\n")
            for number, text in enumerate(texts, start=line + 1):
                self._take(text, f"{path}:{number}")
            self._read[path] = (done + len(whole) + 1, line + len(texts))

    @contextmanager
    def claim(self, key: str, wait: bool) -> Iterator[bool]:
        """Hold the work named by a key alone, where nobody does; else wait, or yield False."""
        start = int(key[:15], 16)
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, start)
        except BlockingIOError:
            yield False
            return
        try:
            self.refresh()
            yield True
        finally:
            fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, start)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror}") from error

    def _take(self, text: bytes, where: str) -> None:
        try:
            key, prediction = _parsed(text, where)
        except DataError as error:
            raise DataError(f"{error}; remove the line to predict its item again") from error
        self._found.setdefault(key, prediction)


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The main process's store; a folder that stayed empty is removed."""
    store = Store(folder)
    try:
        yield store
    finally:
        store.close()
        if not any(folder.glob("*.jsonl")):
            shutil.rmtree(folder, ignore_errors=True)


def wait_for(folder: Path) -> bool:
    """Wait until the main process has made the folder; False where it does not, as it is done."""
    until = time.monotonic() + PATIENCE
    while not folder.is_dir():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _parsed(text: bytes, where: str) -> tuple[str, Prediction]:
    values = parse_object(text, where)
    key = values.pop("key", None)
    if not isinstance(key, str):
        raise DataError(f"{where}: has no key")
    return key, parse_line(Prediction, values, where)
