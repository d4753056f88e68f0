r"""A sequence of fine-tunings: how much was learnt at each stage, and how much of it was lost.

$A_{ij}$ is the score on task j after stage i, $i = 1 \ldots T$; row 0 is of the base. Papers use
one name for several formulas, so that each figure goes with its own.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

Matrix = Sequence[Sequence[float]]  # rows are stages, columns tasks


class Figure(NamedTuple):
    """A figure of a sequence; None where it takes more stages than there are."""

    name: str
    value: float | None
    formula: str


def stage_figures(before: Sequence[float], after: Matrix) -> list[Figure]:
    """Every figure of a sequence; `before` is the base's row, `after` one row a stage."""
    return [Figure(name, of(before, after), formula) for name, (of, formula) in FIGURES.items()]


def last(_before: Sequence[float], after: Matrix) -> float:
    """Mean over tasks after the last stage."""
    return fmean(after[-1])


def learning(_before: Sequence[float], after: Matrix) -> float:
    """Mean of each task right after its own stage."""
    return fmean(row[stage] for stage, row in enumerate(after))


def average(_before: Sequence[float], after: Matrix) -> float:
    """Mean over stages of the mean over the tasks seen by then."""
    return fmean(fmean(row[: stage + 1]) for stage, row in enumerate(after))


def transfer_gem(_before: Sequence[float], after: Matrix) -> float | None:
    """Backward transfer as in GEM, without the last task."""
    changes = _changes(after)[:-1]
    return fmean(changes) if changes else None


def transfer_all(_before: Sequence[float], after: Matrix) -> float:
    """Backward transfer over all tasks, of which the last has none."""
    return fmean(_changes(after))


def forgetting(_before: Sequence[float], after: Matrix) -> float | None:
    """What was lost of the best score that there was (Chaudhry et al. 2018)."""
    final, earlier = after[-1], after[:-1]
    lost = [
        max(row[task] for row in earlier[task:]) - final[task] for task in range(len(after) - 1)
    ]
    return fmean(lost) if lost else None


def forward_transfer(before: Sequence[float], after: Matrix) -> float | None:
    """What a task gained from the stages before its own."""
    gained = [after[task - 1][task] - before[task] for task in range(1, len(after))]
    return fmean(gained) if gained else None


def _changes(after: Matrix) -> list[float]:
    return [now - after[task][task] for task, now in enumerate(after[-1])]


FIGURES: dict[str, tuple[Callable[[Sequence[float], Matrix], float | None], str]] = {
    "last": (last, "mean_j A[T][j]"),
    "mft": (learning, "mean_j A[j][j]"),
    "maa": (average, "mean_i mean_{j<=i} A[i][j]"),
    "bwt_gem": (transfer_gem, "1/(T-1) sum_{j<T} (A[T][j] - A[j][j])"),
    "bwt_all": (transfer_all, "1/T sum_{j<=T} (A[T][j] - A[j][j])"),
    "forgetting": (forgetting, "1/(T-1) sum_{j<T} (max_{j<=i<T} A[i][j] - A[T][j])"),
    "fwt": (forward_transfer, "1/(T-1) sum_{j>1} (A[j-1][j] - A[0][j])"),
}
