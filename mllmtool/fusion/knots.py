"""KnOTS: low-rank task vectors, as those of LoRA adapters, merged in a basis that they share."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mllmtool.checkpoints.adapter import AdaptedCheckpoint
from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece, is_matrix
from mllmtool.fusion.matrices import decomposed
from mllmtool.fusion.method import Fused, Prepared, moved, summed
from mllmtool.fusion.task_vectors import agreeing_mean
from mllmtool.fusion.thresholds import magnitudes, ranked

LEAST = 1e-5  # share of the largest singular value; the released code cuts at 1e-5 itself
Product = tuple[Array, Array]  # (rows, rank) and (rank, columns) of a task vector, float64


def knots(inputs: Inputs) -> Prepared:
    r"""$\theta_0 + \lambda\, U\, \mathrm{TIES}(\Sigma V_1^\top, \dots, \Sigma V_T^\top)$.

    Stoica et al. 2025, section 4, KnOTS-TIES: $[\tau_1 \dots \tau_T] = U \Sigma [V_1^\top \dots
    V_T^\top]$ for each matrix; what is trimmed, elected and averaged are the tasks' parts of the
    right factor, as in the released code with $\Sigma$ on it, and with one threshold a task over
    all matrices. Without trimming and election it would be task arithmetic.
    """
    found = [name for name in inputs.names if is_matrix(name, inputs.base.info(name).shape)]
    matrices = replace(inputs, names=tuple(found))

    def parts(piece: Piece) -> tuple[Array, list[Array]]:
        return _aligned([_product(inputs, i, piece) for i in range(len(inputs.models))])

    def entries(name: str) -> int:
        return sum(parts(piece)[1][0].size for piece in inputs.pieces(name))

    def sizes(piece: Piece) -> list[Array]:
        return [magnitudes(part).ravel() for part in parts(piece)[1]]

    size = sum(matrices.over(entries, "bases"))
    rank = max(1, round(inputs.settings.density * size))
    least = ranked(matrices, rank, sizes, "thresholds") if size else []

    def fuse(piece: Piece) -> Fused:
        if is_matrix(piece.tensor, piece.shape) and least:
            basis, rights = parts(piece)
            trimmed = [
                right * (magnitudes(right) >= threshold)
                for right, threshold in zip(rights, least, strict=True)
            ]
            change = (basis @ agreeing_mean(trimmed)).reshape(-1).astype(piece.base.dtype)
        else:
            change = summed(piece.task_vectors) / len(piece.task_vectors)
        return Fused(moved(piece.base, piece.settings.scale * change))

    rest = sorted(set(inputs.names) - set(found))
    said = {"matrices": len(found), "averaged": rest, "thresholds": [float(x) for x in least]}
    return Prepared(fuse, said)


def _product(inputs: Inputs, number: int, piece: Piece) -> Product:
    """A model's task vector as a product: the adapter's own, else from its singular vectors."""
    model, tau = inputs.models[number], piece.task_vectors[number].reshape(piece.shape)
    if isinstance(model, AdaptedCheckpoint) and (own := model.product(piece.tensor)):
        return own
    if not tau.any():
        return np.zeros((len(tau), 0)), np.zeros((0, piece.columns))
    left, values, right = decomposed(tau.astype(np.float64))
    return left * values, right


def _aligned(products: Sequence[Product]) -> tuple[Array, list[Array]]:
    r"""$U$ and each $\Sigma V_t^\top = U^\top \tau_t$; no task vector is formed."""
    lefts, rights = zip(*products, strict=True)
    outer, inner = np.linalg.qr(np.concatenate(lefts, axis=1))
    ends = np.cumsum([left.shape[1] for left in lefts])[:-1]
    cores = [
        part @ np.asarray(np.linalg.qr(right.T, mode="r")).T
        for part, right in zip(np.split(inner, ends, axis=1), rights, strict=True)
    ]
    left, values, _ = decomposed(np.concatenate(cores, axis=1))
    basis = outer @ left[:, values > LEAST * values[:1]]
    return basis, [(basis.T @ left) @ right for left, right in products]
