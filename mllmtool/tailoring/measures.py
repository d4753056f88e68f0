"""What tailoring did to a map and to a model, measured on the tensors as they are stored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from torch import Tensor

from mllmtool.errors import some
from mllmtool.tailoring.matrix import Matrix, Tailored
from mllmtool.tailoring.presets import block_of

DEPTH_LIMIT = 1 / 3
ERRORS = ("full_revert", "mask_only", "tailored", "anchor_drift")


def map_errors(matrix: Matrix, tailored: Tailored, stored: Tensor) -> dict[str, Any]:
    """Errors of one map on its calibration tokens, a row of the report.

    `full_revert` is the squared error of putting the base back, relative to the tuned output's
    square; `mask_only` and `tailored` are relative to that error, `anchor_drift` to the drift of
    the tuned weights on the anchors, `correction` to the norm of the masked change.

    Args:
        matrix: the problem.
        tailored: its solution, before the cast.
        stored: the change that is stored, after the cast and after several patches were fused.
    """
    masked = matrix.change * tailored.mask
    revert = matrix.task.energy(matrix.change)
    return {
        "tokens": matrix.task.tokens,
        "full_revert": _ratio(revert, matrix.task.energy(matrix.base + matrix.change)),
        "mask_only": _ratio(matrix.task.energy(matrix.change - masked), revert),
        "tailored": _ratio(matrix.task.energy(matrix.change - stored), revert),
        "anchor_drift": None
        if matrix.anchor is None
        else _ratio(matrix.anchor.energy(stored), matrix.anchor.energy(matrix.change)),
        "correction": _ratio(float((stored - masked).norm()), float(masked.norm())),
        "solver": tailored.solver,
        "damping": tailored.damping,
        "retries": tailored.retries,
        "residual": tailored.residual,
    }


def part_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Counts of a part's tensors, and the medians of its maps' errors."""
    summary = {}
    for part in sorted({row["part"] for row in rows}):
        here = [row for row in rows if row["part"] == part]
        tasks = [task for _, task in _tasks(here)]
        summary[part] = {
            **{key: sum(row[key] for row in here) for key in ("entries", "kept", "changed")},
            "maps": len(here),
            **{key: _median(task[key] for task in tasks) for key in ERRORS},
        }
    return summary


def depth_profile(base: Sequence[str], tuned: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many numbered blocks each stack of the model has, and how many of them were tuned."""
    stacks: dict[str, tuple[set[int], set[int]]] = {}
    for names, place in ((base, 0), (tuned, 1)):
        for name in names:
            if found := block_of(name):
                stacks.setdefault(found[0], (set(), set()))[place].add(found[1])
    return {
        stack: {"blocks": len(there), "tuned": len(changed)}
        for stack, (there, changed) in sorted(stacks.items())
    }


def caveats(
    rows: Sequence[Mapping[str, Any]], profile: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """What to know before trusting the result, a sentence each."""
    found = {
        "no calibration token reaches them; they go back to the base": [
            row["tensors"][0] for row, task in _tasks(rows) if not task["tokens"]
        ],
        "fewer calibration tokens than a tenth of their inputs; raise --num-samples": [
            row["tensors"][0]
            for row, task in _tasks(rows)
            if row["mixes"] and 0 < task["tokens"] < row["shape"][1] / 10
        ],
        "no damping made their moments positive definite; kept without decoration": [
            row["tensors"][0]
            for row, task in _tasks(rows)
            if task["tokens"] and task["solver"] == "mask-only"
        ],
        "the solver stopped before it converged; raise --damping": [
            row["tensors"][0] for row, task in _tasks(rows) if task["residual"] > 1e-2
        ],
        "more than a third of their blocks were tuned; the more were, the less a repair after"
        " training holds": [
            f"{stack} ({row['tuned']} of {row['blocks']})"
            for stack, row in profile.items()
            if row["tuned"] > DEPTH_LIMIT * row["blocks"]
        ],
    }
    return [f"{some(names)}: {text}" for text, names in found.items() if names]


def _ratio(value: float, whole: float) -> float | None:
    return value / whole if whole > 0 else None


def _median(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return median(there) if there else None


def _tasks(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Any]]:
    for row in rows:
        for task in row["tasks"]:
            yield row, task
