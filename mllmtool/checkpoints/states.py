"""States that a killed run goes on from.

Each is a folder with a number in its name, such as `checkpoint-STEP`. Its `whole.json` is written
last and names the job, so that a state which a kill cut short, or that is of another job, is never
taken up.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from mllmtool.errors import ConfigError

WHOLE = "whole.json"


def latest_state(folder: Path, job: dict[str, Any]) -> Path | None:
    """The newest whole state under `folder`.

    Raises:
        ConfigError: it is of another job; the message says what differs.
    """
    return next(reversed(whole_states(folder, job)), None)


def whole_states(folder: Path, job: dict[str, Any]) -> list[Path]:
    """Every whole state under `folder`, by number.

    Raises:
        ConfigError: the newest is of another job; the message says what differs.
    """
    states = sorted((marker.parent for marker in folder.glob(f"*/{WHOLE}")), key=_number)
    theirs = read_marker(states[-1])["job"] if states else job
    differing = sorted(key for key in {*job, *theirs} if job.get(key) != theirs.get(key))
    if differing:
        key = differing[0]
        raise ConfigError(
            f"--resume auto: {folder} holds the state of another run: {key} is"
            f" {_shown(theirs.get(key))} there, {_shown(job.get(key))} here;"
            " start anew with --resume never, or choose another --out"
        )
    return states


def drop_states(folder: Path) -> None:
    """Forget every state."""
    shutil.rmtree(folder, ignore_errors=True)


def read_marker(state: Path) -> dict[str, Any]:
    """What `write_marker` wrote."""
    values: dict[str, Any] = json.loads((state / WHOLE).read_text(encoding="utf-8"))
    return values


def write_marker(state: Path, values: dict[str, Any]) -> None:
    """Declare a state whole, by one rename."""
    partial = state / f".{WHOLE}"
    partial.write_text(json.dumps(values), encoding="utf-8")
    partial.rename(state / WHOLE)


def _number(state: Path) -> int:
    return int(re.sub(r"\D", "", state.name))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
