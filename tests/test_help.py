"""Golden `--help` of each command: the command line cannot change by accident.

`pytest tests/test_help.py --regenerate` writes the files again; read the diff before you commit it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from mllmtool.cli import COMMANDS

HELP = Path(__file__).parent / "cases" / "help"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help(name: str, regenerate: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mllmtool", *name.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "PATH": ""},
    )
    file = HELP / f"{name.replace(' ', '-') or 'mllmtool'}.txt"
    if regenerate:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(done.stdout)
    assert done.stdout == file.read_text()
