r"""Which entries of a change are kept: salience and sensitivity, fused, and an exact count.

Zhu et al. 2024: salience is $|\delta|$; sensitivity is what reverting the entry costs once the
others make up for it (theorem 4.3), $\delta_m^2 / (2 [A^{-1}]_{mm})$.
"""

import torch
from torch import Tensor

from mllmtool.configs.tailor import Normalise, Scope

BLOCK = 128  # columns, as in the released code


def sensitivity(change: Tensor, inverse_diagonal: Tensor) -> Tensor:
    r"""$\delta_m^2 / (2 [A^{-1}]_{mm})$, entry by entry (optimal brain surgeon)."""
    return change.square() / (2 * inverse_diagonal)


def fused_score(first: Tensor, second: Tensor, weight: float, normalise: Normalise) -> Tensor:
    """`weight` * first + (1 - weight) * second, both made comparable."""
    ours, theirs = comparable(first, normalise), comparable(second, normalise)
    return weight * ours + (1 - weight) * theirs


def comparable(values: Tensor, normalise: Normalise) -> Tensor:
    """Standardised over a row or over its blocks of 128 columns, ranked from 0 to 1, or as it is.

    A single column, which is a bias, counts as one row.
    """
    table = values if values.shape[1] > 1 else values.reshape(1, -1)
    if normalise == "row":
        table = standardised(table)
    elif normalise == "block":
        table = torch.cat([standardised(part) for part in torch.split(table, BLOCK, dim=1)], dim=1)
    elif normalise == "rank":
        ranks = table.argsort(dim=1, stable=True).argsort(dim=1)
        table = ranks.to(values.dtype) / max(table.shape[1] - 1, 1)
    return table.reshape(values.shape)


def standardised(values: Tensor) -> Tensor:
    """(x - mean) / standard deviation (unbiased) of each row; constants give 0."""
    if values.shape[1] < 2:
        return torch.zeros_like(values)
    spread, mean = torch.std_mean(values, dim=1, keepdim=True)
    return torch.where(spread > 0, (values - mean) / spread, 0.0)


def entry_count(density: float, entries: int) -> int:
    """How many of `entries` a density keeps: the nearest whole number, halves up."""
    return int(density * entries + 0.5)


def scoped_mask(score: Tensor, eligible: Tensor, count: int, scope: Scope) -> Tensor:
    """The `count` best eligible entries of the matrix, or as many of each row or block of columns.

    Counts of rows and blocks are rounded so that they sum to `count`.
    """
    if scope == "matrix" or score.shape[1] == 1:
        return top_mask(score, eligible, count)
    step, axis = (1, 0) if scope == "row" else (BLOCK, 1)
    masks, seen, taken = [], 0, 0
    for part, there in zip(
        *(torch.split(table, step, axis) for table in (score, eligible)), strict=True
    ):
        seen += part.numel()
        until = entry_count(count / score.numel(), seen)
        masks.append(top_mask(part, there, until - taken))
        taken = until
    return torch.cat(masks, dim=axis)


def top_mask(score: Tensor, eligible: Tensor, count: int) -> Tensor:
    """The `count` best eligible entries, fewer if fewer are eligible; ties go to the earlier."""
    count = min(count, int(eligible.sum()))
    if count == 0:
        return torch.zeros_like(eligible)
    ranked = torch.where(eligible, score, -torch.inf).reshape(-1)
    threshold = ranked.kthvalue(ranked.numel() - count + 1).values
    above = ranked > threshold
    level = (ranked == threshold) & eligible.reshape(-1)
    first_ones = level & (level.cumsum(0) <= count - above.sum())
    return (above | first_ones).reshape(score.shape)
