"""Which classes the wrong options of a question are drawn from."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any

from mllmtool.data.labelled import Labelled
from mllmtool.errors import DataError, some

Near = Callable[[Labelled], Sequence[str]]  # classes, the most alike first


@dataclass(frozen=True)
class Pool:
    """Draws options: the right class, the fixed options, and classes up to `number`.

    With `near`, classes come from the first `topk` of it that are neither right nor fixed, all
    equally likely, and only where those are too few from the others. Without, from all.
    """

    classes: tuple[str, ...]
    number: int
    fixed: tuple[str, ...] = ()
    near: Near | None = None
    topk: int = 5

    def draw(self, labelled: Labelled, rng: Random) -> list[str]:
        """All options, in a random order."""
        first, shown = self._first(labelled), self._shown(labelled)
        missing = self.number - len(shown)
        drawn = rng.sample(first, min(missing, len(first)))
        if len(drawn) < missing:
            drawn += rng.sample(self._others(labelled, first), missing - len(drawn))
        return rng.sample([*shown, *drawn], self.number)

    def draw_wrong(self, labelled: Labelled, rng: Random) -> str:
        """One class that is not the right one; where all are fixed, one of them."""
        first = self._first(labelled)
        return rng.choice(first or self._others(labelled, first) or self._shown(labelled)[1:])

    def ways(self, labelled: Labelled) -> int:
        """How many different draws there are."""
        first = self._first(labelled)
        missing = self.number - len(self._shown(labelled))
        sets = math.comb(len(first), missing)
        if missing > len(first):
            others = self._others(labelled, first)
            sets = math.comb(len(others), missing - len(first))
        return sets * math.factorial(self.number)

    def _shown(self, labelled: Labelled) -> list[str]:
        return [labelled.class_name, *(text for text in self.fixed if text != labelled.class_name)]

    def _first(self, labelled: Labelled) -> Sequence[str]:
        """What is drawn from first."""
        if self.near is None:
            return _Without(*self._drawable, labelled.class_name)
        left_out = self._shown(labelled)
        return [name for name in self.near(labelled) if name not in left_out][: self.topk]

    def _others(self, labelled: Labelled, first: Sequence[str]) -> list[str]:
        """What makes up the number."""
        left_out = {*self._shown(labelled), *first}
        return [name for name in self.classes if name not in left_out]

    @cached_property
    def _drawable(self) -> tuple[list[str], dict[str, int]]:
        """The classes that are not fixed, and the place of each."""
        names = [name for name in self.classes if name not in self.fixed]
        return names, {name: index for index, name in enumerate(names)}


class _Without(Sequence[str]):
    """Names without one of them, if it is there; not copied, as there may be thousands."""

    def __init__(self, names: Sequence[str], places: Mapping[str, int], name: str) -> None:
        self._names = names
        self._place = places.get(name, len(names))

    def __len__(self) -> int:
        return len(self._names) - (self._place < len(self._names))

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]  # from the end too, and IndexError where it must be
        return self._names[place + (place >= self._place)]


def read_confusion(path: Path, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """For each class, those that it is ever taken for, the most often first; ties by their order.

    The file is `{"classes": [...], "matrix": [[...]]}`, where a row is a true class and a column a
    predicted one; counts and shares say the same, as rows are never compared.

    Raises:
        DataError: it is not such a file, or its classes are not exactly `classes`.
    """
    names, matrix = _confusion(path)
    if odd := [name for name in names if name not in classes]:
        raise DataError(f"{path}: classes: the images have no {some(odd)}")
    if odd := [name for name in classes if name not in names]:
        raise DataError(f"{path}: classes: has no {some(odd)}, as the images have")
    found = {}
    for name, row in zip(names, matrix, strict=True):
        values = _row(row, names, f"{path}: matrix: row of {name}")
        ranked = sorted(zip(values, names, strict=True), key=itemgetter(0), reverse=True)
        found[name] = tuple(other for value, other in ranked if value > 0 and other != name)
    return found


def _confusion(path: Path) -> tuple[list[str], list[Any]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict) or not all(
        isinstance(values.get(key), list) for key in ("classes", "matrix")
    ):
        raise DataError(f"{path}: is not a mapping with the lists classes and matrix")
    names, matrix = values["classes"], values["matrix"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise DataError(f"{path}: classes: are not texts, each once")
    if len(matrix) != len(names):
        raise DataError(f"{path}: matrix: {len(matrix)} rows for {len(names)} classes")
    return names, matrix


def _row(row: Any, names: Sequence[str], where: str) -> list[float]:
    if not isinstance(row, list) or len(row) != len(names):
        shown = f"{len(row)} columns" if isinstance(row, list) else "no list"
        raise DataError(f"{where}: {shown} for {len(names)} classes")
    for value in row:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise DataError(f"{where}: {value!r} is not a count or a share")
    return row
