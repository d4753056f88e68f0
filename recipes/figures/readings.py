"""What an evaluation's report says, as estimates."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from findings import Estimate

from mllmtool.evaluation.results import Results
from mllmtool.metrics.statistics import wilson

NEW = "id_text_id_image"
OLD = ("id_text_ood_image", "ood_text_id_image", "ood_text_ood_image")
DISTRACTED = "distracted"  # the distractor test
FAILING = "ood_text_id_image"  # where the paper's failure is


def read(path: Path) -> Results:
    """The results of one evaluation."""
    return Results.model_validate(json.loads(path.read_text(encoding="utf-8"))["results"])


def delta(results: Results, checkpoint: str, quadrant: str) -> Estimate:
    """A quadrant against the base: of the new task in its own, of the original tasks elsewhere."""
    if checkpoint == results.base.label:
        return Estimate(0.0, 0.0, 0.0)
    role = "new" if quadrant == NEW else "original"
    row = next(row for row in results.of(checkpoint, role) if row.quadrant == quadrant)
    return Estimate(row.delta, *row.ci)


def cell_delta(results: Results, checkpoint: str, task: str) -> Estimate:
    """A task against the base."""
    compared = results.cell(checkpoint, task).vs_base
    return Estimate(compared.delta, *compared.ci) if compared else Estimate(0.0, 0.0, 0.0)


def score(results: Results, checkpoint: str, task: str) -> Estimate:
    """A task's primary metric."""
    primary = next(row.primary for row in results.tasks if row.name == task)
    found = results.cell(checkpoint, task).metrics[primary]
    return Estimate(found.value, *found.ci)


def mischoice(results: Results, checkpoint: str) -> Estimate:
    """The share of answers to the distractor test that are the class name, Wilson's interval."""
    value = results.cell(checkpoint, DISTRACTED).metrics["mischoice"].value
    number = next(row.n for row in results.tasks if row.name == DISTRACTED)
    return Estimate(value, *wilson(value * number, number))


def spread(estimates: Sequence[Estimate], sign: str = "+") -> str:
    """Of one seed the estimate with its interval; of several their mean, least and most."""
    values = [estimate.value for estimate in estimates]
    several = Estimate(float(np.mean(values)), min(values), max(values))
    return (several if len(values) > 1 else estimates[0]).shown(sign)
