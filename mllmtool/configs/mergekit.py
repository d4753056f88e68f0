"""Recipes of mergekit as ours, where its method is here (`--compat mergekit`) and nothing is lost.

What would change the result and is not served is refused by its name. Whatever its `dtype`, all is
reckoned in float32.
"""

import re
from collections.abc import Mapping
from typing import Any

from mllmtool.configs.weights import EVERYWHERE
from mllmtool.errors import ConfigError, some

METHODS = {
    "linear": "linear",
    "task_arithmetic": "task-arithmetic",
    "ties": "ties",
    "model_stock": "model-stock",
}
FIXED = {  # parameters of which ours has no choice
    "linear": {"normalize": True},
    "task_arithmetic": {"normalize": False},
    "ties": {"normalize": True},
    "model_stock": {"filter_wise": False},
}
TOP = {"models", "merge_method", "base_model", "parameters", "dtype", "out_dtype"}
BOTH = {"weight", "density"}  # parameters of a model, or of all
GLOBAL = {*BOTH, "lambda", "int8_mask"}  # the last has no effect on the result


def is_mergekit(values: Mapping[str, Any]) -> bool:
    """Whether a recipe is one of mergekit's."""
    return "merge_method" in values


def from_mergekit(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `FuseConfig`.

    Raises:
        ConfigError: a key, a method or a value that is not served, or a key that is missing.
    """
    method, base = values["merge_method"], values.get("base_model")
    if method not in METHODS:
        raise ConfigError(f"merge_method: {method!r} is not served; {', '.join(METHODS)} are")
    _check(values, TOP, "")
    common = _mapping(values.get("parameters") or {}, "parameters")
    _check(common, GLOBAL | FIXED[method].keys(), "parameters.")
    for key, value in FIXED[method].items():
        if common.get(key, value) is not value:
            raise ConfigError(f"parameters.{key}: only {value} is served of {method}")
    models = _models(values, common)
    if base is None and method != "linear":
        raise ConfigError(f"base_model: is required by {method}")
    if method != "linear":  # it skips the base among the models
        models = {path: each for path, each in models.items() if path != base}
    weighed = method != "model_stock" or any("weight" in each for each in models.values())
    found = {
        "method": METHODS[method],
        "compat": "mergekit",
        "base": base or next(iter(models)),
        "model": list(models),
        "weight": [each.get("weight", 1.0) for each in models.values()] if weighed else None,
        "density": _one_density(models) if method == "ties" else None,
        "scale": _number(common.get("lambda"), "parameters.lambda"),
        "dtype": values.get("out_dtype") or values.get("dtype"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _models(values: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The parameters of each model, its own before those of all."""
    rows = values.get("models")
    if not isinstance(rows, list) or not rows:
        raise ConfigError("models: is no list of models; slices and modules are not served")
    found: dict[str, dict[str, Any]] = {}
    for i, row in enumerate(rows):
        _check(_mapping(row, f"models ({i})"), {"model", "parameters"}, f"models ({i}).")
        path, where = row.get("model"), f"models ({i}).parameters"
        if not isinstance(path, str) or path in found:
            raise ConfigError(f"models ({i}).model: {path!r} is no path, or is given twice")
        own = _mapping(row.get("parameters") or {}, where)
        _check(own, BOTH, f"{where}.")
        both = {key: own.get(key, common.get(key)) for key in BOTH}
        found[path] = {"density": _number(both["density"], f"{where}.density")}
        if own.get("weight") is not None or common.get("weight") is not None:
            found[path]["weight"] = _weight(own.get("weight"), common.get("weight"), where)
    return found


def _weight(own: Any, common: Any, where: str) -> Any:
    """As `configs.weights` has it: what fits no filter of a model's own is as it is for all."""
    rules: dict[str, Any] = {}
    for setting in (own, common):
        for rule in _rules(setting, f"{where}.weight"):
            rules.setdefault(*rule)
    return rules[EVERYWHERE] if next(iter(rules)) == EVERYWHERE else rules


def _rules(setting: Any, where: str) -> list[tuple[str, Any]]:
    """An expression and its number or gradient each, of a setting with filters or without."""
    if isinstance(setting, Mapping):
        setting = [setting]
    if not isinstance(setting, list) or not any(isinstance(each, Mapping) for each in setting):
        return [] if setting is None else [(EVERYWHERE, setting)]
    found = []
    for each in setting:
        _check(_mapping(each, where), {"filter", "value"}, f"{where}.")
        name = each.get("filter")
        everywhere = name is None or name == "*"
        found.append((EVERYWHERE if everywhere else f"({re.escape(str(name))})", each.get("value")))
    return found


def _one_density(models: Mapping[str, Mapping[str, Any]]) -> float:
    densities = {1.0 if each["density"] is None else each["density"] for each in models.values()}
    if len(densities) > 1:
        raise ConfigError(f"density: {sorted(densities)} differ; one for all models is served")
    return densities.pop() if densities else 1.0


def _check(values: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(where + str(key) for key in set(values) - known)
    if unknown:
        raise ConfigError(f"{some(unknown)}: not served of mergekit's recipes")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: is not a mapping of keys")
    return value


def _number(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}: is no number; gradients and filters are not served")
    return float(value)
