"""Predictions to results. Pure: the same results whatever ran before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np

from mllmtool.data.suites import Quadrant, Role, Task
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.results import (
    Cell,
    CheckpointRow,
    Comparison,
    Delta,
    OriginalNew,
    ParetoPoint,
    QuadrantRow,
    Results,
    Score,
    TaskRow,
)
from mllmtool.metrics.forgetting import dominated, h_score, retention, transitions
from mllmtool.metrics.scores import (
    METRICS,
    PRIMARY,
    Answered,
    MetricName,
    agreement,
    letter_histogram,
)
from mllmtool.metrics.statistics import (
    Array,
    Resamples,
    bootstrap,
    bounds,
    detectable_difference,
    holm,
    interval,
    mcnemar,
    verdict,
    wilson,
)

QUADRANTS = tuple(
    Quadrant(text=text, image=image) for text in ("id", "ood") for image in ("id", "ood")
)
ROLES: tuple[Role, ...] = ("original", "new")


@dataclass(frozen=True)
class Settings:
    """How deltas are judged."""

    margin: float
    resamples: int
    stream_seed: Callable[[str], int]


@dataclass(frozen=True)
class TaskAnswers:
    """A task with every checkpoint's answers, the base's first.

    `clusters` names the image of each item, the same in every task: items of one image are
    resampled together.
    """

    task: Task
    clusters: tuple[str, ...]
    answers: Mapping[str, Sequence[Answered]]

    def scores(self, metric: MetricName) -> Array:
        """Scores by a metric, (items, checkpoints)."""
        score = METRICS[metric].score
        return np.array([[score(one) for one in row] for row in self.answers.values()]).T

    @cached_property
    def primary(self) -> Array:
        """Scores by the metric that verdicts are about, (items, checkpoints)."""
        return self.scores(PRIMARY[self.task.file.answer])


def read_answers(task: Task, predictions: Sequence[Prediction]) -> list[Answered]:
    """A task's items with what was predicted for them, in the same order."""
    return [
        Answered(
            form=task.file.answer,
            options=item.options,
            answer=item.answer,
            response=prediction.response,
            logprobs=prediction.logprobs,
        )
        for item, prediction in zip(task.items, predictions, strict=True)
    ]


def score(
    checkpoints: Sequence[CheckpointRow], tasks: Sequence[TaskAnswers], settings: Settings
) -> Results:
    """Cells, quadrants and the balance of original and new; every delta with its verdict."""
    return _Scoring(checkpoints, tasks, settings).results()


