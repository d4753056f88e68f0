"""`report.json`, schema `mllmtool.report/1`.

Everything outside `run` is a function of inputs, config, seed and version, so two runs of one
recipe give reports that are equal but for `run`. A report is itself a recipe.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllmtool.errors import DataError, NumericError

REPORT_NAME = "report.json"


class Artifact(BaseModel):
    """A file or checkpoint read or made; `sha256` is of its bytes, or of a checkpoint's tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    path: str
    sha256: str


class Report(BaseModel):
    """What a command did."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="constants"
    )

    schema_: Annotated[Literal["mllmtool.report/1"], Field(alias="schema")] = "mllmtool.report/1"
    command: str
    version: str
    seed: int
    config: dict[str, Any]
    inputs: list[Artifact]
    outputs: list[Artifact]
    results: dict[str, Any]
    warnings: list[str]
    run: dict[str, Any]


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_report(report: Report, into: Path) -> None:
    """Write `into/report.json`.

    Raises:
        NumericError: a result is NaN or Inf; a cell that was not measured is None.
    """
    values = report.model_dump(mode="json", by_alias=True)
    try:
        text = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise NumericError(f"{report.command}: a result is NaN or infinite: {error}") from error
    (into / REPORT_NAME).write_text(text + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """Read a report file.

    Raises:
        DataError: it is missing, not JSON or of another schema.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such report") from error
    except (OSError, ValidationError) as error:
        raise DataError(f"{path}: is not a report of schema mllmtool.report/1") from error
