"""`eval-matrix export`: a suite as files of another harness, and the command that runs them."""

import logging
from pathlib import Path
from typing import Any

from mllmtool.configs.eval_handoff import EvalExportConfig
from mllmtool.context import Context
from mllmtool.data.suites import read_suite
from mllmtool.evaluation.exports import export, names_of
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made

log = logging.getLogger(__name__)


def run(config: EvalExportConfig, context: Context, into: Path) -> Made:  # noqa: ARG001 (contract)
    """Write the files of the harness."""
    suite = read_suite(config.suite)
    command = export(suite, config.to, into)
    log.info("run in the output directory: %s", command)
    paths = [suite.path, *(path for task in suite.tasks for path in (task.path, task.items_path))]
    roles = ["suite", *(role for _ in suite.tasks for role in ("task", "items"))]
    inputs = [
        Artifact(role=role, path=str(path), sha256=file_sha256(path))
        for role, path in zip(roles, paths, strict=True)
    ]
    return Made(inputs, {"command": command, "tasks": names_of(suite.tasks)}, {})


def plan(config: EvalExportConfig, context: Context) -> dict[str, Any]:  # noqa: ARG001 (contract)
    """Check the suite and its images, and say what tasks will be called."""
    suite = read_suite(config.suite)
    for task in suite.tasks:
        for item in task.items:
            task.images(item)
    return {"tasks": names_of(suite.tasks), "items": suite.num_items}
