"""Choose among checkpoints on one half of a suite's items, and score the choice on the other.

Its pictures' bytes and the seed tell an item's half, its name where it has none: no picture is in
both.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mllmtool.context import Context
from mllmtool.data.suites import Suite, Task, read_suite
from mllmtool.errors import DataError
from mllmtool.evaluation import runs
from mllmtool.evaluation.evaluations import assess, settings_of, suite_artifacts
from mllmtool.evaluation.labelled import Labelled, describe, open_labelled
from mllmtool.evaluation.results import Results
from mllmtool.evaluation.scoring import TaskAnswers, read_answers
from mllmtool.evaluation.shipping import best
from mllmtool.evaluation.store import opened
from mllmtool.evaluation.suite_checks import problems
from mllmtool.models.devices import chosen_device
from mllmtool.reports import Artifact

BATCH, RESAMPLES = 32, 10000


@dataclass(frozen=True)
class Choice:
    """The label that was chosen, what a report says of it, and the files that it rests on."""

    label: str
    said: dict[str, Any]
    inputs: tuple[Artifact, ...]


def halves(path: str, context: Context) -> tuple[Suite, Suite]:
    """The suite to choose on and the suite to score on.

    Raises:
        DataError: the suite is wrong or has original or new tasks only, or a task has too few
            pictures for two halves.
    """
    suite = read_suite(path)
    roles = {task.file.role for task in suite.tasks}
    for role in ("original", "new"):
        if role not in roles:
            raise DataError(f"{suite.path}: no task has role {role}; give original and new ones")
    first, second = (
        suite.of(_half(task, f"half/{suite.file.seed}", (number, context)) for task in suite.tasks)
        for number in (0, 1)
    )
    return first, second


def choose(
    suites: tuple[Suite, Suite],
    base: str,
    points: Mapping[str, Path],
    max_loss: float,
    context: Context,
) -> Choice:
    """The most gain among the points that lose at most `max_loss`, by the first of the suites.

    Raises:
        DataError: no point is fit.
    """
    chosen_on, scored_on = suites
    for problem in problems(chosen_on, chosen_on.file.margin):
        context.warn(f"the half to choose on: {problem}")
    folder = next(iter(points.values())).parent / ".predictions"
    others = [f"{label}={path}" for label, path in points.items()]
    first = _judge(chosen_on, open_labelled(base, others), context, folder)
    label, reasons = best(first, max_loss)
    if label not in points:
        raise DataError(
            f"{chosen_on.path}: {'; '.join(reasons)}; sweep other values, or allow more"
        )
    final = _judge(scored_on, open_labelled(base, [f"{label}={points[label]}"]), context, folder)
    said = {
        "checkpoint": label,
        "reasons": reasons,
        "points": [first.balance(point).model_dump(mode="json") for point in ("base", *points)],
        "scored": {
            **final.balance(label).model_dump(mode="json"),
            "quadrants": [
                row.model_dump(mode="json") for row in final.quadrants if row.checkpoint == label
            ],
        },
        "chosen_on": {task.name: [item.id for item in task.items] for task in chosen_on.tasks},
        "scored_on": {task.name: len(task.items) for task in scored_on.tasks},
    }
    return Choice(label, said, tuple(suite_artifacts(read_suite(chosen_on.path))))


def _half(task: Task, stream: str, which: tuple[int, Context]) -> Task:
    number, context = which
    pairs = zip(task.items, task.image_digests, strict=True)
    seeds = [(item, context.stream_seed(f"{stream}/{digest}")) for item, digest in pairs]
    items = [item for item, seed in seeds if seed % 2 == number]
    if not items:
        raise DataError(
            f"{task.items_path}: all {len(task.items)} items fall into one half; more pictures are"
            " needed to choose on some and to score on others"
        )
    return replace(task, items=tuple(items))


def _judge(
    suite: Suite, checkpoints: Sequence[Labelled], context: Context, folder: Path
) -> Results:
    """Results of the checkpoints, the base's first; `folder` holds predictions meanwhile."""
    with opened(folder) as store:
        settings = runs.Settings(store, BATCH, chosen_device("auto"))
        found = dict(runs.run(checkpoints, suite.tasks, settings, context))
    shutil.rmtree(folder)
    answers = list(_answers(suite, found))
    judged = settings_of(suite, None, RESAMPLES, context)
    return assess(describe(checkpoints), answers, judged, ())


def _answers(suite: Suite, found: Mapping[str, runs.Found]) -> Iterator[TaskAnswers]:
    for task in suite.tasks:
        of_task = {label: read_answers(task, each[task.name]) for label, each in found.items()}
        yield TaskAnswers(task=task, clusters=task.image_digests, answers=of_task)
