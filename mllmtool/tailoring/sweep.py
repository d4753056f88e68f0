"""SparseGPT's column sweep, for comparison with the exact solution.

Columns are decided from left to right; a reverted entry's error is spread over the columns right of
it, by a row of the upper Cholesky factor U of the inverse moment (Frantar and Alistarh 2023). The
sign is minus: the released code of Model Tailor has plus, which `released` keeps, with its other
choices, so that its figures can be reproduced.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mllmtool.tailoring.scores import BLOCK, fused_score

Keep = Callable[[slice, Tensor], Tensor]


def sweep(
    inverse_root: Tensor, change: Tensor, keep: Keep, sign: int = -1
) -> tuple[Tensor, Tensor]:
    """Sweep over columns; reverted entries end at 0.

    Args:
        change: what to decorate, (R, C).
        inverse_root: U, upper triangular with $U^T U = A^{-1}$, (C, C).
        keep: given a block's columns and the current change there, which entries are kept.
        sign: -1 is optimal brain surgeon's, +1 the released code's.

    Returns:
        The decorated change and the mask, both (R, C).
    """
    current, mask = change.clone(), torch.zeros_like(change, dtype=torch.bool)
    for start in range(0, change.shape[1], BLOCK):
        here = slice(start, min(start + BLOCK, change.shape[1]))
        mask[:, here] = keep(here, current[:, here])
        root, lost = inverse_root[here, here], (~mask[:, here]).T.to(change.dtype)
        columns = current[:, here].T.contiguous()  # each column in one piece of memory
        errors = torch.zeros_like(columns)
        for place in range(len(columns)):
            errors[place] = columns[place] * lost[place] / root[place, place]
            columns[place:].addr_(root[place, place:], errors[place], alpha=sign)
        current[:, here] = columns.T
        current[:, here.stop :].addmm_(errors.T, inverse_root[here, here.stop :], alpha=sign)
    return torch.where(mask, current, 0.0), mask


def released(
    inverse_root: Tensor, change: Tensor, base: Tensor, density: float, weight: float
) -> tuple[Tensor, Tensor]:
    """The authors' released recipe: as in `llava/train/sparsegpt.py` of their repository.

    Its sensitivity is that of zeroing the current weight, not of reverting it; scores are
    standardised over each row of a block of 128 columns, and a block has one threshold, the entry
    at place int(entries * (1 - density)) of its sorted scores, above which entries are kept.
    """

    def keep(here: slice, current: Tensor) -> Tensor:
        denominators = inverse_root.diagonal()[here].square()
        importance = (base[:, here] + current).square() / denominators
        score = fused_score(change[:, here].abs(), importance, weight, "row")
        ordered = score.reshape(-1).sort().values
        return score > ordered[int(score.numel() * (1 - density))]

    return sweep(inverse_root, change, keep, sign=1)
