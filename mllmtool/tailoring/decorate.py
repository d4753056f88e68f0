"""The patch decorator: kept entries make up for the reverted ones, exactly.

For row r with kept columns K, the correction solves $A_{KK} c_K = A_K v$, where v is what the mask
took from the change (theorem 4.5 in its kept-set form: an equation a row, of the size of what is
kept, and not of what is reverted). Cholesky needs no scaling to a unit diagonal: its error does not
depend on it.
"""

from typing import Any

import numpy as np
import torch
from scipy.linalg.lapack import get_lapack_funcs
from torch import Tensor

from mllmtool.tailoring.moments import Moment, NotPositiveError
from mllmtool.tailoring.normal_equations import normal_equations

DENSITY_OF_PCG = 0.2
TOLERANCE, MAX_STEPS = 1e-5, 200  # of conjugate gradients: within 1e-4 of the least error


def correction(moment: Moment, lost: Tensor, mask: Tensor) -> tuple[Tensor, str, float]:
    """Solve for the correction; also the solver's name and its relative residual.

    Args:
        moment: damped moment A.
        lost: what the mask took from the change, 0 where it keeps, (R, C).
        mask: kept entries, (R, C).

    Raises:
        NotPositiveError: a kept set's matrix is not positive definite.
    """
    if moment.full is None:
        return torch.zeros_like(lost), "diagonal", 0.0
    if mask.double().mean() <= DENSITY_OF_PCG and lost.device.type == "cpu":
        return cholesky(moment, lost, mask), "cholesky", 0.0
    solution, residual = conjugate_gradient(moment, lost, mask)
    return solution, "pcg", residual


def cholesky(moment: Moment, lost: Tensor, mask: Tensor) -> Tensor:
    """Cholesky row by row, each on what it keeps; (R, C), 0 off the mask."""
    if moment.full is None:
        raise TypeError("a diagonal moment needs no factor")
    diagonal, solution = moment.diagonal.expand(mask.shape).numpy(), np.zeros_like(lost.numpy())
    solve: Any = get_lapack_funcs("posv", dtype=solution.dtype)
    for each in normal_equations(moment.full.numpy(), lost.numpy(), mask.numpy()):
        kept = each.row, each.columns
        each.matrix.reshape(-1)[:: len(each.columns) + 1] += diagonal[kept]
        # LAPACK counts by columns, and is fastest with the lower triangle in its own count
        _, solution[kept], failed = solve(each.matrix.T, each.right, lower=True, overwrite_a=True)
        if failed:
            raise NotPositiveError
    return torch.from_numpy(solution)


def conjugate_gradient(
    moment: Moment, lost: Tensor, mask: Tensor, tolerance: float = TOLERANCE
) -> tuple[Tensor, float]:
    """Masked conjugate gradients with Jacobi's preconditioner, one product a step for all rows.

    Returns the solution and the worst row's final residual, relative to its right-hand side.

    Raises:
        NotPositiveError: a search direction has no positive curvature.
    """
    inverse = torch.where(mask, moment.on_diagonal(lost.shape).reciprocal(), 0.0)
    residual = torch.where(mask, moment.apply(lost), 0.0)
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
