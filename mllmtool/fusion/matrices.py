r"""What methods share that see the weight of a linear layer as a matrix.

A tensor of two axes is a matrix, but embeddings and the head, whose rows are looked up or stand for
tokens. What is no matrix is averaged: $\theta_0 + \lambda \sum_t \tau_t / T$.

Nothing here depends on the signs that a decomposition gives its singular vectors. Vectors of
singular values that are 0 to rounding are dropped, as any of a whole subspace may come for them.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece, is_matrix
from mllmtool.fusion.method import Fused, Prepared, moved, summed

Merge = Callable[[Sequence[Array], Piece], Array]  # of task vectors (rows, columns) each


def of_matrices(merge: Merge) -> Callable[[Inputs], Prepared]:
    """The `prepare` of a method that merges matrices and averages the rest."""

    def fuse(piece: Piece) -> Fused:
        taus = piece.task_vectors
        if is_matrix(piece.tensor, piece.shape) and any(tau.any() for tau in taus):
            change = merge([tau.reshape(piece.shape) for tau in taus], piece).reshape(-1)
        else:
            change = summed(taus) / len(taus)
        return Fused(moved(piece.base, piece.settings.scale * change))

    def prepare(inputs: Inputs) -> Prepared:
        found = [is_matrix(name, inputs.base.info(name).shape) for name in inputs.names]
        rest = [name for name, whole in zip(inputs.names, found, strict=True) if not whole]
        return Prepared(fuse, {"matrices": sum(found), "averaged": sorted(rest)})

    return prepare


def decomposed(matrix: Array, rank: int | None = None) -> tuple[Array, Array, Array]:
    """The thin SVD, cut to the largest `rank` values, and to those that are not 0: U, s, V^T."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    tiny = values[:1] * max(matrix.shape) * np.finfo(values.dtype).eps
    count = int(np.count_nonzero(values[:rank] > tiny))
    return left[:, :count], values[:count], right[:count]


def orthogonalised(matrix: Array) -> Array:
    """The nearest matrix with orthonormal columns or rows: the polar factor, of its own rank."""
    left, _, right = decomposed(matrix)
    nearest: Array = left @ right
    return nearest
