"""What `eval-matrix` made, read again; no model is needed."""

from pathlib import Path

from pydantic import ValidationError

from mllmtool.errors import DataError
from mllmtool.evaluation.results import Results
from mllmtool.reports import Report, read_report
from mllmtool.reports.report import REPORT_NAME

COMMAND = "eval-matrix"


def read_evaluation(folder: str | Path) -> tuple[Report, Results]:
    """The report of `eval-matrix` in a directory, and its results.

    Raises:
        DataError: there is none, or another command made it.
    """
    path = Path(folder) / REPORT_NAME
    report = read_report(path)
    if report.command != COMMAND:
        raise DataError(f"{path}: is a report of {report.command}, not of {COMMAND}")
    try:
        return report, Results.model_validate(report.results)
    except ValidationError as error:
        raise DataError(f"{path}: results are not those of {COMMAND} {report.version}") from error


def read_results(folder: str | Path) -> Results:
    """The results that `eval-matrix` left in a directory.

    Raises:
        DataError: there are none.
    """
    return read_evaluation(folder)[1]
