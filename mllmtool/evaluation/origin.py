"""How a checkpoint was made, where the report beside it says so, and after how many steps."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from mllmtool.errors import DataError
from mllmtool.reports import Report, read_report
from mllmtool.reports.report import REPORT_NAME

STATE = "trainer_state.json"  # of a checkpoint that transformers' Trainer saved
NUMBERED = r"(?:checkpoint|step|iter)[-_]?(\d{1,12})"  # a folder's name, where it tells the step


class Origin(NamedTuple):
    """The command with its method; for WiSE-FT the tuned checkpoint's fingerprint and weight.

    `step` is the optimiser step that a checkpoint of a run was saved after.
    """

    made_by: str | None = None
    interpolates: str | None = None
    weight: float | None = None
    step: int | None = None


def origin_of(checkpoint: Path) -> Origin:
    """Read what lies beside a checkpoint; one that is of another tool tells its step at most."""
    try:
        report = read_report(checkpoint / REPORT_NAME)
    except DataError:
        return Origin(step=_step(checkpoint))
    method = report.config.get("method")
    made_by = f"{report.command} {method}" if isinstance(method, str) else report.command
    if (report.command, method) != ("fuse", "wise-ft"):
        return Origin(made_by)
    tuned = next((one.sha256 for one in report.inputs if one.role == "model"), None)
    return Origin(made_by, tuned, _weight(report))


def _weight(report: Report) -> float | None:
    chosen: Any = report.results.get("method")
    weight = chosen.get("scale") if isinstance(chosen, dict) else None
    return float(weight) if isinstance(weight, int | float) else None


def _step(checkpoint: Path) -> int | None:
    try:
        step = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        named = re.fullmatch(NUMBERED, checkpoint.resolve().name)
        return int(named[1]) if named else None
    return step if isinstance(step, int) and step >= 0 else None
