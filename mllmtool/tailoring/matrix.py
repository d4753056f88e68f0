r"""Tailor one linear map: objective, mask, decoration.

The objective is $J(a) = \frac12 (a - \delta) H (a - \delta)^T + \frac\lambda2 a H_a a^T$ for the
change a of a row: the tuned layer's output on the task, the base's on the anchors. With
$A = H + \lambda H_a$ and its optimum $a^* = \delta H A^{-1}$, J is
$\frac12 (a - a^*) A (a - a^*)^T$ and a constant. So the anchored problem is Model Tailor's own with
$a^*$ for $\delta$ and A for H: mask and decoration are the same code, $\lambda = 0$ is the paper's,
and density 1 is RegMean.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mllmtool.tailoring.decorate import correction
from mllmtool.tailoring.moments import Moment, NotPositiveError
from mllmtool.tailoring.scores import entry_count, fused_score, sensitivity, top_mask
from mllmtool.tailoring.sweep import released, sweep

RETRIES = 3
Solver = Literal["exact", "sweep", "none", "released"]


@dataclass(frozen=True)
class Choices:
    """How to tailor; shares are 0 to 1."""

    density: float
    anchor_weight: float = 0.0
    salience_weight: float = 0.5
    damping: float = 0.01
    solver: Solver = "exact"
    strength: float = 1.0


@dataclass(frozen=True)
class Matrix:
    """One linear map, its tensors side by side as columns (a weight, then its bias).

    Shapes: `base` and `change` (R, C), float64; `widths` are the tensors' columns and sum to C.
    """

    base: Tensor
    change: Tensor
    widths: tuple[int, ...]
    task: Moment
    anchor: Moment | None = None


@dataclass(frozen=True)
class Tailored:
    """The patch of one map: `change` is 0 where `mask` is false."""

    change: Tensor
    mask: Tensor
    solver: str
    damping: float
    retries: int
    residual: float = 0.0


def tailor(matrix: Matrix, choices: Choices) -> Tailored:
    """Tailor one map; `solver` is "mask-only" where no damping makes the moment positive."""
    for retry in range(RETRIES + 1):
        damping = choices.damping * 10**retry
        by_release = choices.solver == "released" and matrix.task.is_shared
        solve = _released if by_release else _solve
        try:
            change, mask, solver, residual = solve(matrix, choices, damping)
        except NotPositiveError:
            continue
        return Tailored(change, mask, solver, damping, retry, residual)
    mask = _mask(matrix, matrix.change.abs(), choices.density)
    return Tailored(torch.where(mask, matrix.change, 0.0), mask, "mask-only", damping, RETRIES)


Solution = tuple[Tensor, Tensor, str, float]  # change, mask, solver, residual


def _solve(matrix: Matrix, choices: Choices, damping: float) -> Solution:
    moment, optimum = _objective(matrix, choices, damping)
    if choices.density == 1:
        return optimum, optimum != 0, "dense", 0.0
    mask = _mask(matrix, _score(matrix, moment, optimum, choices.salience_weight), choices.density)
    kept = torch.where(mask, optimum, 0.0)
    if choices.solver == "none":
        return kept, mask, "none", 0.0
    if choices.solver == "sweep" and moment.is_shared:
        root = moment.inverse_root()
        swept, _ = sweep(root, optimum, lambda here, _: mask[:, here])
        decoration, solver, residual = swept - kept, "sweep", 0.0
    else:
        lost = moment.apply(optimum - kept)
        decoration, solver, residual = correction(moment, lost, mask)
    return kept + choices.strength * decoration, mask, solver, residual


def _released(matrix: Matrix, choices: Choices, damping: float) -> Solution:
    """The authors' released recipe; a dead column's moment is 1, as theirs."""
    dead = matrix.task.on_diagonal(matrix.change.shape)[:1] == 0
    task = Moment(matrix.task.diagonal + dead.double(), matrix.task.full)
    root = task.damped(damping, matrix.change.shape).inverse_root()
    settings = (choices.density, choices.salience_weight)
    change, mask = released(root, matrix.change, matrix.base, *settings)
    return change, mask, "released", 0.0


def _objective(matrix: Matrix, choices: Choices, damping: float) -> tuple[Moment, Tensor]:
    """A and its optimum, damped."""
    shape = matrix.change.shape
    task = matrix.task.damped(damping, shape)
    if matrix.anchor is None or choices.anchor_weight == 0:
        return task, matrix.change
    anchor = matrix.anchor.damped(damping, shape).scaled(choices.anchor_weight)
    moment = task.plus(anchor)
    return moment, moment.factor.solve(task.apply(matrix.change))


def _score(matrix: Matrix, moment: Moment, optimum: Tensor, salience_weight: float) -> Tensor:
    """The fused score, standardised over each row of a weight and over the whole of a bias.

    Where rows do not share their input (lookups, tied heads) or there is one row (norms), salience
    would compare entries that are used unequally often: there sensitivity alone decides.
    """
    sensitive = sensitivity(optimum, moment.factor.inverse_diagonal(optimum.shape))
    if not moment.is_shared:
        return sensitive
    tables = [
        torch.split(table, list(matrix.widths), dim=1) for table in (optimum.abs(), sensitive)
    ]
    scores = [
        fused_score(first, second, salience_weight, by_row=first.shape[1] > 1)
        for first, second in zip(*tables, strict=True)
    ]
    return torch.cat(scores, dim=1)


def _mask(matrix: Matrix, score: Tensor, density: float) -> Tensor:
    """The exact count of each tensor; what training or the task never touched is not eligible."""
    eligible = (matrix.change != 0) & (matrix.task.on_diagonal(matrix.change.shape) > 0)
    tables = [torch.split(table, list(matrix.widths), dim=1) for table in (score, eligible)]
    masks = [
        top_mask(part, there, entry_count(density, part.numel()))
        for part, there in zip(*tables, strict=True)
    ]
    return torch.cat(masks, dim=1)
