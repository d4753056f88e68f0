"""`eval-matrix`: checkpoints on a suite, the 2x2 matrix against the base, with verdicts.

run -> predictions -> scores -> report: each step reads only what the one before it wrote, and only
the first needs a model. `--only` begins with a later one.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mllmtool.configs.eval_matrix import EvalMatrixConfig
from mllmtool.context import Context, is_main_process
from mllmtool.evaluation.evaluations import (
    Evaluation,
    assess,
    read_limited,
    read_tasks,
    settings_of,
    suite_artifacts,
)
from mllmtool.evaluation.labelled import Labelled, describe, open_labelled
from mllmtool.evaluation.predictions import PREDICTIONS
from mllmtool.evaluation.report import write_pages
from mllmtool.evaluation.results import CheckpointRow
from mllmtool.evaluation.suite_checks import cost, problems, tasks_of
from mllmtool.reports import Artifact, file_sha256
from mllmtool.reports.report import REPORT_NAME
from mllmtool.runner import Made


def run(config: EvalMatrixConfig, context: Context, into: Path) -> Made:
    """Write predictions, `report.md`, `report.html`, pictures and tables."""
    if config.evals is not None:
        return _again(config, config.evals, context, into)
    from mllmtool.evaluation.predicting import assist, predict  # the step that needs torch

    if not is_main_process():
        assist(config, context)
        return Made([], {}, {})
    suite = read_limited(config, context)
    checkpoints = open_labelled(config.base or "", config.checkpoint)
    for problem in problems(suite, config.margin or suite.file.margin):
        context.warn(problem)
    how = predict(config, context, (suite, checkpoints), into)
    rows = describe(checkpoints)
    tasks = read_tasks(suite, [row.label for row in rows], into)
    settings = settings_of(suite, config.margin, config.bootstrap, context)
    results = assess(rows, tasks, settings, config.stages)
    write_pages(results, tasks, suite, into)
    return Made(
        [*_artifacts(config, checkpoints, rows), *suite_artifacts(suite)],
        results.model_dump(mode="json"),
        how,
    )


def plan(config: EvalMatrixConfig, context: Context) -> dict[str, Any]:
    """Check suite, images and headers of checkpoints, and say what would be run."""
    if config.evals is not None:
        evaluation = Evaluation.open(config.evals)
        suite = evaluation.suite(config.suite)
        labels = [{"label": row.label} for row in evaluation.results.checkpoints]
        return {"tasks": tasks_of(suite), "items": suite.num_items, "checkpoints": labels}
    suite = read_limited(config, context)
    checkpoints = open_labelled(config.base or "", config.checkpoint)
    return {
        "tasks": tasks_of(suite),
        "items": suite.num_items,
        "checkpoints": [
            {"label": one.label, "path": str(one.checkpoint.path)} for one in checkpoints
        ],
        "cost": cost(suite.tasks, [_weight(one) for one in checkpoints]),
        "problems": list(problems(suite, config.margin or suite.file.margin)),
    }


def _again(config: EvalMatrixConfig, evals: str, context: Context, into: Path) -> Made:
    """Score earlier predictions again, or only write the report of earlier results again."""
    evaluation = Evaluation.open(evals)
    suite = evaluation.suite(config.suite)
    rows = evaluation.results.checkpoints
    shutil.copytree(evaluation.folder / PREDICTIONS, into / PREDICTIONS)
    tasks = read_tasks(suite, [row.label for row in rows], into)
    results = evaluation.results
    if config.only == "score":
        for problem in problems(suite, config.margin or suite.file.margin):
            context.warn(problem)
        settings = settings_of(suite, config.margin, config.bootstrap, context)
        results = assess(rows, tasks, settings, config.stages)
    write_pages(results, tasks, suite, into)
    report = evaluation.folder / REPORT_NAME
    inputs = [Artifact(role="evals", path=str(report), sha256=file_sha256(report))]
    inputs += [one for one in evaluation.report.inputs if one.role in ("base", "checkpoint")]
    return Made([*inputs, *suite_artifacts(suite)], results.model_dump(mode="json"), {})


def _weight(labelled: Labelled) -> int:
    checkpoint = labelled.checkpoint
    return sum(checkpoint.info(name).num_bytes for name in checkpoint.names)


def _artifacts(
    config: EvalMatrixConfig, checkpoints: Sequence[Labelled], rows: Sequence[CheckpointRow]
) -> list[Artifact]:
    roles = ["base"] + ["checkpoint"] * len(config.checkpoint)
    return [
        Artifact(role=role, path=str(one.checkpoint.path), sha256=row.fingerprint)
        for role, one, row in zip(roles, checkpoints, rows, strict=True)
    ]
