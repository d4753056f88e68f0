r"""The weight of a model: a number, or numbers over the depth, of parts or of expressions.

On the command line `0.5`; `0,1` from the first block to the last; or YAML, of which the first key
counts that is a tensor's part or that its name matches: `{language: [0, 1], 'mlp\.': 0.2}`.
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from mllmtool.configs.selection import parse_mapping

EVERYWHERE = ".*"
Spread = tuple[float, ...]  # from the first block to the last


def parse_weight(value: Any) -> Any:
    """A number, or the numbers of each part or expression.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str):
        value = value.split(",") if "{" not in value and "," in value else parse_mapping(value)
    if isinstance(value, Mapping):
        return {_expression(key): _spread(numbers) for key, numbers in value.items()}
    if isinstance(value, list | tuple):
        return {EVERYWHERE: _spread(value)}
    return _number(value)


Weight = Annotated[float | dict[str, Spread], BeforeValidator(parse_weight)]


def _spread(value: Any) -> Spread:
    numbers = value if isinstance(value, list | tuple) else [value]
    if not numbers:
        raise ValueError("holds no number")
    return tuple(map(_number, numbers))


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no number; give X, X,Y or {{PART: [X, Y]}}")
    return number


def _expression(key: Any) -> str:
    try:
        re.compile(key)
    except (re.error, TypeError) as error:
        raise ValueError(f"{key!r} is no part and no regular expression: {error}") from error
    return str(key)
