"""Result files of other harnesses as predictions of a task, joined strictly by item.

A file says which item a response is for by its place, and repeats the item's name or the right
answer; a place that is missing, doubled or contradicted is an error, never a skipped row.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmtool.data.items import Item
from mllmtool.data.samples import read_jsonl
from mllmtool.data.suites import Task
from mllmtool.data.task_types import LIKELIHOODS
from mllmtool.errors import DataError, some
from mllmtool.evaluation.exports import accepted, label, slug
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.spreadsheets import read_sheet
from mllmtool.metrics.choices import exact_choice, lenient_choice, normal


@dataclass(frozen=True)
class Said:
    """A response, the place of its item, and what its file repeats of the item.

    `item` is its label, `answer` what counts as right; None where the file has no such column.
    """

    where: str
    place: int
    response: str
    item: str | None = None
    answer: str | None = None


def result_file(path: Path, source: str, task: Task) -> Path:
    """The file of a task's results: the path itself, or the one in that folder.

    Raises:
        DataError: there is none, or more than one.
    """
    if not path.is_dir():
        return path
    patterns = [text.format(name=slug(task.name), task=task.name) for text in PATTERNS[source]]
    found = sorted({file for pattern in patterns for file in path.rglob(pattern)})
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{path}: has no {' or '.join(patterns)}, the results of {task.name}")
    names = some([str(file.relative_to(path)) for file in found])
    raise DataError(f"{path}: has {names} of {task.name}; name the folder of one of them")


def import_predictions(path: Path, source: str, task: Task) -> list[Prediction]:
    """A task's predictions from a harness's result file, in the order of its items.

    Raises:
        DataError: the file is of another kind, or its items are not those of the task.
    """
    if task.file.verdict_metric in LIKELIHOODS:
        raise DataError(
            f"{task.path}: primary: {task.file.verdict_metric} needs likelihoods, and results of"
            f" {source} have none; choose another"
        )
    found: dict[int, Said] = {}
    for said in READERS[source](path):
        _check(said, task)
        if said.place in found:
            raise DataError(f"{said.where}: is the item of {found[said.place].where} again")
        found[said.place] = said
    missing = [item.id for place, item in enumerate(task.items) if place not in found]
    if missing:
        raise DataError(f"{path}: lacks {some(missing)}, against {task.items_path}")
    return [
        Prediction(item=item.id, response=found[place].response, finish="end")
        for place, item in enumerate(task.items)
    ]


def _check(said: Said, task: Task) -> None:
    if not 0 <= said.place < len(task.items):
        raise DataError(
            f"{said.where}: is of item {said.place}, and {task.items_path} has"
            f" {len(task.items)}, counted from 0"
        )
    item = task.items[said.place]
    if said.item is not None and said.item != label(task, item):
        raise DataError(f"{said.where}: is of {said.item}; {label(task, item)} has its place")
    if said.answer is not None and not _is_right(said.answer, task, item):
        right = some([repr(text) for text in accepted(task, item)])
        raise DataError(
            f"{said.where}: its right answer is {said.answer!r}; that of {item.id}, which has its"
            f" place in {task.items_path}, is {right}"
        )


def _is_right(answer: str, task: Task, item: Item) -> bool:
    """Whether a text is one of the right answers, or chooses the right option."""
    if normal(answer) in [normal(text) for text in accepted(task, item)]:
        return True
    return bool(item.options) and item.answer in {
        read(answer, item.options).index for read in (exact_choice, lenient_choice)
    }


def _lmms_eval(path: Path) -> Iterator[Said]:
    """`*_samples_TASK.jsonl`, as `--log_samples` writes it; `resps` may be left out."""
    for line, row in read_jsonl(path):
        where = f"{path}:{line}"
        said = row.get("filtered_resps", row.get("resps"))
        while isinstance(said, list) and said:
            said = said[0]
        if not isinstance(said, str):
            raise DataError(f"{where}: holds no response in filtered_resps or resps")
        yield Said(where, _place(row, "doc_id", where), said, answer=_text(row, "target", where))


def _llama_factory(path: Path) -> Iterator[Said]:
    """`generated_predictions.jsonl`: the rows of its dataset in order, with their labels."""
    for place, (line, row) in enumerate(read_jsonl(path)):
        where = f"{path}:{line}"
        yield Said(where, place, _text(row, "predict", where), answer=_text(row, "label", where))


def _vlmevalkit(path: Path) -> Iterator[Said]:
    """`MODEL_DATASET.tsv`, `.json` or `.xlsx`: the columns of the dataset, and `prediction`."""
    if path.suffix not in TABLES:
        raise DataError(f"{path}: is not one of {', '.join(TABLES)}; set PRED_FORMAT=tsv")
    for number, row in enumerate(TABLES[path.suffix](path)):
        where = f"{path} (row {number})"
        item, said = _text(row, "item", where), _text(row, "prediction", where)
        yield Said(where, _place(row, "index", where), said, item=item)


def _tsv(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file, dialect="excel-tab")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _json(path: Path) -> Iterator[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: is not a list of rows")
    yield from rows


def _text(row: dict[str, Any], key: str, where: str) -> str:
    if key not in row:
        raise DataError(f"{where}: lacks {key}")
    return "" if row[key] is None else str(row[key])


def _place(row: dict[str, Any], key: str, where: str) -> int:
    text = _text(row, key, where)
    if not re.fullmatch(r"\d{1,12}", text, re.ASCII):
        raise DataError(f"{where}: {key} {text!r} is not the number of an item")
    return int(text)


TABLES: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
    ".tsv": _tsv,
    ".json": _json,
    ".xlsx": read_sheet,
}
PATTERNS = {
    "lmms-eval": ("*samples_{name}.jsonl", "samples_{name}_2*.jsonl"),
    "vlmevalkit": tuple(f"*_{{name}}{suffix}" for suffix in TABLES),
    "llama-factory": ("{task}/generated_predictions.jsonl",),
}
READERS: dict[str, Callable[[Path], Iterator[Said]]] = {
    "lmms-eval": _lmms_eval,
    "vlmevalkit": _vlmevalkit,
    "llama-factory": _llama_factory,
}
