"""How much was forgotten, from scores before and after. Scores are shares, 0 to 1."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple


class Transitions(NamedTuple):
    """Items that changed: right before and wrong now, wrong before and right now."""

    lost: int
    gained: int


def transitions(before: Sequence[float], after: Sequence[float]) -> Transitions:
    """Sample-wise 1 -> 0 and 0 -> 1 (arXiv 2510.17776); their difference is n times the delta."""
    pairs = list(zip(before, after, strict=True))
    return Transitions(
        lost=sum(b > a for b, a in pairs),
        gained=sum(b < a for b, a in pairs),
    )


def h_score(original: Sequence[float], new: Sequence[float]) -> float | None:
    """Harmonic mean of the mean over original and the mean over new tasks (Model Tailor).

    None where either is empty.
    """
    if not original or not new:
        return None
    kept, learned = fmean(original), fmean(new)
    return 2 * kept * learned / (kept + learned) if kept + learned else 0.0


def retention(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Mean over tasks of score after / score before; tasks scored 0 before have no ratio.

    None where no task has one.
    """
    ratios = [a / b for b, a in zip(before, after, strict=True) if b > 0]
    return fmean(ratios) if ratios else None


def dominated(points: dict[str, tuple[float, float]]) -> dict[str, str | None]:
    """For each point the name of one that is at least as good in both and better in one, or None.

    Both coordinates are better when higher.
    """
    return {
        name: next((other for other, rival in points.items() if _beats(rival, point)), None)
        for name, point in points.items()
    }


def _beats(rival: tuple[float, float], point: tuple[float, float]) -> bool:
    return rival[0] >= point[0] and rival[1] >= point[1] and rival != point
