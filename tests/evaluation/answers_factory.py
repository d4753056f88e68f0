"""Answers without a model: which items each checkpoint got right, as rows of 1 and 0."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllmtool.data.items import Item
from mllmtool.data.suites import Task, TaskFile
from mllmtool.evaluation.results import CheckpointRow, Results
from mllmtool.evaluation.scoring import Settings, TaskAnswers, score
from mllmtool.metrics.scores import Answered

OPTIONS = ("cat", "dog")


def seed_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def task_answers(
    name: str,
    quadrant: str,
    rows: Mapping[str, str],
    likely: Mapping[str, str] | None = None,
    **keys: Any,
) -> TaskAnswers:
    """A task in `text/image`; a row is a mark an item: `1` right, `0` wrong, `-` no answer.

    `likely` gives rows by likelihood where they differ.
    """
    text, image = quadrant.split("/")
    number = len(next(iter(rows.values())))
    file = {
        "schema": "mllmtool.task/1",
        "name": name,
        "items": f"{name}.jsonl",
        "quadrant": {"text": text, "image": image},
        "role": "original",
        "type": "mcq",
        "answer": "letter",
    }
    items = tuple(
        Item(id=f"{name}-{n}", question="Which?", options=OPTIONS, answer=n % 2)
        for n in range(number)
    )
    return TaskAnswers(
        task=Task(Path(f"{name}.yaml"), TaskFile.model_validate({**file, **keys}), items),
        clusters=tuple(f"image {n}" for n in range(number)),
        answers={
            label: [
                _answered(item, said, guess)
                for item, said, guess in zip(
                    items, marks, (likely or {}).get(label, marks), strict=True
                )
            ]
            for label, marks in rows.items()
        },
    )


def marks(right: int, total: int) -> str:
    """The first `right` items right."""
    return "1" * right + "0" * (total - right)


def checkpoint(label: str, **keys: Any) -> CheckpointRow:
    return CheckpointRow(**{"label": label, "fingerprint": f"sha of {label}", **keys})


def results_of(
    *tasks: TaskAnswers, margin: float = 0.02, rows: list[CheckpointRow] | None = None
) -> Results:
    """Scored, with few resamples."""
    labels = list(tasks[0].answers)
    return score(
        rows or [checkpoint(label) for label in labels], tasks, Settings(margin, 400, seed_of)
    )


def _answered(item: Item, said: str, guess: str) -> Answered:
    response = "" if said == "-" else "AB"[item.answer if said == "1" else 1 - item.answer]
    right = 0.0 if guess == "1" else -2.0
    logprobs = tuple(right if n == item.answer else -1.0 for n in range(len(OPTIONS)))
    return Answered("letter", OPTIONS, item.answer, response, logprobs)
