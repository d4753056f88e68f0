"""A suite's scores by option likelihood alone: what a run in progress is probed with.

Tasks without options have none, and are passed over.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from torch import nn

from mllmtool.configs.finetune import Probe
from mllmtool.context import Context
from mllmtool.data.suites import Task, read_suite
from mllmtool.errors import DataError
from mllmtool.evaluation.inference import Reader
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.questions import encode, groups
from mllmtool.evaluation.scoring import QUADRANTS, ROLES, read_answers
from mllmtool.metrics.scores import METRICS
from mllmtool.models.encoding import Encoder


class SuiteProbe:
    """Questions encoded once, answered whenever it is called with a model in evaluation mode."""

    def __init__(self, probe: Probe, encoder: Encoder, context: Context) -> None:
        suite = read_suite(probe.suite)
        self.tasks = [
            task.limited(probe.limit or len(task.items), context.rng(f"probe/{task.name}"))
            for task in suite.tasks
            if task.file.type == "mcq"
        ]
        if probe.stop_if and not any(task.file.role == "original" for task in self.tasks):
            raise DataError(f"{suite.path}: no task has role original, and stop_if watches those")
        self._encoder = encoder
        asked = (
            replace(question, max_new_tokens=0)
            for task in context.track(self.tasks, "encode the probe")
            for question in encode(task, encoder)
        )
        self._groups = groups(asked, probe.batch)

    def __call__(self, model: nn.Module) -> dict[str, Any]:
        """Mean likelihood scores: by task, by quadrant and role, and of the original quadrants."""
        found: dict[str, dict[str, Prediction]] = {task.name: {} for task in self.tasks}
        reader = Reader(model, self._encoder)
        for group in self._groups:
            for question, prediction in reader.answer(group):
                found[question.task][question.item] = prediction
        scores = {task.name: _score(task, found[task.name]) for task in self.tasks}
        quadrants = {
            role: {
                quadrant.name: fmean(named)
                for quadrant in QUADRANTS
                if (named := _named(self.tasks, scores, quadrant.name, role))
            }
            for role in ROLES
        }
        original = quadrants["original"].values()
        return {
            "tasks": scores,
            "quadrants": quadrants,
            "original": fmean(original) if original else None,
        }


def _named(
    tasks: Sequence[Task], scores: dict[str, float], quadrant: str, role: str
) -> list[float]:
    return [
        scores[task.name]
        for task in tasks
        if (task.file.quadrant.name, task.file.role) == (quadrant, role)
    ]


def _score(task: Task, found: dict[str, Prediction]) -> float:
    answered = read_answers(task, [found[item.id] for item in task.items])
    return METRICS["likelihood"].of(answered) or 0.0
