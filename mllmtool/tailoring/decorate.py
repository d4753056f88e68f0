"""The patch decorator: kept entries make up for the reverted ones, exactly.

For row r with kept columns K, the correction solves $A_{KK} c_K = b_K$, where b is what the mask
lost (theorem 4.5 in its kept-set form: an equation a row, of the size of what is kept, and not of
what is reverted).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mllmtool.tailoring.moments import Moment, NotPositiveError

GATHER_BYTES = 1 << 28
DENSITY_OF_PCG = 0.2
TOLERANCE, MAX_STEPS = 1e-4, 200  # of conjugate gradients: within 1e-4 of the least error


def correction(moment: Moment, lost: Tensor, mask: Tensor) -> tuple[Tensor, str, float]:
    r"""Solve for the correction; also the solver's name and its relative residual.

    Args:
        moment: damped moment A.
        lost: b = what the mask lost, $A_r (\delta_r - m_r \delta_r)$, (R, C).
        mask: kept entries, (R, C).

    Raises:
        NotPositiveError: a kept set's matrix is not positive definite.
    """
    if moment.full is None:
        return torch.where(mask, moment.factor.solve(lost), 0.0), "diagonal", 0.0
    if mask.double().mean() <= DENSITY_OF_PCG:
        return cholesky(moment, lost, mask), "cholesky", 0.0
    solution, residual = conjugate_gradient(moment, lost, mask)
    return solution, "pcg", residual


def cholesky(moment: Moment, lost: Tensor, mask: Tensor) -> Tensor:
    """Batched Cholesky over rows of similar count, in bounded memory; (R, C), 0 off the mask."""
    solution = torch.zeros_like(lost)
    diagonal = moment.diagonal.expand(lost.shape)
    for rows, columns, valid in _chunks(mask):
        solved = _solve_chunk(
            _blocks(moment, diagonal[rows].gather(1, columns), columns, valid),
            lost[rows].gather(1, columns) * valid,
        )
        row, place = valid.nonzero(as_tuple=True)
        solution[rows[row], columns[row, place]] = solved[row, place]
    return solution


def conjugate_gradient(
    moment: Moment, lost: Tensor, mask: Tensor, tolerance: float = TOLERANCE
) -> tuple[Tensor, float]:
    """Masked conjugate gradients with Jacobi's preconditioner, one product a step for all rows.

    Returns the solution and the worst row's final residual, relative to its right-hand side.

    Raises:
        NotPositiveError: a search direction has no positive curvature.
    """
    inverse = torch.where(mask, moment.on_diagonal(lost.shape).reciprocal(), 0.0)
    residual = torch.where(mask, lost, 0.0)
    solution = torch.zeros_like(lost)
    size = residual.norm(dim=1, keepdim=True).clamp(min=torch.finfo(lost.dtype).tiny)
    direction = residual * inverse
    descent = (residual * direction).sum(dim=1, keepdim=True)
    for _ in range(MAX_STEPS):
        going = (residual.norm(dim=1, keepdim=True) / size) > tolerance
        if not going.any():
            break
        product = torch.where(mask, moment.apply(direction), 0.0)
        curvature = (direction * product).sum(dim=1, keepdim=True)
        if (curvature[going] <= 0).any():
            raise NotPositiveError
        step = torch.where(going, descent / curvature, 0.0)
        solution += step * direction
        residual -= step * product
        conditioned = residual * inverse
        following = (residual * conditioned).sum(dim=1, keepdim=True)
        direction = conditioned + torch.where(going, following / descent, 0.0) * direction
        descent = following
    return solution, float((residual.norm(dim=1, keepdim=True) / size).max())


def _chunks(mask: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows (B,), their kept columns padded with 0 (B, K), and which of these are real (B, K)."""
    counts = mask.sum(dim=1)
    order = counts.argsort(stable=True)
    order = order[counts[order] > 0]
    start = 0
    while start < len(order):
        rows = order[start:]
        sizes = counts[rows]
        places = torch.arange(1, len(rows) + 1)
        fits = (places * sizes.square() * 8 <= GATHER_BYTES).sum()
        rows = rows[: max(int(fits), 1)]
        width = int(counts[rows[-1]])
        row, column = mask[rows].nonzero(as_tuple=True)
        place = mask[rows].cumsum(dim=1)[row, column] - 1
        columns = torch.zeros(len(rows), width, dtype=torch.long)
        columns[row, place] = column
        yield rows, columns, torch.arange(width) < counts[rows, None]
        start += len(rows)


def _blocks(moment: Moment, diagonal: Tensor, columns: Tensor, valid: Tensor) -> Tensor:
    """$A_{KK}$ of each row, the identity on padding: (B, K, K)."""
    if moment.full is None:
        blocks = torch.zeros(*columns.shape, columns.shape[1], dtype=diagonal.dtype)
    else:
        blocks = moment.full[columns[:, :, None], columns[:, None, :]]
    blocks *= valid[:, :, None] & valid[:, None, :]
    blocks.diagonal(dim1=1, dim2=2).add_(torch.where(valid, diagonal, 1.0))
    return blocks


def _solve_chunk(blocks: Tensor, right: Tensor) -> Tensor:
    """Solve (B, K, K) against (B, K), scaled to a unit diagonal."""
    diagonal = blocks.diagonal(dim1=1, dim2=2)
    if not (diagonal > 0).all():
        raise NotPositiveError
    scale = diagonal.rsqrt()
    lower, info = torch.linalg.cholesky_ex(blocks * scale[:, :, None] * scale[:, None, :])
    if info.any():
        raise NotPositiveError
    return torch.cholesky_solve((right * scale)[:, :, None], lower)[:, :, 0] * scale
