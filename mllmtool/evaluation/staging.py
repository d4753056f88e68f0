"""The figures of a sequence of fine-tunings, from the checkpoints after its stages."""

from collections.abc import Sequence

from mllmtool.errors import ConfigError, some
from mllmtool.evaluation.results import Results, StageFigure, Stages
from mllmtool.metrics.stages import stage_figures


def find_stages(results: Results, named: Sequence[str]) -> Stages | None:
    """Stages as `LABEL=TASK`, or `LABEL` alone: then the new tasks are taken in their order.

    Raises:
        ConfigError: a checkpoint or a task is not of the report, or tasks and stages differ.
    """
    if not named:
        return None
    labels, tasks = _labels(results, named), _tasks(results, named)
    primary = {task.name: task.primary for task in results.tasks}
    scores = [
        [results.cell(label, task).metrics[primary[task]].value for task in tasks]
        for label in (results.base.label, *labels)
    ]
    return Stages(
        checkpoints=(results.base.label, *labels),
        tasks=tuple(tasks),
        scores=tuple(map(tuple, scores)),
        figures=tuple(
            StageFigure(**figure._asdict()) for figure in stage_figures(scores[0], scores[1:])
        ),
    )


def _labels(results: Results, named: Sequence[str]) -> list[str]:
    labels, known = [text.partition("=")[0] for text in named], [r.label for r in results.others]
    for label in labels:
        if label not in known:
            raise ConfigError(f"--stages: {label} is not among the checkpoints {some(known)}")
    return labels


def _tasks(results: Results, named: Sequence[str]) -> list[str]:
    asked = [task for text in named if (task := text.partition("=")[2])]
    if not asked:
        asked = [task.name for task in results.tasks if task.role == "new"]
    if len(asked) != len(named):
        raise ConfigError(
            f"--stages: {len(named)} stages for {len(asked)} tasks; write LABEL=TASK for each"
        )
    known = [task.name for task in results.tasks]
    for task in asked:
        if task not in known:
            raise ConfigError(f"--stages: {task} is not among the tasks {some(known)}")
    return asked
