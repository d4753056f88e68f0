"""Random linear maps with correlated inputs, and what the tests measure on them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mllmtool.tailoring.matrix import Matrix
from mllmtool.tailoring.moments import Moment

F64 = torch.float64


@dataclass(frozen=True)
class Layer:
    """Inputs of the task (n, C) and of the anchors (n, C), weights and change (R, C)."""

    task: Tensor
    anchor: Tensor
    base: Tensor
    change: Tensor

    def matrix(self, anchored: bool = False, widths: tuple[int, ...] | None = None) -> Matrix:
        """The problem as tailoring sees it."""
        anchor = moment(self.anchor) if anchored else None
        columns = widths or (self.change.shape[1],)
        return Matrix(self.base, self.change, columns, moment(self.task), anchor)

    def error(self, change: Tensor) -> float:
        """Squared error on the task, relative to reverting everything."""
        lost = ((self.change - change) @ self.task.T).square().sum()
        return float(lost / (self.change @ self.task.T).square().sum())

    def drift(self, change: Tensor) -> float:
        """Squared drift on the anchors, relative to that of the tuned weights."""
        drift = (change @ self.anchor.T).square().sum()
        return float(drift / (self.change @ self.anchor.T).square().sum())


def moment(inputs: Tensor) -> Moment:
    """Mean of $x^T x$ over the rows of `inputs`."""
    return Moment(torch.zeros(1, 1, dtype=F64), inputs.T @ inputs / len(inputs), len(inputs))


def random_layer(seed: int, rows: int = 6, columns: int = 24, tokens: int = 200) -> Layer:
    """A layer whose inputs are mixed by a matrix with a decaying spectrum."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=F64)

    decay = torch.arange(1, columns + 1, dtype=F64)[:, None] ** -0.8
    shared, own = draw(columns, columns), draw(columns, columns)
    task = draw(tokens, columns) @ (decay * shared)
    anchor = draw(tokens, columns) @ (decay * (shared + own))
    return Layer(task, anchor, draw(rows, columns), 0.1 * draw(rows, columns))
