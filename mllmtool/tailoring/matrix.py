r"""Tailor one linear map: objective, mask, decoration.

The objective is $J(a) = \frac12 (a - \delta) H (a - \delta)^T + \frac\lambda2 a H_a a^T$ for the
change a of a row: the tuned layer's output on the task, the base's on the anchors. With
$A = H + \lambda H_a$ and its optimum $a^* = \delta H A^{-1}$, J is
$\frac12 (a - a^*) A (a - a^*)^T$ and a constant. So the anchored problem is Model Tailor's own with
$a^*$ for $\delta$ and A for H: mask and decoration are the same code, $\lambda = 0$ is the paper's,
and density 1 is RegMean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from mllmtool.configs.tailor import Combine, DampingBy, MaskRule
from mllmtool.tailoring.decorate import correction
from mllmtool.tailoring.moments import Moment, NotPositiveError
from mllmtool.tailoring.scores import entry_count, fused_score, scoped_mask, sensitivity
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
    mask: MaskRule = field(default_factory=MaskRule)
    damping_by: DampingBy = "mean"
    combine: Combine = "mean"


@dataclass(frozen=True)
class Matrix:
    """One linear map, its tensors side by side as columns (a weight, then its bias).

    Shapes: `base` and `change` (R, C), of the moments' dtype; `widths` are the tensors' columns and
    sum to C.
    """

    base: Tensor
    change: Tensor
    widths: tuple[int, ...]
    task: Moment
    anchor: Moment | None = None
    held_out: Moment | None = None  # of samples that decide nothing

    @property
    def is_starved(self) -> bool:
        """Whether it was seen on fewer tokens than a tenth of its columns; it is damped more."""
        columns = 0 if self.task.full is None else len(self.task.full)
        return 0 < self.task.tokens < columns / 10


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
    by_release = choices.solver == "released" and matrix.task.is_shared
    solve = _released if by_release else _solve

    def fallback() -> Solution:
        mask = _mask(matrix, matrix.change.abs(), choices)
        return torch.where(mask, matrix.change, 0.0), mask, "mask-only", 0.0

    damping = choices.damping * (10 if matrix.is_starved and not by_release else 1)
    return _retrying(lambda damping: solve(matrix, choices, damping), fallback, damping)


def tailor_jointly(matrices: Sequence[Matrix], choices: Choices) -> Tailored:
    """Tailor one map for several tasks at once: least sum of their objectives, one patch.

    The mask is the union of the tasks' own. Density 1 is RegMean of the tuned models.
    """

    def solve(damping: float) -> Solution:
        objectives = [_objective(matrix, choices, damping) for matrix in matrices]
        masks = [
            _mask(matrix, _score(matrix, moment, optimum, choices), choices)
            for matrix, (moment, optimum) in zip(matrices, objectives, strict=True)
        ]
        total = reduce(Moment.plus, [moment for moment, _ in objectives])
        right = reduce(torch.add, [moment.apply(optimum) for moment, optimum in objectives])
        return _decorated(
            total, total.factor.solve(right), reduce(torch.logical_or, masks), choices
        )

    def fallback() -> Solution:
        masks = [_mask(matrix, matrix.change.abs(), choices) for matrix in matrices]
        counts = torch.stack(masks).sum(dim=0)
        changes = [torch.where(m, x.change, 0.0) for m, x in zip(masks, matrices, strict=True)]
        change = reduce(torch.add, changes) / counts.clamp(min=1)
        return change, counts > 0, "mask-only", 0.0

    starved = any(matrix.is_starved for matrix in matrices)
    return _retrying(solve, fallback, choices.damping * (10 if starved else 1))


Solution = tuple[Tensor, Tensor, str, float]  # change, mask, solver, residual


def _retrying(
    solve: Callable[[float], Solution], fallback: Callable[[], Solution], damping: float
) -> Tailored:
    """Solve with ten times the damping as long as the moment is not positive."""
    for retry in range(RETRIES + 1):
        try:
            change, mask, solver, residual = solve(damping * 10**retry)
        except NotPositiveError:
            continue
        return Tailored(change, mask, solver, damping * 10**retry, retry, residual)
    change, mask, solver, residual = fallback()
    return Tailored(change, mask, solver, damping * 10**RETRIES, RETRIES, residual)


def _solve(matrix: Matrix, choices: Choices, damping: float) -> Solution:
    moment, optimum = _objective(matrix, choices, damping)
    if choices.density == 1:
        return optimum, optimum != 0, "dense", 0.0
    mask = _mask(matrix, _score(matrix, moment, optimum, choices), choices)
    return _decorated(moment, optimum, mask, choices)


def _decorated(moment: Moment, optimum: Tensor, mask: Tensor, choices: Choices) -> Solution:
    """The kept entries of the optimum, and what makes up for the others."""
    kept = torch.where(mask, optimum, 0.0)
    if choices.solver == "none":
        return kept, mask, "none", 0.0
    if choices.solver == "sweep" and moment.is_shared:
        root = moment.inverse_root()
        swept, _ = sweep(root, optimum, lambda here, _: mask[:, here])
        decoration, solver, residual = swept - kept, "sweep", 0.0
    else:
        decoration, solver, residual = correction(moment, optimum - kept, mask)
    return kept + choices.strength * decoration, mask, solver, residual


def _released(matrix: Matrix, choices: Choices, damping: float) -> Solution:
    """The authors' released recipe; a dead column's moment is 1, as theirs."""
    dead = matrix.task.on_diagonal(matrix.change.shape)[:1] == 0
    task = Moment(matrix.task.diagonal + dead.to(matrix.change.dtype), matrix.task.full)
    root = task.damped(damping, matrix.change.shape).inverse_root()
    settings = (choices.density, choices.salience_weight)
    change, mask = released(root, matrix.change, matrix.base, *settings)
    return change, mask, "released", 0.0


def _objective(matrix: Matrix, choices: Choices, damping: float) -> tuple[Moment, Tensor]:
    """A and its optimum, damped."""
    shape = matrix.change.shape
    task = matrix.task.damped(damping, shape, choices.damping_by)
    if matrix.anchor is None or choices.anchor_weight == 0:
        return task, matrix.change
    anchor = matrix.anchor.damped(damping, shape, choices.damping_by)
    anchor = anchor.scaled(choices.anchor_weight)
    moment = task.plus(anchor)
    return moment, moment.factor.solve(task.apply(matrix.change))


def _score(matrix: Matrix, moment: Moment, optimum: Tensor, choices: Choices) -> Tensor:
    """The fused score of each entry.

    Where rows do not share their input (lookups, tied heads) or there is one row (norms), salience
    would compare entries that are used unequally often: there sensitivity alone decides.
    """
    rule = choices.mask
    cost = sensitivity(
        optimum if rule.sensitivity == "change" else matrix.base + optimum,
        moment.inverse_root().diagonal().square()
        if rule.denominator == "sweep" and moment.is_shared
        else moment.factor.inverse_diagonal(optimum.shape),
    )
    if not moment.is_shared:
        return cost
    tables = [torch.split(table, list(matrix.widths), dim=1) for table in (optimum.abs(), cost)]
    scores = [
        fused_score(first, second, choices.salience_weight, rule.normalise)
        for first, second in zip(*tables, strict=True)
    ]
    return torch.cat(scores, dim=1)


def _mask(matrix: Matrix, score: Tensor, choices: Choices) -> Tensor:
    """The exact count of each tensor among what may be kept."""
    rule, eligible = choices.mask, torch.ones_like(score, dtype=torch.bool)
    if rule.eligible == "changed":
        eligible &= matrix.change != 0
    if rule.dead == "revert":
        eligible &= matrix.task.on_diagonal(score.shape) > 0
    counted = matrix.change != 0 if rule.count == "changed" else torch.ones_like(eligible)
    tables = [torch.split(t, list(matrix.widths), dim=1) for t in (score, eligible, counted)]
    masks = [
        scoped_mask(part, there, entry_count(choices.density, int(some.sum())), rule.scope)
        for part, there, some in zip(*tables, strict=True)
    ]
    return torch.cat(masks, dim=1)
