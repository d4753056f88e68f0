"""The patch decorator: kept entries make up for the reverted ones, exactly.

For row r with kept columns K, the correction solves $A_{KK} c_K = b_K$, where b is what the mask
lost (theorem 4.5 in its kept-set form: an equation a row, of the size of what is kept, and not of
what is reverted).
"""

from typing import Any

import torch
from scipy.linalg.lapack import get_lapack_funcs
from torch import Tensor

from mllmtool.tailoring.moments import Moment, NotPositiveError

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
    if mask.double().mean() <= DENSITY_OF_PCG and lost.device.type == "cpu":
        return cholesky(moment, lost, mask), "cholesky", 0.0
    solution, residual = conjugate_gradient(moment, lost, mask)
    return solution, "pcg", residual


def cholesky(moment: Moment, lost: Tensor, mask: Tensor) -> Tensor:
    """Cholesky row by row, each on what it keeps; (R, C), 0 off the mask.

    A row's block is gathered into memory that the next one uses again: fresh memory for each, or
    rows padded into batches, took half as long again.
    """
    if moment.full is None:
        raise TypeError("a diagonal moment needs no factor")
    scale, unit = _unit_diagonal(moment.full, moment.diagonal)
    shifts = moment.diagonal * scale.square()  # (1, C) or (R, C)
    right, solution = torch.where(mask, lost * scale, 0.0), torch.zeros_like(lost)
    solver = get_lapack_funcs("posv", dtype=unit.numpy().dtype)
    width = int(mask.sum(dim=1).max())
    rows, space = unit.new_empty(width, len(unit)), unit.new_empty(width * width)
    for row in mask.any(dim=1).nonzero().flatten().tolist():
        kept = mask[row].nonzero().flatten()
        size = len(kept)
        block = space[: size * size].view(size, size)
        torch.index_select(unit, 0, kept, out=rows[:size])
        torch.index_select(rows[:size], 1, kept, out=block)
        block.diagonal().add_(shifts[row if len(shifts) > 1 else 0, kept])
        solution[row, kept] = _solve(solver, block, right[row, kept])
    return solution * scale


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


def _unit_diagonal(full: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor]:
    """A scale (C,), and the full moment so scaled; with its diagonal it has ones there."""
    whole = full.diagonal() + diagonal.mean(dim=0)
    if not (whole > 0).all():
        raise NotPositiveError
    scale = whole.rsqrt()
    return scale, full * scale[:, None] * scale


def _solve(solver: Any, block: Tensor, right: Tensor) -> Tensor:
    """Solve one equation; overwrites the block, of which one triangle is read."""
    _, solution, info = solver(block.numpy().T, right.numpy(), lower=True, overwrite_a=True)
    if info:
        raise NotPositiveError
    return torch.from_numpy(solution)
