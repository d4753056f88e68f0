"""What `eval-matrix` puts under `results` of its report.

Scores and deltas are shares, 0 to 1; a delta is the checkpoint's score minus the base's. What was
not measured is None.
"""

from typing import Literal

from mllmtool.data.suites import AnswerForm, Quadrant, Role, Strict
from mllmtool.metrics.scores import MetricName
from mllmtool.metrics.statistics import Interval, Verdict


class CheckpointRow(Strict):
    """A checkpoint; the base is the first.

    `made_by` is the command that made it, with its method or preset, where its report says so;
    `same_as_base` holds where weights, config and processor are the base's. `interpolates` is the
    fingerprint of the checkpoint whose straight line to the base it lies on (WiSE-FT), and
    `weight` how far along. `step` is the optimiser step that it was saved after.
    """

    label: str
    fingerprint: str
    made_by: str | None = None
    same_as_base: bool = False
    interpolates: str | None = None
    weight: float | None = None
    step: int | None = None


class TaskRow(Strict):
    """A task; `clusters` counts distinct images, `chance` is the score of guessing an option."""

    name: str
    type: Literal["mcq"]
    answer: AnswerForm
    role: Role
    quadrant: Quadrant
    n: int
    clusters: int
    primary: MetricName
    chance: float


class Score(Strict):
    """A mean over a task's items with its 95 % Wilson interval."""

    value: float
    ci: Interval


class Delta(Strict):
    """A difference to the base.

    `ci` is the two-sided 95 % interval; `bounds` are the two one-sided 95 % bounds that the
    verdict is read from: kept where the lower is above -margin, forgot where the upper is below.
    """

    delta: float
    ci: Interval
    bounds: Interval
    verdict: Verdict


class Comparison(Delta):
    """A cell against the base: items lost (1 -> 0) and gained (0 -> 1), McNemar's mid-p.

    `p_holm` is adjusted for all cells of the report. `detectable` is the smallest |delta| that
    would be found at 80 % power, `likelihood_delta` the same difference by option likelihood.
    """

    lost: int
    gained: int
    p: float
    p_holm: float
    detectable: float | None
    likelihood_delta: float


class Cell(Strict):
    """A checkpoint on a task; `letter_hist` counts the letters chosen, for letter answers.

    The base itself is compared with nothing.
    """

    checkpoint: str
    task: str
    metrics: dict[MetricName, Score]
    agreement: float
    letter_hist: dict[str, int] | None = None
    vs_base: Comparison | None = None


class QuadrantRow(Delta):
    """The unweighted mean over a quadrant's tasks of one role, against the base's."""

    checkpoint: str
    quadrant: str
    text: Literal["id", "ood"]
    image: Literal["id", "ood"]
    role: Role
    tasks: tuple[str, ...]
    mean: float
    likelihood_mean: float
    likelihood_delta: float


class OriginalNew(Strict):
    """Original tasks against new ones: means, H-score, and the share of the base that was retained.

    `gain` is the mean delta on the new tasks; `mean_delta` and `worst_delta` are over the quadrants
    of the original tasks.
    """

    checkpoint: str
    original: float | None
    new: float | None
    h_score: float | None
    retention: float | None
    gain: float | None
    mean_delta: float | None
    worst_delta: float | None
    worst_quadrant: str | None


class ParetoPoint(Strict):
    """Gain against worst loss; `dominated_by` gains and keeps as much, and more of one."""

    checkpoint: str
    gain: float
    worst_delta: float
    dominated_by: str | None


class Finding(Strict):
    """A sentence computed from the figures; `kind` says which, `checkpoints` whom it is about."""

    kind: Literal["best trade", "gains most", "loses most", "kept", "format", "interpolation"]
    checkpoints: tuple[str, ...]
    text: str


class Results(Strict):
    """The whole."""

    margin: float
    resamples: int
    quadrant_mean: Literal["macro"] = "macro"
    ci_method: Literal["paired_cluster_bayesian_bootstrap"] = "paired_cluster_bayesian_bootstrap"
    p_method: Literal["mcnemar_midp"] = "mcnemar_midp"
    score_ci_method: Literal["wilson"] = "wilson"
    checkpoints: tuple[CheckpointRow, ...]
    tasks: tuple[TaskRow, ...]
    cells: tuple[Cell, ...]
    quadrants: tuple[QuadrantRow, ...]
    original_new: tuple[OriginalNew, ...]
    pareto: tuple[ParetoPoint, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def base(self) -> CheckpointRow:
        """The checkpoint that the others are compared with."""
        return self.checkpoints[0]

    @property
    def others(self) -> tuple[CheckpointRow, ...]:
        """The checkpoints compared."""
        return self.checkpoints[1:]

    def cell(self, checkpoint: str, task: str) -> Cell:
        """A checkpoint on a task."""
        return next(c for c in self.cells if (c.checkpoint, c.task) == (checkpoint, task))

    def of(self, checkpoint: str, role: Role | None = None) -> list[QuadrantRow]:
        """A checkpoint's quadrants."""
        return [
            row
            for row in self.quadrants
            if row.checkpoint == checkpoint and role in (None, row.role)
        ]

    def matrix(self, checkpoint: str) -> dict[str, QuadrantRow]:
        """The 2x2 matrix by quadrant: its original tasks, or the new ones where all are new."""
        new, original = self.of(checkpoint, "new"), self.of(checkpoint, "original")
        return {row.quadrant: row for row in (*new, *original)}

    def balance(self, checkpoint: str) -> OriginalNew:
        """A checkpoint's original tasks against its new ones."""
        return next(row for row in self.original_new if row.checkpoint == checkpoint)
