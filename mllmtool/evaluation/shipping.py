"""Which checkpoint to ship: the most gain on the new tasks among those that keep the old ones."""

from collections.abc import Iterator
from typing import NamedTuple

from mllmtool.errors import DataError, some
from mllmtool.evaluation.results import CheckpointRow, QuadrantRow, Results
from mllmtool.evaluation.wording import percent, points, quadrant

ROUNDING = 1e-9  # of a delta: 0.49 - 0.5 is a loss of a little more than 0.01


class Chosen(NamedTuple):
    """A checkpoint and why it is chosen, in sentences."""

    label: str
    reasons: tuple[str, ...]


def best(results: Results, max_loss: float) -> Chosen:
    """The most gain among those for which a loss beyond `max_loss` is ruled out everywhere.

    Everywhere is in each quadrant of the original tasks, and ruled out by the one-sided 95 % lower
    bound of its delta. Where no checkpoint can show so much, the most gain among those that were
    seen to lose no more, and the reasons say so; where none gains so either, the base.

    Raises:
        DataError: no original or no new task was measured.
    """
    if not results.of(results.base.label, "original") or not results.of(results.base.label, "new"):
        raise DataError("best: needs original and new tasks, and the suite has one kind only")
    proven = [row for row in _gaining(results) if _room(results, row, max_loss) > 0]
    seen = [row for row in _gaining(results) if _worst(results, row).delta >= -max_loss - ROUNDING]
    allowed = points(max_loss).removeprefix("+")
    for rows, claim in (
        (proven, f"a loss beyond {allowed} is ruled out in every quadrant of the original tasks"),
        (seen, f"no quadrant was seen to lose more than {allowed}, but more is not ruled out"),
    ):
        if rows:
            chosen = max(rows, key=lambda row: results.balance(row.label).gain or 0.0)
            reasons = (*_gain(results, chosen), f"{claim}: {_bound(results, chosen)}")
            return Chosen(chosen.label, (*reasons, *_passed_over(results, chosen)))
    refused = some([f"{row.label} {_bound(results, row)}" for row in _gaining(results)])
    reason = f"no checkpoint that gains on the new tasks loses at most {allowed}: {refused}"
    if not refused:
        reason = "no checkpoint gains on the new tasks"
    return Chosen(results.base.label, (reason,))


def _gaining(results: Results) -> list[CheckpointRow]:
    return [row for row in results.others if (results.balance(row.label).gain or 0.0) > 0]


def _room(results: Results, row: CheckpointRow, max_loss: float) -> float:
    """How far the least lower bound of the original quadrants stays above the loss allowed."""
    return min(one.bounds.lower for one in results.of(row.label, "original")) + max_loss


def _worst(results: Results, row: CheckpointRow) -> QuadrantRow:
    return min(results.of(row.label, "original"), key=lambda one: one.delta)


def _gain(results: Results, row: CheckpointRow) -> Iterator[str]:
    now, before = results.balance(row.label), results.balance(results.base.label)
    yield f"gains {points(now.gain)} on the new tasks, {percent(before.new)} to {percent(now.new)}"


def _bound(results: Results, row: CheckpointRow) -> str:
    worst = min(results.of(row.label, "original"), key=lambda one: one.bounds.lower)
    return (
        f"{points(worst.delta)} in {quadrant(worst.quadrant)}, at worst"
        f" {points(worst.bounds.lower)}"
    )


def _passed_over(results: Results, chosen: CheckpointRow) -> Iterator[str]:
    """Those that gain more and were not chosen."""
    gain = results.balance(chosen.label).gain or 0.0
    for row in _gaining(results):
        now = results.balance(row.label).gain or 0.0
        if now > gain:
            yield f"{row.label} gains more, {points(now)}, but {_bound(results, row)}"
