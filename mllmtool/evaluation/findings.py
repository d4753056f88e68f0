"""Sentences computed from the figures: what a reader should know after ten seconds."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from mllmtool.evaluation.results import CheckpointRow, Finding, OriginalNew, QuadrantRow, Results
from mllmtool.evaluation.wording import listed, percent, points, quadrant

NEAR = 0.05  # a target score within this of the best one counts as reached
FORMAT = 0.05  # so much less is lost by likelihood that the rest is called format


class Point(NamedTuple):
    """A checkpoint in the picture of gain against loss."""

    label: str
    gain: float
    worst: float


def find(results: Results) -> tuple[Finding, ...]:
    """The findings that the figures hold; the first is the headline."""
    return tuple(
        finding
        for rule in (_best_trade, _gains_most, _loses_most, _kept, _format, _interpolation)
        for finding in rule(results)
    )


def points_of(results: Results) -> list[Point]:
    """Every checkpoint that has both a gain and a worst loss, the base first; no copies of it."""
    shown = {row.label for row in (results.base, *_rivals(results))}
    return [
        Point(row.checkpoint, row.gain, row.worst_delta)
        for row in results.pareto
        if row.checkpoint in shown
    ]


def interpolations(results: Results) -> list[list[Point]]:
    """For each tuned checkpoint that WiSE-FT points come from: base, those points, itself."""
    place = {point.label: point for point in points_of(results)}
    if results.base.label not in place:
        return []
    lines: dict[str, list[CheckpointRow]] = {}
    for row in sorted(results.others, key=lambda row: row.weight or 0):
        if row.interpolates:
            lines.setdefault(row.interpolates, []).append(row)
    return [
        [
            place[row.label]
            for row in (results.base, *rows, *_end(results, tuned))
            if row.label in place
        ]
        for tuned, rows in lines.items()
    ]


def above(line: list[Point], point: Point) -> bool:
    """Whether a point keeps more than interpolation does wherever it has the same gain."""
    there = [
        _between(start, end, point.gain)
        for start, end in pairwise(line)
        if min(start.gain, end.gain) <= point.gain <= max(start.gain, end.gain)
    ]
    return bool(there) and point.worst > max(there)


def _between(start: Point, end: Point, gain: float) -> float:
    """The worst delta on the straight line at a gain; on an upright one its upper end."""
    if start.gain == end.gain:
        return max(start.worst, end.worst)
    share = (gain - start.gain) / (end.gain - start.gain)
    return start.worst + share * (end.worst - start.worst)


def _end(results: Results, tuned: str) -> list[CheckpointRow]:
    return [row for row in results.others if row.fingerprint == tuned][:1]


def _best_trade(results: Results) -> Iterator[Finding]:
    for best in _best(results):
        row = results.balance(best.label)
        text = (
            f"{best.label} is the best trade: {_gain(results, row)} on the {_new(results)},"
            f" {_worst(row)}, its worst quadrant"
        )
        yield Finding(kind="best trade", checkpoints=(best.label,), text=text)


def _best(results: Results) -> list[Point]:
    """The one that keeps most in its worst quadrant among those that reached the target."""
    rivals = points_of(results)[1:]
    if not rivals:
        return []
    reached = max(point.gain for point in rivals) - NEAR
    return [max((p for p in rivals if p.gain >= reached), key=lambda point: point.worst)]


def _gains_most(results: Results) -> Iterator[Finding]:
    best = [point.label for point in _best(results)]
    for row in _extreme(results, lambda row: row.gain):
        if row.checkpoint in best or not row.gain or row.gain < 0:
            return
        text = f"{row.checkpoint} gains most on the {_new(results)}: {_gain(results, row)}"
        yield Finding(kind="gains most", checkpoints=(row.checkpoint,), text=text)


def _loses_most(results: Results) -> Iterator[Finding]:
    for row in _extreme(results, lambda row: row.worst_delta and -row.worst_delta):
        if row.worst_quadrant and row.worst_delta and row.worst_delta < 0:
            base = _row(results, results.base.label, row.worst_quadrant)
            now = _row(results, row.checkpoint, row.worst_quadrant)
            text = (
                f"{row.checkpoint} loses most: {_worst(row)},"
                f" from {percent(base.mean)} to {percent(now.mean)}"
            )
            yield Finding(kind="loses most", checkpoints=(row.checkpoint,), text=text)


def _kept(results: Results) -> Iterator[Finding]:
    if not _rivals(results) or not results.of(results.base.label, "original"):
        return
    kept = [row.label for row in _rivals(results) if _keeps(results, row.label)]
    margin = points(results.margin).removeprefix("+")
    if kept:
        text = f"Kept every quadrant of the original tasks at a margin of {margin}: {listed(kept)}"
    else:
        text = f"No checkpoint kept every quadrant of the original tasks at a margin of {margin}"
    yield Finding(kind="kept", checkpoints=tuple(kept), text=text)


def _format(results: Results) -> Iterator[Finding]:
    chosen = {task.name for task in results.tasks if task.answer}  # the others have no likelihoods
    gaps = {
        (row.checkpoint, row.quadrant): row.likelihood_delta - row.delta
        for row in results.quadrants
        if row.role == "original" and row.verdict == "forgot" and chosen.issuperset(row.tasks)
        if row.likelihood_delta is not None
    }
    if not gaps or max(gaps.values()) < FORMAT:
        return
    label, name = max(gaps, key=gaps.__getitem__)
    row = _row(results, label, name)
    text = (
        f"The loss of {label} in {quadrant(name)} is partly of format: {points(row.delta)} by what"
        f" it says, {points(row.likelihood_delta)} by which option it finds likeliest"
    )
    yield Finding(kind="format", checkpoints=(label,), text=text)


def _interpolation(results: Results) -> Iterator[Finding]:
    for line in interpolations(results):
        on_line = {point.label for point in line}
        better = [p.label for p in points_of(results) if p.label not in on_line and above(line, p)]
        if better:
            text = (
                f"{listed(better)} {'keeps' if len(better) == 1 else 'keep'} more in the worst"
                f" quadrant than plain interpolation does at the same gain"
            )
            yield Finding(kind="interpolation", checkpoints=tuple(better), text=text)


def _extreme(
    results: Results, value: Callable[[OriginalNew], float | None]
) -> Iterator[OriginalNew]:
    """The row of the highest value, where any has one."""
    rows = [(value(row), row) for row in (results.balance(r.label) for r in _rivals(results))]
    known = [(number, row) for number, row in rows if number is not None]
    if known:
        yield max(known, key=lambda pair: pair[0])[1]


def _rivals(results: Results) -> list[CheckpointRow]:
    """The checkpoints that are no copies of the base."""
    return [row for row in results.others if not row.same_as_base]


def _keeps(results: Results, label: str) -> bool:
    rows = results.of(label, "original")
    return all(row.verdict == "kept" for row in rows)


def _row(results: Results, label: str, name: str) -> QuadrantRow:
    return next(row for row in results.of(label, "original") if row.quadrant == name)


def _gain(results: Results, row: OriginalNew) -> str:
    before = results.balance(results.base.label).new
    return f"{points(row.gain)} ({percent(before)} to {percent(row.new)})"


def _new(results: Results) -> str:
    return "new task" if [task.role for task in results.tasks].count("new") == 1 else "new tasks"


def _worst(row: OriginalNew) -> str:
    where = f" in {quadrant(row.worst_quadrant)}" if row.worst_quadrant else ""
    return f"{points(row.worst_delta)}{where}"
