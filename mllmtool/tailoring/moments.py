"""Second moments of what a weight is multiplied with, and solving with them.

Shapes: R rows (outputs) and C columns (inputs) of a weight seen as a matrix. Moments are per token,
so those of two sets of samples can be weighed against each other.
"""

from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor

from mllmtool.configs.tailor import DampingBy


class NotPositiveError(Exception):
    """A moment is not positive definite to the precision at hand; more damping is needed."""


@dataclass(frozen=True)
class Moment:
    r"""The matrices $A_r$ that measure a change $a_r$ of row r by $a_r A_r a_r^T$.

    $A_r$ = `full` + diag(`diagonal`[r]). A Linear layer has a `full` (C, C), the mean of $x^T x$,
    shared by its rows. A lookup has a `diagonal` (R, 1) of token frequencies, a norm's weight a
    `diagonal` (1, C) of mean squares; a tied head has a `full` and a `diagonal` (R, 1).
    """

    diagonal: Tensor  # (1, 1), (R, 1) or (1, C)
    full: Tensor | None = None  # (C, C)
    tokens: float = 0.0

    def apply(self, change: Tensor) -> Tensor:
        """$a_r A_r$ for every row: (R, C) -> (R, C)."""
        product = change * self.diagonal
        return product if self.full is None else product + change @ self.full

    def energy(self, change: Tensor) -> float:
        """Mean squared output of a change, a token: the sum over rows of $a_r A_r a_r^T$."""
        return float((self.apply(change) * change).sum())

    def on_diagonal(self, shape: torch.Size) -> Tensor:
        """The diagonals of $A_r$: (R, C)."""
        diagonal = self.diagonal if self.full is None else self.diagonal + self.full.diagonal()
        return diagonal.expand(shape)

    def to(self, dtype: torch.dtype) -> "Moment":
        """In another precision."""
        full = None if self.full is None else self.full.to(dtype)
        return Moment(self.diagonal.to(dtype), full, self.tokens)

    def scaled(self, factor: float) -> "Moment":
        """`factor` times it."""
        full = None if self.full is None else factor * self.full
        return Moment(factor * self.diagonal, full, self.tokens)

    def plus(self, other: "Moment") -> "Moment":
        """The sum; `tokens` are those of `self`."""
        full = [moment.full for moment in (self, other) if moment.full is not None]
        total = reduce(torch.add, full) if full else None
        return Moment(self.diagonal + other.diagonal, total, self.tokens)

    def damped(self, share: float, shape: torch.Size, by: DampingBy = "mean") -> "Moment":
        """With `share` of the mean of the diagonals added to them (SparseGPT's `percdamp`).

        By `column`, each gets a share of its own, and a dead one of the mean.
        """
        diagonal = self.on_diagonal(shape)
        extra = share * diagonal.mean()
        if by == "column":
            extra = torch.where(diagonal > 0, share * diagonal, extra)
        return Moment(self.diagonal + extra, self.full, self.tokens)

    @property
    def is_shared(self) -> bool:
        """Whether all rows have one and the same full matrix, as in a plain Linear layer."""
        return self.full is not None and self.diagonal.shape[0] == 1

    @cached_property
    def factor(self) -> "Factor":
        """What solves with this moment.

        Raises:
            NotPositiveError: it is singular.
        """
        if self.full is None:
            return DiagonalFactor(self.diagonal)
        if self.is_shared:
            return SharedFactor(self.full, self.diagonal)
        return RowwiseFactor(self.full, self.diagonal)

    def inverse_root(self) -> Tensor:
        """Upper triangular U with $U^T U = A^{-1}$, for a shared moment: (C, C)."""
        if not isinstance(self.factor, SharedFactor):
            raise TypeError("only rows that share their moment have one inverse root")
        inverse = self.factor.inverse()
        root: Tensor
        root, info = torch.linalg.cholesky_ex(inverse, upper=True)
        if info.item():
            raise NotPositiveError
        return root


class DiagonalFactor:
    """Every $A_r$ is diagonal."""

    def __init__(self, diagonal: Tensor) -> None:
        if not (diagonal > 0).all():
            raise NotPositiveError
        self.diagonal = diagonal

    def solve(self, right: Tensor) -> Tensor:
        """$y_r$ with $y_r A_r = b_r$: (R, C) -> (R, C)."""
        return right / self.diagonal

    def inverse_diagonal(self, shape: torch.Size) -> Tensor:
        """The diagonals of $A_r^{-1}$: (R, C)."""
        return self.diagonal.reciprocal().expand(shape)


class SharedFactor:
    """One full matrix for all rows: Cholesky, scaled to a unit diagonal (outlier channels)."""

    def __init__(self, full: Tensor, diagonal: Tensor) -> None:
        whole = full.clone()
        whole.diagonal().add_(diagonal[0])
        if not (whole.diagonal() > 0).all():
            raise NotPositiveError
        self.scale: Tensor = whole.diagonal().rsqrt()
        whole.mul_(self.scale[:, None]).mul_(self.scale)
        self.lower, info = torch.linalg.cholesky_ex(whole)
        if info.item():
            raise NotPositiveError

    def solve(self, right: Tensor) -> Tensor:
        """$y_r$ with $y_r A = b_r$: (R, C) -> (R, C)."""
        solution: Tensor = torch.cholesky_solve((right * self.scale).T, self.lower)
        return solution.T * self.scale

    def inverse(self) -> Tensor:
        """$A^{-1}$: (C, C)."""
        inverse: Tensor = torch.cholesky_inverse(self.lower)
        return inverse.mul_(self.scale[:, None]).mul_(self.scale)

    def inverse_diagonal(self, shape: torch.Size) -> Tensor:
        """The diagonal of $A^{-1}$ for each row: (R, C)."""
        diagonal: Tensor = self.inverse().diagonal().clone()  # a view would hold all of it
        return diagonal.expand(shape)


class RowwiseFactor:
    """A full matrix for all rows plus a multiple of the identity for each, by eigenvectors."""

    def __init__(self, full: Tensor, shift: Tensor) -> None:
        self.values, self.vectors = torch.linalg.eigh(full)
        self.shifted = self.values.clamp(min=0) + shift  # (R, C)
        if not (self.shifted > 0).all():
            raise NotPositiveError

    def solve(self, right: Tensor) -> Tensor:
        """$y_r$ with $y_r A_r = b_r$: (R, C) -> (R, C)."""
        rotated: Tensor = right @ self.vectors / self.shifted
        solution: Tensor = rotated @ self.vectors.T
        return solution

    def inverse_diagonal(self, shape: torch.Size) -> Tensor:
        """The diagonals of $A_r^{-1}$: (R, C)."""
        inverse: Tensor = self.shifted.reciprocal() @ self.vectors.square().T
        return inverse.expand(shape)


Factor = DiagonalFactor | SharedFactor | RowwiseFactor
