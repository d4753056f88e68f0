"""States that a killed run goes on from.

Each is a folder `checkpoint-STEP`. Its `whole.json` is written last and names the job, so that a
state which a kill cut short, or that is of another job, is never taken up.
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
    whole = [state for state in folder.glob("checkpoint-*") if (state / WHOLE).is_file()]
    if not whole:
        return None
    state = max(whole, key=_step)
    theirs = read_marker(state)["job"]
    differing = sorted(key for key in {*job, *theirs} if job.get(key) != theirs.get(key))
    if differing:
        key = differing[0]
        raise ConfigError(
            f"--resume auto: {folder} holds the state of another run: {key} is"
            f" {_shown(theirs.get(key))} there, {_shown(job.get(key))} here;"
            " start anew with --resume never, or choose another --out"
        )
    return state


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


def _step(state: Path) -> int:
    return int(re.sub(r"\D", "", state.name))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
