r"""Which entries of a change are kept: salience and sensitivity, fused, and an exact count.

Zhu et al. 2024: salience is $|\delta|$; sensitivity is what reverting the entry costs once the
others make up for it (theorem 4.3), $\delta_m^2 / (2 [A^{-1}]_{mm})$.
"""

import torch
from torch import Tensor


def sensitivity(change: Tensor, inverse_diagonal: Tensor) -> Tensor:
    r"""$\delta_m^2 / (2 [A^{-1}]_{mm})$, entry by entry (optimal brain surgeon)."""
    return change.square() / (2 * inverse_diagonal)


def fused_score(first: Tensor, second: Tensor, weight: float, by_row: bool) -> Tensor:
    """`weight` * z(first) + (1 - weight) * z(second), z over each row or over the whole."""
    return weight * standardised(first, by_row) + (1 - weight) * standardised(second, by_row)


def standardised(values: Tensor, by_row: bool) -> Tensor:
    """(x - mean) / standard deviation (unbiased) of each row or of the whole; constants give 0."""
    table = values if by_row else values.reshape(1, -1)
    if table.shape[1] < 2:
        return torch.zeros_like(values)
    spread, mean = torch.std_mean(table, dim=1, keepdim=True)
    return torch.where(spread > 0, (table - mean) / spread, 0.0).reshape(values.shape)


def entry_count(density: float, entries: int) -> int:
    """How many of `entries` a density keeps: the nearest whole number, halves up."""
    return int(density * entries + 0.5)


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
