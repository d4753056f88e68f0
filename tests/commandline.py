"""The command line in this process: what it returns and prints."""

import contextlib
import io
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

from mllmtool import cli


class Done(NamedTuple):
    """As of a process that ended."""

    status: int
    out: str
    err: str


def mllmtool(*argv: object) -> Done:
    """Run `mllmtool ARGV` and leave logging and signals as they were."""
    out, err = io.StringIO(), io.StringIO()
    root, handler = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = root.handlers[:], root.level
    try:
        with (
            mock.patch.object(sys, "argv", ["mllmtool", *map(str, argv)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            cli.main()
    except SystemExit as end:
        return Done(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        signal.signal(signal.SIGTERM, handler)
    raise AssertionError("main() returned")


def wait_until(true: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for something that a process does, or for its end."""
    for _ in range(60_000):
        if true() or process.poll() is not None:
            return
        time.sleep(0.002)
    raise TimeoutError
