"""Methods that weigh the models by their data: Fisher merging, RegMean."""

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.errors import NumericError
from mllmtool.fusion.inputs import Inputs, Piece, is_matrix
from mllmtool.fusion.method import Fused, Prepared, moved, weighted_sum
from mllmtool.fusion.settings import Settings


def fisher(piece: Piece) -> Fused:
    r"""$\sum_t w_t F_t \theta_t / \sum_t w_t F_t$, entry by entry.

    Matena & Raffel 2022, equation 5; F is the diagonal of the Fisher information. Where no model
    has any, the mean.
    """
    if any(diagonal.min(initial=0) < 0 for diagonal in piece.diagonals):
        raise NumericError(
            f"{piece.tensor}: a Fisher diagonal is negative; it is a mean of squares"
        )
    pairs = zip(piece.settings.weights, piece.diagonals, strict=True)
    shares = [weight * diagonal for weight, diagonal in pairs]
    total = weighted_sum(shares, (1.0,) * len(shares))
    change = np.zeros_like(piece.base)
    for tau, share in zip(piece.task_vectors, shares, strict=True):
        change += np.divide(share, total, out=np.zeros_like(total), where=total > 0) * tau
    change = np.where(total > 0, change, _mean(piece))
    return Fused(moved(piece.base, change))


def regmean(inputs: Inputs) -> Prepared:
    r"""$\theta_0 + (\sum_t w_t \tau_t G_t)(\sum_t w_t G_t)^{-1}$ of linear layers, else the mean.

    Jin et al. 2023, equation 2 and section 4.1; $G_t$ is the mean of $x^\top x$ over the inputs of
    the layer in task t, its entries off the diagonal multiplied by `alpha`. The mean is also taken
    of inputs that are 0 in all tasks, and of layers that some model has no moments of.
    """
    grams = [inputs.moments.of(fingerprint) for fingerprint in inputs.fingerprints]
    solved = {
        name
        for name in inputs.names
        if is_matrix(name, inputs.base.info(name).shape) and all(name in each for each in grams)
    }

    def fuse(piece: Piece) -> Fused:
        if piece.tensor not in solved:
            return Fused(moved(piece.base, _mean(piece)))
        found = [each[piece.tensor].read(piece.columns) for each in grams]
        change = _regression(piece, found).astype(piece.base.dtype)
        return Fused(moved(piece.base, change.reshape(-1)))

    rest = sorted(set(inputs.names) - solved)
    return Prepared(fuse, {"matrices": len(solved), "averaged": rest})


def is_part(settings: Settings) -> str | None:
    """What is wrong with an alpha that is no share."""
    alpha = settings.alpha
    return None if 0 <= alpha <= 1 else f"--alpha: {alpha:g} is outside 0 to 1"


def _regression(piece: Piece, grams: list[Array]) -> Array:
    alpha, weights = piece.settings.alpha, piece.settings.weights
    dead = np.sum([np.diag(gram) for gram in grams], axis=0) <= 0
    total: Array = np.zeros_like(grams[0])
    pull: Array = np.zeros(piece.shape)
    for tau, gram, weight in zip(piece.task_vectors, grams, weights, strict=True):
        scaled = alpha * weight * gram
        np.fill_diagonal(scaled, weight * (np.diag(gram) + dead))
        total += scaled
        pull += tau.reshape(piece.shape) @ scaled
    try:
        np.linalg.cholesky(total)
        change: Array = np.linalg.solve(total, pull.T).T
    except np.linalg.LinAlgError as error:
        raise NumericError(
            f"{piece.tensor}: its moments are not positive definite; lower --alpha"
        ) from error
    return change


def _mean(piece: Piece) -> Array:
    weights = piece.settings.weights
    return weighted_sum(piece.task_vectors, [weight / sum(weights) for weight in weights])
