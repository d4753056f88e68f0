"""Original tasks against new ones, and which checkpoints others beat at both."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from mllmtool.data.suites import Role, TaskFile
from mllmtool.evaluation.results import OriginalNew, ParetoPoint, QuadrantRow
from mllmtool.metrics.forgetting import above_chance, dominated, h_score, h_score_ratio, retention


class Means(NamedTuple):
    """A task's mean scores, one a checkpoint, the base's first."""

    file: TaskFile
    items: int
    chance: float
    scores: list[float]


def balances(
    labels: Sequence[str], means: Sequence[Means], quadrants: Sequence[QuadrantRow]
) -> tuple[tuple[OriginalNew, ...], str | None]:
    """A row a checkpoint, and the checkpoint that scores on the new tasks are set against.

    That is the one of the highest mean over them: what fine-tuning can reach.
    """
    new = [
        fmean(column)
        for column in zip(*(one.scores for one in means if _is(one, "new")), strict=True)
    ]
    reference = max(range(len(new)), key=new.__getitem__) if new else None
    rows = tuple(
        _balance(column, reference, means, [row for row in quadrants if row.checkpoint == label])
        for column, label in enumerate(labels)
    )
    return rows, None if reference is None else labels[reference]


def pareto(rows: Sequence[OriginalNew]) -> Iterator[ParetoPoint]:
    """The checkpoints that have a gain and a worst loss."""
    points = {
        row.checkpoint: (row.gain, row.worst_delta)
        for row in rows
        if row.gain is not None and row.worst_delta is not None
    }
    beaten = dominated(points)
    for label, (gain, worst) in points.items():
        yield ParetoPoint(
            checkpoint=label, gain=gain, worst_delta=worst, dominated_by=beaten[label]
        )


def _balance(
    column: int, reference: int | None, means: Sequence[Means], quadrants: Sequence[QuadrantRow]
) -> OriginalNew:
    deltas = {row.quadrant: row.delta for row in quadrants if row.role == "original"}
    worst = min(deltas, key=deltas.__getitem__, default=None)
    original, before = _of(means, "original", column), _of(means, "original", 0)
    new, start = _of(means, "new", column), _of(means, "new", 0)
    heldout, held = _mean(_of(means, "heldout", column)), _mean(_of(means, "heldout", 0))
    tuned = new if reference is None else _of(means, "new", reference)
    return OriginalNew(
        checkpoint=quadrants[0].checkpoint,
        original=_mean(original),
        new=_mean(new),
        h_score=h_score(original, new),
        retention=retention(before, original),
        gain=fmean(new) - fmean(start) if new else None,
        mean_delta=_mean(list(deltas.values())),
        worst_delta=deltas[worst] if worst else None,
        worst_quadrant=worst,
        original_micro=_micro(means, "original", column),
        new_micro=_micro(means, "new", column),
        heldout=heldout,
        heldout_delta=None if heldout is None or held is None else heldout - held,
        h_score_ratio=h_score_ratio(original, before, new, tuned),
        retention_above_chance=retention(
            _of(means, "original", 0, chance=True), _of(means, "original", column, chance=True)
        ),
    )


def _is(one: Means, role: Role) -> bool:
    return one.file.role == role


def _of(means: Sequence[Means], role: Role, column: int, chance: bool = False) -> list[float]:
    return [
        above_chance(one.scores[column], one.chance) if chance else one.scores[column]
        for one in means
        if _is(one, role)
    ]


def _micro(means: Sequence[Means], role: Role, column: int) -> float | None:
    chosen = [one for one in means if _is(one, role)]
    total = sum(one.items for one in chosen)
    return sum(one.items * one.scores[column] for one in chosen) / total if total else None


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
