"""`eval-matrix`: checkpoints on a suite, the 2x2 matrix against the base, with verdicts.

run -> predictions -> scores -> report: each step reads only what the one before it wrote.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mllmtool.configs.eval_matrix import EvalMatrixConfig
from mllmtool.context import Context, is_main_process
from mllmtool.data.suites import Suite, read_suite
from mllmtool.errors import ConfigError, OutputError
from mllmtool.evaluation.findings import find
from mllmtool.evaluation.labelled import Labelled, describe, open_labelled
from mllmtool.evaluation.parallel import helpers
from mllmtool.evaluation.predictions import predictions_path, read_predictions, write_predictions
from mllmtool.evaluation.report import write_pages
from mllmtool.evaluation.results import CheckpointRow
from mllmtool.evaluation.runs import Settings as RunSettings
from mllmtool.evaluation.runs import assist, image_digests
from mllmtool.evaluation.runs import run as run_checkpoints
from mllmtool.evaluation.scoring import QUADRANTS, Settings, TaskAnswers, read_answers, score
from mllmtool.evaluation.store import Store, opened, wait_for
from mllmtool.evaluation.wording import points, quadrant
from mllmtool.models.devices import chosen_device
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made


def run(config: EvalMatrixConfig, context: Context, into: Path) -> Made:
    """Write predictions, `report.md`, `report.html` and pictures."""
    if not is_main_process():
        _assist(config, context)
        return Made([], {}, {})
    suite, checkpoints = _suite(config, context), open_labelled(config.base, config.checkpoint)
    margin = config.margin or suite.file.margin
    for problem in _problems(suite, margin):
        context.warn(problem)
    clusters = _predict(config, context, (suite, checkpoints), into)
    rows = describe(checkpoints)
    tasks = [
        TaskAnswers(
            task=task,
            clusters=clusters[task.name],
            answers={
                row.label: read_answers(
                    task, read_predictions(predictions_path(into, row.label, task), task)
                )
                for row in rows
            },
        )
        for task in suite.tasks
    ]
    seeds = f"suite {suite.file.seed}"
    settings = Settings(
        margin, config.bootstrap, lambda name: context.stream_seed(f"{seeds}/{name}")
    )
    results = score(rows, tasks, settings)
    results = results.model_copy(update={"findings": find(results)})
    write_pages(results, tasks, f"Forgetting on {suite.path.name}", into)
    return Made(
        inputs=[*_artifacts(config, checkpoints, rows), *_suite_artifacts(suite, clusters)],
        results=results.model_dump(mode="json"),
        run={
            "torch": torch.__version__,
            "device": str(chosen_device(config.device)),
            "workers": config.workers,
            "threads": torch.get_num_threads(),
        },
    )


def plan(config: EvalMatrixConfig, context: Context) -> dict[str, Any]:
    """Check suite, images and headers of checkpoints, and say what would be run."""
    suite, checkpoints = _suite(config, context), open_labelled(config.base, config.checkpoint)
    clusters = {task.name: image_digests(task) for task in suite.tasks}
    return {
        "tasks": [
            {
                "name": task.name,
                "quadrant": task.file.quadrant.name,
                "role": task.file.role,
                "answer": task.file.answer,
                "items": len(task.items),
                "images": len(set(clusters[task.name])),
            }
            for task in suite.tasks
        ],
        "items": suite.num_items,
        "checkpoints": [
            {"label": one.label, "path": str(one.checkpoint.path)} for one in checkpoints
        ],
        "problems": list(_problems(suite, config.margin or suite.file.margin)),
    }


def _predict(
    config: EvalMatrixConfig,
    context: Context,
    what: tuple[Suite, Sequence[Labelled]],
    into: Path,
) -> dict[str, tuple[str, ...]]:
    """Write predictions, kept as they are made for a killed run to go on from; hash images."""
    suite, checkpoints = what
    helping = helpers(config.workers - 1, _assist, config, context)
    with opened(_kept(config, context)) as store, helping:
        clusters = {task.name: image_digests(task) for task in suite.tasks}
        settings = _settings(config, store)
        for label, predictions in run_checkpoints(checkpoints, suite.tasks, settings, context):
            for task in suite.tasks:
                write_predictions(predictions_path(into, label, task), predictions[task.name])
    return clusters


def _assist(config: EvalMatrixConfig, context: Context) -> None:
    """Help the main process as long as it is at work."""
    folder = _kept(config, context)
    if not wait_for(folder):
        return
    suite, checkpoints = _suite(config, context), open_labelled(config.base, config.checkpoint)
    try:
        with closing(Store(folder)) as store:
            assist(checkpoints, suite.tasks, _settings(config, store), replace(context, quiet=True))
    except (OSError, OutputError):
        if folder.is_dir():
            raise


def _kept(config: EvalMatrixConfig, context: Context) -> Path:
    """Where predictions are kept until the output is whole, or for later runs."""
    if config.cache is not None:
        return Path(config.cache)
    if context.work is None:
        raise ConfigError("--cache: is required where there is no output")
    return context.work / "predictions"


def _settings(config: EvalMatrixConfig, store: Store) -> RunSettings:
    return RunSettings(
        store=store,
        batch=config.batch,
        device=chosen_device(config.device),
        dtype=getattr(torch, config.dtype),
    )


def _suite(config: EvalMatrixConfig, context: Context) -> Suite:
    suite = read_suite(config.suite)
    if config.limit is None:
        return suite
    return replace(
        suite,
        tasks=tuple(
            task.limited(config.limit, context.rng(f"limit/{suite.file.seed}/{task.name}"))
            for task in suite.tasks
        ),
    )


def _problems(suite: Suite, margin: float) -> Iterator[str]:
    """What makes the report say less than its reader may expect."""
    files = [task.file for task in suite.tasks]
    for place in QUADRANTS:
        if place not in [file.quadrant for file in files]:
            yield f"{suite.path}: no task in {quadrant(place.name)}"
    if "new" not in [file.role for file in files]:
        yield f"{suite.path}: no task has role new: there is no gain to set against losses"
    needed = math.ceil(math.log(0.05) / math.log(1 - margin))
    for task in suite.tasks:
        if len(task.items) < needed:
            yield (
                f"{task.name}: {len(task.items)} items cannot show that nothing beyond"
                f" {points(margin).removeprefix('+')} was lost; {needed} can"
            )


def _artifacts(
    config: EvalMatrixConfig, checkpoints: Sequence[Labelled], rows: Sequence[CheckpointRow]
) -> list[Artifact]:
    roles = ["base"] + ["checkpoint"] * len(config.checkpoint)
    return [
        Artifact(role=role, path=str(one.checkpoint.path), sha256=row.fingerprint)
        for role, one, row in zip(roles, checkpoints, rows, strict=True)
    ]


def _suite_artifacts(suite: Suite, clusters: Mapping[str, Sequence[str]]) -> Iterator[Artifact]:
    yield Artifact(role="suite", path=str(suite.path), sha256=file_sha256(suite.path))
    for task in suite.tasks:
        images = hashlib.sha256("\n".join(clusters[task.name]).encode()).hexdigest()
        yield Artifact(role="task", path=str(task.path), sha256=file_sha256(task.path))
        yield Artifact(role="items", path=str(task.items_path), sha256=file_sha256(task.items_path))
        yield Artifact(role="images", path=str(task.root), sha256=images)
