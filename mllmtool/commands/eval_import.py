"""`eval-matrix import`: results of another harness, judged as those of `eval-matrix` itself."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mllmtool.configs.eval_handoff import EvalImportConfig
from mllmtool.context import Context
from mllmtool.data.suites import Suite, read_suite
from mllmtool.errors import DataError
from mllmtool.evaluation.evaluations import assess, read_tasks, settings_of, suite_artifacts
from mllmtool.evaluation.imports import import_predictions, result_file
from mllmtool.evaluation.labelled import BASE, labelled_paths
from mllmtool.evaluation.predictions import predictions_path, write_predictions
from mllmtool.evaluation.report import write_pages
from mllmtool.evaluation.results import CheckpointRow
from mllmtool.evaluation.suite_checks import problems, tasks_of
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made

Files = dict[str, dict[str, Path]]  # by checkpoint and task


def run(config: EvalImportConfig, context: Context, into: Path) -> Made:
    """Write predictions, and of them what `eval-matrix` writes."""
    suite = read_suite(config.suite)
    files = _files(config, suite)
    for problem in problems(suite, config.margin or suite.file.margin):
        context.warn(problem)
    for label, found in files.items():
        for task in suite.tasks:
            predictions = import_predictions(found[task.name], config.source, task)
            write_predictions(predictions_path(into, label, task), predictions)
    inputs = {
        label: [_artifact(label, path) for path in found.values()] for label, found in files.items()
    }
    rows = [CheckpointRow(label=label, fingerprint=_whole(of)) for label, of in inputs.items()]
    tasks = read_tasks(suite, list(files), into)
    settings = settings_of(suite, config.margin, config.bootstrap, context)
    results = assess(rows, tasks, settings, ())
    write_pages(results, tasks, suite, into)
    read = [one for of in inputs.values() for one in of]
    return Made([*read, *suite_artifacts(suite)], results.model_dump(mode="json"), {})


def plan(config: EvalImportConfig, context: Context) -> dict[str, Any]:  # noqa: ARG001 (contract)
    """Check suite and result files, and say which are read."""
    suite = read_suite(config.suite)
    files = _files(config, suite)
    for found in files.values():
        for task in suite.tasks:
            import_predictions(found[task.name], config.source, task)
    return {
        "tasks": tasks_of(suite),
        "items": suite.num_items,
        "files": {
            label: {name: str(path) for name, path in found.items()}
            for label, found in files.items()
        },
    }


def _files(config: EvalImportConfig, suite: Suite) -> Files:
    paths = labelled_paths(config.base, config.checkpoint)
    for path in paths.values():
        if len(suite.tasks) > 1 and Path(path).is_file():
            raise DataError(
                f"{path}: holds results of one task, and {suite.path} has {len(suite.tasks)};"
                " name the folder of all results"
            )
    return {
        label: {task.name: result_file(Path(path), config.source, task) for task in suite.tasks}
        for label, path in paths.items()
    }


def _artifact(label: str, path: Path) -> Artifact:
    role = "base" if label == BASE else "checkpoint"
    return Artifact(role=role, path=str(path), sha256=file_sha256(path))


def _whole(files: Iterable[Artifact]) -> str:
    """What stands for a checkpoint that is not at hand: the hash of its results."""
    return hashlib.sha256("".join(one.sha256 for one in files).encode()).hexdigest()
