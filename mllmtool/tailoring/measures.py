"""What tailoring did to a map and to a model, measured on the tensors as they are stored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from math import sqrt
from statistics import fmean, median
from typing import Any

from torch import Tensor

from mllmtool.errors import some
from mllmtool.tailoring.matrix import Matrix, Tailored
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.presets import block_of

DEPTH_LIMIT = 1 / 3
ERRORS = ("full_revert", "mask_only", "tailored", "anchor_drift")


def map_errors(matrix: Matrix, tailored: Tailored, stored: Tensor) -> dict[str, Any]:
    """Errors of one map on its calibration tokens, a row of the report.

    `full_revert` is the squared error of putting the base back, relative to the tuned output's
    square; `mask_only` and `tailored` are relative to that error, `anchor_drift` to the drift of
    the tuned weights on the anchors, `correction` to the norm of the masked change. `held_out` has
    the first three on samples that decided nothing; `dead` counts inputs that are always 0.

    Args:
        matrix: the problem.
        tailored: its solution, before the cast.
        stored: the change that is stored, after the cast and after several patches were fused.
    """
    masked = matrix.change * tailored.mask
    return {
        "tokens": matrix.task.tokens,
        "dead": int((matrix.task.on_diagonal(matrix.change.shape)[0] == 0).sum()),
        **_errors(matrix, matrix.task, masked, stored),
        "held_out": None
        if matrix.held_out is None
        else _errors(matrix, matrix.held_out, masked, stored),
        "anchor_drift": None
        if matrix.anchor is None
        else _ratio(matrix.anchor.energy(stored), matrix.anchor.energy(matrix.change)),
        "correction": _ratio(float((stored - masked).norm()), float(masked.norm())),
        "solver": tailored.solver,
        "damping": tailored.damping,
        "retries": tailored.retries,
        "residual": tailored.residual,
    }


def mask_overlap(patches: Sequence[tuple[Tensor, Tensor]]) -> list[dict[str, int]]:
    """Of each pair of masks with their changes: entries in both, in either, of opposed sign."""
    return [
        {
            "both": int((first[0] & second[0]).sum()),
            "either": int((first[0] | second[0]).sum()),
            "opposed": int((first[1] * second[1] < 0).sum()),
        }
        for first, second in combinations(patches, 2)
    ]


def overlap_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Jaccard index of the tasks' masks, what chance would give, and the share of opposed signs."""
    pairs = [(row, pair) for row in rows for pair in row["overlap"]]
    both, either = (sum(pair[key] for _, pair in pairs) for key in ("both", "either"))
    chance = sum((pair["both"] + pair["either"]) ** 2 / 4 / row["entries"] for row, pair in pairs)
    return {
        "jaccard": _ratio(both, either),
        "chance": _ratio(chance, both + either - chance),
        "opposed_share": _ratio(sum(pair["opposed"] for _, pair in pairs), both),
    }


def beside_wise(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | bool] | None:
    """The drift on the anchors beside that of WiSE-FT at the same error, means over the maps.

    In a layer's output WiSE-FT at scale s has the error (1 - s)^2 and the drift s^2 of the tuned
    model's. Errors are those of held-out samples where there are some. None without anchors.
    """
    pairs = []
    for _, task in _tasks(rows):
        error, drift = (task["held_out"] or task)["tailored"], task["anchor_drift"]
        if error is not None and drift is not None:
            pairs.append((min(error, 1.0), drift))
    if not pairs:
        return None
    error, drift = (fmean(pair[place] for pair in pairs) for place in (0, 1))
    scale = 1 - sqrt(error)
    return {
        "error": error,
        "anchor_drift": drift,
        "wise_ft_scale": scale,
        "wise_ft_anchor_drift": scale**2,
        "worse": drift > scale**2,
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
        "fewer calibration tokens than a tenth of their inputs, so damped ten times as much; raise"
        " --num-samples": [
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
    sentences = [f"{some(names)}: {text}" for text, names in found.items() if names]
    beside = beside_wise(rows)
    if beside and beside["worse"]:
        sentences.append(
            "tailored model: worse than WiSE-FT in its layers, which at the same task error"
            f" ({beside['error']:.2f}) and scale {beside['wise_ft_scale']:.2f} has"
            f" {beside['wise_ft_anchor_drift']:.2f} of the drift on the anchors, against"
            f" {beside['anchor_drift']:.2f}; raise --sparsity or --anchor-weight, or try fuse"
            " --method wise-ft"
        )
    return sentences


def _errors(matrix: Matrix, moment: Moment, masked: Tensor, stored: Tensor) -> dict[str, Any]:
    revert = moment.energy(matrix.change)
    return {
        "full_revert": _ratio(revert, moment.energy(matrix.base + matrix.change)),
        "mask_only": _ratio(moment.energy(matrix.change - masked), revert),
        "tailored": _ratio(moment.energy(matrix.change - stored), revert),
    }


def _ratio(value: float, whole: float) -> float | None:
    return value / whole if whole > 0 else None


def _median(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return median(there) if there else None


def _tasks(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Any]]:
    for row in rows:
        for task in row["tasks"]:
            yield row, task
