"""What `eval-matrix` puts under `results` of its report.

Scores and deltas are shares, 0 to 1; a delta is the checkpoint's score minus the base's. What was
not measured is None.
"""

from typing import Annotated, Literal

from pydantic import Field

from mllmtool.data.strict_yaml import Strict
from mllmtool.data.suites import Name, Quadrant, Role
from mllmtool.data.task_types import ChoiceForm, MetricName, TaskType
from mllmtool.metrics.statistics import Interval, Verdict


class CheckpointRow(Strict):
    """A checkpoint; the base is the first.

    `made_by` is the command that made it, with its method or preset, where its report says so;
    `same_as_base` holds where weights, config and processor are the base's. `interpolates` is the
    fingerprint of the checkpoint whose straight line to the base it lies on (WiSE-FT), and
    `weight` how far along. `step` is the optimiser step that it was saved after.
    """

    label: Name
    fingerprint: str
    made_by: str | None = None
    same_as_base: bool = False
    interpolates: str | None = None
    weight: float | None = None
    step: int | None = None


class TaskRow(Strict):
    """A task; `clusters` counts distinct images, `chance` is the score of guessing an option.

    `answer` is None and `chance` 0 for tasks without options. `asked_sha256` is of what the model
    was asked: prompts, options and pictures.
    """

    name: Name
    type: TaskType
    answer: ChoiceForm | None
    role: Role
    quadrant: Quadrant
    n: int
    clusters: int
    primary: MetricName
    chance: float
    asked_sha256: str | None = None


class Score(Strict):
    """A metric over a task's items with its 95 % interval.

    Wilson's where every item scores 0 or 1, else of the resamples. `se_clustered` is the standard
    error of a mean, items of one image correlated; `scale` is the highest value that can be.
    """

    value: float
    ci: Interval
    ci_method: Literal["wilson", "cluster_bayesian_bootstrap"] = "wilson"
    se_clustered: float | None = None
    scale: float = 1.0


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
    """A cell against the base: items lost (1 -> 0) and gained (0 -> 1), and a p-value.

    It is McNemar's mid-p where every item scores 0 or 1, else of flipping the signs of clusters;
    `p_holm` is adjusted for all cells of the report. `detectable` is the smallest |delta| that
    would be found at 80 % power, `likelihood_delta` the same difference by option likelihood.

    `lost_superficially` of the lost items still have the right option as the likeliest: the format
    was forgotten, not the knowledge. `forgotten` and `learned` are shares of items, without those
    that guessing explains. `above_chance_delta` is the delta over 1 - chance.
    """

    lost: int
    gained: int
    p: float
    p_holm: float
    p_method: Literal["mcnemar_midp", "sign_flip"] = "mcnemar_midp"
    detectable: float | None
    likelihood_delta: float | None
    lost_superficially: int | None = None
    forgotten: float | None = None
    learned: float | None = None
    above_chance_delta: float | None = None


class Cell(Strict):
    """A checkpoint on a task; `letter_hist` counts the letters chosen, for letter answers.

    `letter_bias_p` is of the chi-squared test that they are distributed as the right letters are.
    The base itself is compared with nothing.
    """

    checkpoint: str
    task: str
    metrics: dict[MetricName, Score]
    agreement: float | None
    letter_hist: dict[str, int] | None = None
    letter_bias_p: float | None = None
    vs_base: Comparison | None = None


class Mean(Delta):
    """A mean against the base's."""

    mean: float


class QuadrantRow(Delta):
    """The unweighted (macro) mean over a quadrant's tasks of one role, against the base's.

    `micro` is the mean over their items instead. Likelihoods are of the tasks that have options.
    """

    checkpoint: str
    quadrant: str
    text: Literal["id", "ood"]
    image: Literal["id", "ood"]
    role: Role
    tasks: tuple[str, ...]
    mean: float
    likelihood_mean: float | None
    likelihood_delta: float | None
    micro: Mean | None = None


class OriginalNew(Strict):
    """Original tasks against new ones: means, H-score, and the share of the base that was retained.

    `gain` is the mean delta on the new tasks; `mean_delta` and `worst_delta` are over the quadrants
    of the original tasks. Means are over tasks, `_micro` over items. `h_score_ratio` is of scores
    over their references, `retention_above_chance` of scores less guessing.
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
    original_micro: float | None = None
    new_micro: float | None = None
    heldout: float | None = None
    heldout_delta: float | None = None
    h_score_ratio: float | None = None
    retention_above_chance: float | None = None


class StageFigure(Strict):
    """A figure of a sequence of fine-tunings and its formula over `Stages.scores`."""

    name: str
    value: float | None
    formula: str


class Stages(Strict):
    """A sequence of fine-tunings: `scores[i][j]` is on task j after stage i, row 0 the base's."""

    checkpoints: tuple[str, ...]
    tasks: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    figures: tuple[StageFigure, ...]


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
    """The whole. `new_reference` is the checkpoint that scores on new tasks are set against."""

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
    stages: Stages | None = None
    new_reference: str | None = None
    caption_tokenizer: str | None = None
    formulas: Annotated[dict[str, str], Field(default_factory=dict)]

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
        """The 2x2 matrix by quadrant: its original tasks, else the held-out, else the new ones."""
        roles: tuple[Role, ...] = ("new", "heldout", "original")
        return {row.quadrant: row for role in roles for row in self.of(checkpoint, role)}

    def balance(self, checkpoint: str) -> OriginalNew:
        """A checkpoint's original tasks against its new ones."""
        return next(row for row in self.original_new if row.checkpoint == checkpoint)
