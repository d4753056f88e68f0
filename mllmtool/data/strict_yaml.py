"""YAML files read as strict models; every wrong key is named, with what it may have meant."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mllmtool.configs.yaml_text import load_yaml
from mllmtool.errors import DataError

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def read_yaml(model: type[M], path: Path) -> M:
    """Read a file.

    Raises:
        DataError: the file and each key that is wrong.
    """
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise DataError(f"{path}: is not a mapping of keys to values")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        issues = [_issue(model, issue) for issue in error.errors(include_url=False)]
        raise DataError(f"{path}: {'; '.join(issues)}") from error


def _issue(model: type[BaseModel], issue: Any) -> str:
    path = [str(step) for step in issue["loc"]]
    if issue["type"] == "extra_forbidden":
        known = [field.alias or key for key, field in _inner(model, path[:-1]).model_fields.items()]
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        return f"{'.'.join(path)}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
    if issue["type"] == "missing":
        return f"{'.'.join(path)}: is required"
    reason = issue["msg"].removeprefix("Value error, ")
    return f"{'.'.join(path)}: {reason}" if path else str(reason)


def _inner(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The model that a path of keys leads to."""
    for key in path:
        kind = model.model_fields[key].annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        model = kind
    return model
