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


class Latent(NamedTuple):
    """Shares of items known before and not now, and known now and not before."""

    forgotten: float
    learned: float


def without_chance(
    before: Sequence[float], after: Sequence[float], chances: Sequence[float]
) -> Latent:
    r"""Transitions less those expected from guessing, if an item is known or guessed (2510.17776).

    With chance c of a right guess, made anew each time, items known before and not now are an
    unbiased $n_{10}/(1-c) - c\,n_{00}/(1-c)^2$, where $n_{10}$ are those right before and wrong now
    and $n_{00}$ those wrong twice; those learnt likewise. Less than none is none.
    """
    lost = gained = 0.0
    for was, now, chance in zip(before, after, chances, strict=True):
        twice = chance * (1 - was) * (1 - now) / (1 - chance) ** 2
        lost += was * (1 - now) / (1 - chance) - twice
        gained += now * (1 - was) / (1 - chance) - twice
    total = len(chances)
    return Latent(max(0.0, lost / total), max(0.0, gained / total))


def above_chance(score: float, chance: float) -> float:
    """(score - c) / (1 - c): 0 is guessing, 1 is knowing all."""
    return (score - chance) / (1 - chance)


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


def h_score_ratio(
    original: Sequence[float],
    pretrained: Sequence[float],
    new: Sequence[float],
    tuned: Sequence[float],
) -> float | None:
    """H-score of scores over their references: the base's on original, the tuned one's on new.

    None where a side has no task, or none whose reference is above 0. It needs no common scale.
    """
    kept, learned = retention(pretrained, original), retention(tuned, new)
    return None if kept is None or learned is None else h_score([kept], [learned])


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
