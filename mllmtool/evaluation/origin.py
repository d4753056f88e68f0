"""How a checkpoint was made, where the report beside it says so."""

from pathlib import Path
from typing import Any, NamedTuple

from mllmtool.errors import DataError
from mllmtool.reports import Report, read_report
from mllmtool.reports.report import REPORT_NAME


class Origin(NamedTuple):
    """The command with its method; for WiSE-FT the tuned checkpoint's fingerprint and weight."""

    made_by: str | None = None
    interpolates: str | None = None
    weight: float | None = None


def origin_of(checkpoint: Path) -> Origin:
    """Read `report.json` of a checkpoint; one that is of another tool says nothing."""
    try:
        report = read_report(checkpoint / REPORT_NAME)
    except DataError:
        return Origin()
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
