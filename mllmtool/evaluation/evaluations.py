"""What `eval-matrix` made, read again and judged anew; no model is needed."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from mllmtool.configs.eval_matrix import EvalMatrixConfig
from mllmtool.context import Context
from mllmtool.data.suites import Suite, read_suite
from mllmtool.errors import DataError
from mllmtool.evaluation.findings import find
from mllmtool.evaluation.predictions import predictions_path, read_predictions
from mllmtool.evaluation.results import CheckpointRow, Results
from mllmtool.evaluation.scoring import Settings, TaskAnswers, read_answers, score
from mllmtool.evaluation.staging import find_stages
from mllmtool.reports import Artifact, Report, file_sha256, read_report
from mllmtool.reports.report import REPORT_NAME

COMMAND = "eval-matrix"
COMMANDS = (COMMAND, f"{COMMAND} import")  # that make such a directory


@dataclass(frozen=True)
class Evaluation:
    """A directory of predictions with its report."""

    folder: Path
    report: Report
    results: Results

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Read the report.

        Raises:
            DataError: there is none, or another command made it.
        """
        path = Path(folder) / REPORT_NAME
        report = read_report(path)
        if report.command not in COMMANDS:
            raise DataError(f"{path}: is a report of {report.command}, not of {COMMAND}")
        try:
            return cls(Path(folder), report, Results.model_validate(report.results))
        except ValidationError as error:
            raise DataError(
                f"{path}: results are not those of {COMMAND} {report.version}"
            ) from error

    @cached_property
    def suite_path(self) -> str:
        """Where the suite was."""
        return next(one.path for one in self.report.inputs if one.role == "suite")

    def suite(self, path: str | None = None) -> Suite:
        """The suite with the items that were asked; metrics and answers may have changed since.

        Raises:
            DataError: tasks, prompts, options or pictures are not those that were asked.
        """
        if path is None and not Path(self.suite_path).exists():
            raise DataError(f"{self.suite_path}: no such suite; name it with --suite")
        context = Context(seed=self.report.seed)
        suite = _limited(
            read_suite(path or self.suite_path), self.report.config.get("limit"), context
        )
        asked = {task.name: task.asked_sha256 for task in self.results.tasks}
        for task in suite.tasks:
            if task.name not in asked:
                raise DataError(f"{task.path}: {task.name} was not asked in {self.folder}; {AGAIN}")
            if asked[task.name] != task.asked_sha256(task.image_digests):
                raise DataError(
                    f"{task.path}: items, prompts, options or pictures have changed since"
                    f" {self.folder} was made; {AGAIN}"
                )
        return suite


AGAIN = "put the suite back, or run eval-matrix again"


def read_limited(config: EvalMatrixConfig, context: Context) -> Suite:
    """The suite of a config, at most as many items of each task as it says.

    Raises:
        DataError: the suite is wrong.
    """
    return _limited(read_suite(config.suite or ""), config.limit, context)


def _limited(suite: Suite, limit: int | None, context: Context) -> Suite:
    """At most `limit` items of each task, drawn by the seeds of run and suite."""
    if limit is None:
        return suite
    return suite.of(
        task.limited(limit, context.rng(f"limit/{suite.file.seed}/{task.name}"))
        for task in suite.tasks
    )


def read_tasks(suite: Suite, labels: Sequence[str], folder: Path) -> list[TaskAnswers]:
    """What checkpoints answered, the base's first, from the predictions in a directory.

    Raises:
        DataError: predictions are missing, broken, or of other items.
    """
    return [
        TaskAnswers(
            task=task,
            clusters=task.image_digests,
            answers={
                label: read_answers(
                    task, read_predictions(predictions_path(folder, label, task), task)
                )
                for label in labels
            },
        )
        for task in suite.tasks
    ]


def assess(
    rows: Sequence[CheckpointRow],
    tasks: Sequence[TaskAnswers],
    settings: Settings,
    stages: Sequence[str],
) -> Results:
    """Results with stages and findings.

    Raises:
        ConfigError: a stage names no checkpoint or task.
    """
    results = score(rows, tasks, settings)
    results = results.model_copy(update={"stages": find_stages(results, stages)})
    return results.model_copy(update={"findings": find(results)})


def settings_of(suite: Suite, margin: float | None, resamples: int, context: Context) -> Settings:
    """How deltas are judged; the margin is the suite's where none is given."""
    seeds = f"suite {suite.file.seed}"
    return Settings(
        margin or suite.file.margin,
        resamples,
        lambda name: context.stream_seed(f"{seeds}/{name}"),
    )


def suite_artifacts(suite: Suite) -> Iterator[Artifact]:
    """The files of a suite as inputs of a report."""
    yield Artifact(role="suite", path=str(suite.path), sha256=file_sha256(suite.path))
    for task in suite.tasks:
        images = hashlib.sha256("\n".join(task.image_digests).encode()).hexdigest()
        yield Artifact(role="task", path=str(task.path), sha256=file_sha256(task.path))
        yield Artifact(role="items", path=str(task.items_path), sha256=file_sha256(task.items_path))
        yield Artifact(role="images", path=str(task.root), sha256=images)
