"""Values to try, each combination a point: `density=0.05,0.1 scale=0.1:1.0:10`."""

from collections.abc import Mapping
from itertools import product
from typing import Any, TypeVar

from mllmtool.configs.base import Config
from mllmtool.configs.selection import parse_pairs

C = TypeVar("C", bound=Config)
DIGITS = 12  # of evenly spaced values, so that 0.3 is no 0.30000000000000004


def parse_sweep(value: Any) -> Any:
    """`["density=0.1,0.2", ...]`, or several of these in one text, as a mapping of numbers.

    `FIRST:LAST:COUNT` are evenly spaced.

    Raises:
        ValueError: a text is not KEY=NUMBER,NUMBER, or a range has no two numbers or more.
    """
    words = [word for item in value for word in str(item).split()]
    pairs = parse_pairs(words) if isinstance(value, list | tuple) else value
    return {key: _values(v) if isinstance(v, str) else v for key, v in pairs.items()}


def sweep_points(
    config: C, sweep: Mapping[Any, tuple[float, ...]], called: Mapping[str, str]
) -> dict[str, C]:
    """A config for each combination, by a name that is fit for a folder; itself where none is.

    `called`: the fields of keys that are not named like them.

    Raises:
        ConfigError: a value is out of its range.
    """
    if not sweep:
        return {"": config}
    found = {}
    for values in product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        fields = {called.get(key, key.replace("-", "_")): v for key, v in chosen.items()}
        name = "_".join(f"{key}-{value:g}" for key, value in chosen.items())
        found[name] = config.parse({**config.model_dump(exclude={"sweep"}), **fields}, "--sweep")
    return found


def _values(text: str) -> list[Any]:
    if ":" not in text:
        return list(text.split(","))
    try:
        first, last, count = text.split(":")
        steps, span = int(count) - 1, float(last) - float(first)
    except ValueError as error:
        raise ValueError(f"{text!r} is not FIRST:LAST:COUNT") from error
    if steps < 1:
        raise ValueError(f"{text!r}: a range has two values or more")
    return [float(f"{float(first) + span * i / steps:.{DIGITS}g}") for i in range(steps + 1)]
