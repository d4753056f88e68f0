"""The JSON Schemas that ship with the package are those of configs, files and reports.

`pytest tests/test_schemas.py --regenerate` writes them again.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import mllmtool
from mllmtool.cli import COMMANDS
from mllmtool.data.items import Item
from mllmtool.data.samples import Sample
from mllmtool.data.suites import SuiteFile, TaskFile
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.results import Results
from mllmtool.reports import Report

SCHEMAS = Path(mllmtool.__file__).parent / "schemas"
MODELS: dict[str, type[BaseModel]] = {
    **{name.replace(" ", "-"): row.config for name, row in COMMANDS.items()},
    "sample": Sample,
    "report": Report,
    "suite": SuiteFile,
    "task": TaskFile,
    "item": Item,
    "prediction": Prediction,
    "eval-matrix-results": Results,
}


@pytest.mark.parametrize("name", MODELS)
def test_schema(name: str, regenerate: bool) -> None:
    schema: dict[str, Any] = MODELS[name].model_json_schema()
    file = SCHEMAS / f"{name}.json"
    if regenerate:
        SCHEMAS.mkdir(exist_ok=True)
        file.write_text(json.dumps(schema, indent=1) + "\n")
    assert schema == json.loads(file.read_text())


def test_no_schema_is_left_over() -> None:
    assert {file.stem for file in SCHEMAS.glob("*.json")} == set(MODELS)
