"""Predictions to results. Pure: the same results whatever ran before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np

from mllmtool.data.suites import Quadrant, Role, Task
from mllmtool.data.task_types import LIKELIHOODS, MetricName
from mllmtool.evaluation.balances import Means, balances, pareto
from mllmtool.evaluation.cells import drawn_values, metric_rows, metric_score
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.results import (
    Cell,
    CheckpointRow,
    Comparison,
    Mean,
    QuadrantRow,
    Results,
    TaskRow,
)
from mllmtool.evaluation.wording import FORMULAS
from mllmtool.metrics.caption_tokens import NAME as CAPTION_TOKENIZER
from mllmtool.metrics.forgetting import transitions, without_chance
from mllmtool.metrics.scores import (
    METRICS,
    Answered,
    agreement,
    letter_bias,
    letter_histogram,
)
from mllmtool.metrics.statistics import (
    Array,
    Resamples,
    bootstrap,
    bounds,
    cluster_sums,
    detectable_difference,
    holm,
    interval,
    mcnemar,
    sign_flip,
    verdict,
)

QUADRANTS = tuple(
    Quadrant(text=text, image=image) for text in ("id", "ood") for image in ("id", "ood")
)
ROLES: tuple[Role, ...] = ("original", "new")
HELD_OUT: Role = "heldout"


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
        """Scores by a metric that is a mean, (items, checkpoints)."""
        return np.hstack([METRICS[metric].rows(row) for row in self.answers.values()])

    @cached_property
    def primary(self) -> Array:
        """Scores by the metric that verdicts are about, (items, checkpoints)."""
        return self.scores(self.task.file.verdict_metric)

    @cached_property
    def likelihood(self) -> Array | None:
        """Scores by likelihood; None without options, or where other tools gave no likelihoods."""
        known = all(one.logprobs for row in self.answers.values() for one in row)
        return self.scores("likelihood") if known else None

    @property
    def reported(self) -> list[MetricName]:
        """The metrics that there are figures for."""
        unknown = LIKELIHOODS if self.likelihood is None else ()
        return [name for name in self.task.file.reported if name not in unknown]

    @cached_property
    def chances(self) -> list[float]:
        """Of each item the chance that a guess is right."""
        return [1 / len(item.options) if item.options else 0.0 for item in self.task.items]


def read_answers(task: Task, predictions: Sequence[Prediction]) -> list[Answered]:
    """A task's items with what was predicted for them, in the same order."""
    return [
        Answered(
            form=task.file.form,
            options=item.options,
            answer=item.answer,
            response=prediction.response,
            logprobs=prediction.logprobs,
            references=item.answers,
            question=item.question,
            distractor=item.distractor,
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
        self.checkpoints, self.settings = checkpoints, settings
        self.tasks = {one.task.name: one for one in tasks}
        self.resamples = {one.task.name: self._resample(one) for one in tasks}

    def results(self) -> Results:
        cells = [cell for one in self.tasks.values() for cell in self._cells(one)]
        quadrants = tuple(
            row
            for quadrant in QUADRANTS
            for role in (*ROLES, HELD_OUT)
            for row in self._rows(quadrant, role)
        )
        means = [
            Means(one.task.file, len(one.chances), fmean(one.chances), one.primary.mean(0).tolist())
            for one in self.tasks.values()
        ]
        labels = [row.label for row in self.checkpoints]
        rows, reference = balances(labels, means, quadrants)
        captions = any(one.task.file.type == "caption" for one in self.tasks.values())
        return Results(
            margin=self.settings.margin,
            resamples=self.settings.resamples,
            checkpoints=tuple(self.checkpoints),
            tasks=tuple(_task_row(one) for one in self.tasks.values()),
            cells=tuple(_adjusted(cells)),
            quadrants=quadrants,
            original_new=rows,
            pareto=tuple(pareto(rows)),
            new_reference=reference,
            caption_tokenizer=CAPTION_TOKENIZER if captions else None,
            formulas=FORMULAS,
        )

    def _resample(self, one: TaskAnswers) -> Resamples:
        """Resampled deltas of a task, (resamples, checkpoints)."""
        reach = max(1.0, float(one.primary.max()))  # what an unseen item can lose or gain
        drawn = bootstrap(
            (one.primary - one.primary[:, :1]) / reach,
            one.clusters,
            f"unseen/{one.task.name}",
            self.settings.stream_seed,
            self.settings.resamples,
        )
        base = self.checkpoints[0]
        differs = [reach * (row != base and not row.same_as_base) for row in self.checkpoints]
        return Resamples(drawn.low * np.array(differs), drawn.high * np.array(differs))

    def _means(self, names: Sequence[str], weights: Sequence[float] | None = None) -> list[Mean]:
        """Mean scores and deltas over tasks, one a checkpoint."""
        means = np.average([self.tasks[n].primary.mean(0) for n in names], 0, weights)
        drawn = Resamples(
            np.average([self.resamples[name].low for name in names], 0, weights),
            np.average([self.resamples[name].high for name in names], 0, weights),
        )
        return [
            Mean(
                mean=float(mean),
                delta=float(mean - means[0]),
                ci=ci,
                bounds=bound,
                verdict=verdict(bound, self.settings.margin),
            )
            for mean, ci, bound in zip(means, interval(drawn), bounds(drawn), strict=True)
        ]

    def _cells(self, one: TaskAnswers) -> Iterator[Cell]:
        means = self._means([one.task.name])
        letter = one.task.file.answer == "letter"
        rows = {label: metric_rows(one.reported, said) for label, said in one.answers.items()}
        settings = self.settings
        drawn = drawn_values(rows, one.clusters, settings.stream_seed, settings.resamples)
        for column, (row, mean) in enumerate(zip(self.checkpoints, means, strict=True)):
            answered = one.answers[row.label]
            yield Cell(
                checkpoint=row.label,
                task=one.task.name,
                metrics={
                    name: metric_score(name, found, one.clusters, drawn.get((row.label, name)))
                    for name, found in rows[row.label].items()
                },
                agreement=agreement(answered),
                letter_hist=letter_histogram(answered) if letter else None,
                letter_bias_p=letter_bias(answered) if letter else None,
                vs_base=self._comparison(one, column, mean) if column else None,
            )

    def _comparison(self, one: TaskAnswers, column: int, mean: Mean) -> Comparison:
        before, after = one.primary[:, 0], one.primary[:, column]
        changed = transitions(before.tolist(), after.tolist())
        binary = METRICS[one.task.file.verdict_metric].binary
        p_value = mcnemar(*changed).mid if binary else self._flipped(one, after - before)
        found = {
            **mean.model_dump(exclude={"mean"}),
            **changed._asdict(),
            "p": p_value,
            "p_holm": p_value,
            "p_method": "mcnemar_midp" if binary else "sign_flip",
            "detectable": detectable_difference(after - before),
            **_by_likelihood(one, column),
            **_beyond_chance(one, column),
        }
        return Comparison.model_validate(found)

    def _flipped(self, one: TaskAnswers, differences: Array) -> float:
        seed = self.settings.stream_seed(f"sign-flip/{one.task.name}")
        return sign_flip(cluster_sums(differences, one.clusters), seed, self.settings.resamples)

    def _rows(self, quadrant: Quadrant, role: Role) -> Iterator[QuadrantRow]:
        names = [
            name
            for name, one in self.tasks.items()
            if (one.task.file.quadrant, one.task.file.role) == (quadrant, role)
        ]
        if not names:
            return
        micro = self._means(names, [len(self.tasks[name].chances) for name in names])
        known = [scores for name in names if (scores := self.tasks[name].likelihood) is not None]
        likely = np.mean([scores.mean(0) for scores in known], axis=0) if known else None
        for column, (row, mean) in enumerate(
            zip(self.checkpoints, self._means(names), strict=True)
        ):
            yield QuadrantRow(
                **dict(mean),
                checkpoint=row.label,
                quadrant=quadrant.name,
                text=quadrant.text,
                image=quadrant.image,
                role=role,
                tasks=tuple(names),
                likelihood_mean=None if likely is None else float(likely[column]),
                likelihood_delta=None if likely is None else float(likely[column] - likely[0]),
                micro=micro[column],
            )


def _by_likelihood(one: TaskAnswers, column: int) -> dict[str, float | None]:
    """The delta by likelihood, and how many lost items have the right option as the likeliest."""
    if one.likelihood is None:
        return {"likelihood_delta": None}
    means = one.likelihood.mean(0)
    lost = one.primary[:, column] < one.primary[:, 0]
    return {
        "likelihood_delta": float(means[column] - means[0]),
        "lost_superficially": int(one.likelihood[lost, column].sum()),
    }


def _beyond_chance(one: TaskAnswers, column: int) -> dict[str, float]:
    if one.task.file.form == "open":
        return {}
    before, after = one.primary[:, 0], one.primary[:, column]
    latent = without_chance(before.tolist(), after.tolist(), one.chances)
    delta = float((after - before).mean()) / (1 - fmean(one.chances))
    return {**latent._asdict(), "above_chance_delta": delta}


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
        primary=file.verdict_metric,
        chance=fmean(one.chances),
        asked_sha256=one.task.asked_sha256(one.clusters),
    )