class _Scoring:
    def __init__(
        self, checkpoints: Sequence[CheckpointRow], tasks: Sequence[TaskAnswers], settings: Settings
    ) -> None:
        self.checkpoints, self.tasks, self.settings = checkpoints, tasks, settings
        self.primary = {one.task.name: one.primary for one in tasks}  # (items, checkpoints)
        self.likelihood = {one.task.name: one.scores("likelihood") for one in tasks}
        self.resamples = {one.task.name: self._resample(one) for one in tasks}

    def results(self) -> Results:
        cells = [cell for one in self.tasks for cell in self._cells(one)]
        quadrants = [
            row for quadrant in QUADRANTS for role in ROLES for row in self._rows(quadrant, role)
        ]
        balances = tuple(
            self._balance(column, row.label, quadrants)
            for column, row in enumerate(self.checkpoints)
        )
        return Results(
            margin=self.settings.margin,
            resamples=self.settings.resamples,
            checkpoints=tuple(self.checkpoints),
            tasks=tuple(_task_row(one) for one in self.tasks),
            cells=tuple(_adjusted(cells)),
            quadrants=tuple(quadrants),
            original_new=balances,
            pareto=tuple(_pareto(balances)),
        )

    def _resample(self, one: TaskAnswers) -> Resamples:
        """Resampled deltas of a task, (resamples, checkpoints)."""
        scores = self.primary[one.task.name]
        drawn = bootstrap(
            scores - scores[:, :1],
            one.clusters,
            f"unseen/{one.task.name}",
            self.settings.stream_seed,
            self.settings.resamples,
        )
        base = self.checkpoints[0]
        differs = [float(row != base and not row.same_as_base) for row in self.checkpoints]
        return Resamples(drawn.low * np.array(differs), drawn.high * np.array(differs))

    def _deltas(self, names: Sequence[str]) -> list[Delta]:
        """Macro mean deltas over tasks, one a checkpoint."""
        means = np.mean([self.primary[name].mean(0) for name in names], axis=0)
        drawn = Resamples(
            np.mean([self.resamples[name].low for name in names], axis=0),
            np.mean([self.resamples[name].high for name in names], axis=0),
        )
        return [
            Delta(
                delta=float(mean - means[0]),
                ci=ci,
                bounds=bound,
                verdict=verdict(bound, self.settings.margin),
            )
            for mean, ci, bound in zip(means, interval(drawn), bounds(drawn), strict=True)
        ]

    def _cells(self, one: TaskAnswers) -> Iterator[Cell]:
        name = one.task.name
        deltas = self._deltas([name])
        for column, (row, delta) in enumerate(zip(self.checkpoints, deltas, strict=True)):
            answered = one.answers[row.label]
            letter = one.task.file.answer == "letter"
            yield Cell(
                checkpoint=row.label,
                task=name,
                metrics=_metrics(one, answered),
                agreement=agreement(answered),
                letter_hist=letter_histogram(answered) if letter else None,
                vs_base=self._comparison(name, column, delta) if column else None,
            )

    def _comparison(self, name: str, column: int, delta: Delta) -> Comparison:
        scores, likelihood = self.primary[name], self.likelihood[name].mean(0)
        changed = transitions(scores[:, 0].tolist(), scores[:, column].tolist())
        p_value = mcnemar(changed.lost, changed.gained).mid
        return Comparison(
            **dict(delta),
            lost=changed.lost,
            gained=changed.gained,
            p=p_value,
            p_holm=p_value,
            detectable=detectable_difference(sum(changed), len(scores)),
            likelihood_delta=float(likelihood[column] - likelihood[0]),
        )

    def _rows(self, quadrant: Quadrant, role: Role) -> Iterator[QuadrantRow]:
        files = [one.task.file for one in self.tasks]
        names = [file.name for file in files if (file.quadrant, file.role) == (quadrant, role)]
        if not names:
            return
        means = np.mean([self.primary[name].mean(0) for name in names], axis=0)
        likely = np.mean([self.likelihood[name].mean(0) for name in names], axis=0)
        for column, (row, delta) in enumerate(
            zip(self.checkpoints, self._deltas(names), strict=True)
        ):
            yield QuadrantRow(
                **dict(delta),
                checkpoint=row.label,
                quadrant=quadrant.name,
                text=quadrant.text,
                image=quadrant.image,
                role=role,
                tasks=tuple(names),
                mean=float(means[column]),
                likelihood_mean=float(likely[column]),
                likelihood_delta=float(likely[column] - likely[0]),
            )

    def _balance(self, column: int, label: str, quadrants: Sequence[QuadrantRow]) -> OriginalNew:
        means = {name: scores.mean(0) for name, scores in self.primary.items()}
        roles: dict[Role, list[str]] = {
            role: [one.task.name for one in self.tasks if one.task.file.role == role]
            for role in ROLES
        }
        original = [float(means[name][column]) for name in roles["original"]]
        before = [float(means[name][0]) for name in roles["original"]]
        new = [float(means[name][column]) for name in roles["new"]]
        start = [float(means[name][0]) for name in roles["new"]]
        deltas = {
            row.quadrant: row.delta
            for row in quadrants
            if (row.checkpoint, row.role) == (label, "original")
        }
        worst = min(deltas, key=deltas.__getitem__, default=None)
        return OriginalNew(
            checkpoint=label,
            original=fmean(original) if original else None,
            new=fmean(new) if new else None,
            h_score=h_score(original, new),
            retention=retention(before, original),
            gain=fmean(new) - fmean(start) if new else None,
            mean_delta=fmean(deltas.values()) if deltas else None,
            worst_delta=deltas[worst] if worst else None,
            worst_quadrant=worst,
        )


def _metrics(one: TaskAnswers, answered: Sequence[Answered]) -> dict[MetricName, Score]:
    form, total = one.task.file.answer, len(answered)
    sums = {
        name: sum(metric.score(item) for item in answered)
        for name, metric in METRICS.items()
        if form in metric.forms
    }
    return {name: Score(value=hits / total, ci=wilson(hits, total)) for name, hits in sums.items()}


def _pareto(balances: Sequence[OriginalNew]) -> Iterator[ParetoPoint]:
    points = {
        row.checkpoint: (row.gain, row.worst_delta)
        for row in balances
        if row.gain is not None and row.worst_delta is not None
    }
    beaten = dominated(points)
    for label, (gain, worst) in points.items():
        yield ParetoPoint(
            checkpoint=label, gain=gain, worst_delta=worst, dominated_by=beaten[label]
        )


def _adjusted(cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells with p-values adjusted for all of them."""
    adjusted = iter(holm([cell.vs_base.p for cell in cells if cell.vs_base]))
    for cell in cells:
        compared = cell.vs_base and cell.vs_base.model_copy(update={"p_holm": next(adjusted)})
        yield cell.model_copy(update={"vs_base": compared})


def _task_row(one: TaskAnswers) -> TaskRow:
    file = one.task.file
    return TaskRow(
        name=file.name,
        type=file.type,
        answer=file.answer,
        role=file.role,
        quadrant=file.quadrant,
        n=len(one.task.items),
        clusters=len(set(one.clusters)),
        primary=PRIMARY[file.answer],
        chance=fmean(1 / len(item.options) for item in one.task.items),
    )
