r"""Methods that add task vectors $\tau_t = \theta_t - \theta_0$ to the base."""

from collections.abc import Sequence

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.interpolation import moved
from mllmtool.fusion.masks import bernoulli
from mllmtool.fusion.method import Fused, Prepared, Settings
from mllmtool.fusion.thresholds import magnitudes, thresholds


def task_arithmetic(_: Inputs, settings: Settings) -> Prepared:
    r"""$\theta_0 + \lambda \sum_t w_t \tau_t$. Ilharco et al. 2023, section 2."""
    return Prepared(lambda piece: Fused(_added(piece, piece.task_vectors, settings)))


def ties(inputs: Inputs, settings: Settings) -> Prepared:
    r"""$\theta_0 + \lambda \tau_m$: trim, elect a sign, mean of those that agree.

    Yadav et al. 2023, algorithm 1. Trimming keeps the entries of a task vector whose magnitude
    is among its `density` largest over all fused tensors together: one threshold a model, as in
    the paper. Entries tied at the threshold are all kept (the released code's `>=`), so no order
    of entries matters; the report counts them. An entry whose signs cancel to exactly 0 stays as
    in the base ($\operatorname{sgn}(0) = 0$; the released code takes the model's majority sign).
    """
    found = thresholds(inputs, settings.density or 1.0)
    scale = 1.0 if settings.scale is None else settings.scale

    def fuse(piece: Piece) -> Fused:
        trimmed = [
            tau * (magnitudes(tau) >= threshold.magnitude)
            for tau, threshold in zip(piece.task_vectors, found, strict=True)
        ]
        return Fused(moved(piece.base, scale * _agreeing_mean(trimmed)), trimmed)

    return Prepared(fuse, {"thresholds": [threshold.describe() for threshold in found]})


def dare(inputs: Inputs, settings: Settings) -> Prepared:
    r"""$\theta_0 + \lambda \sum_t w_t\, m_t \odot \tau_t / d$, $m_t \sim \text{Bernoulli}(d)$.

    Yu et al. 2024, section 3: drop at random, rescale by one over the density. A mask is addressed
    by seed, model, tensor and place.
    """
    density = settings.density or 1.0

    def fuse(piece: Piece) -> Fused:
        trimmed = []
        for model, tau in zip(inputs.fingerprints, piece.task_vectors, strict=True):
            seed = inputs.context.stream_seed(f"dare/{model}/{piece.tensor}")
            mask = bernoulli(seed, piece.first, tau.size, density)
            trimmed.append(tau * mask / density)
        return Fused(_added(piece, trimmed, settings), trimmed)

    return Prepared(fuse)


def tailor(_: Inputs, settings: Settings) -> Prepared:
    r"""$\theta_0 + \lambda \sum_t \tau_t / \max(1, \sum_t [\tau_t \ne 0])$.

    Zhu et al. 2024, Model Tailor's multi-task fusion: the models are tailored, their task vectors
    sparse; the sum of the patches, and the mean where patches overlap.
    """
    scale = 1.0 if settings.scale is None else settings.scale

    def fuse(piece: Piece) -> Fused:
        taus = piece.task_vectors
        overlap = sum((tau != 0).astype(np.uint8) for tau in taus)
        change = scale * (_sum(taus) / np.maximum(overlap, 1))
        return Fused(moved(piece.base, change), taus)

    return Prepared(fuse)


def _agreeing_mean(trimmed: Sequence[Array]) -> Array:
    """Mean over the models whose sign is that of the sum; 0 where the sum is 0."""
    elected = _sum(trimmed)
    up, down = elected > 0, elected < 0
    total, count = np.zeros_like(elected), np.zeros(elected.shape, np.uint8)
    for tau in trimmed:
        agrees = ((tau > 0) & up) | ((tau < 0) & down)
        total += tau * agrees
        count += agrees
    return total / np.maximum(count, 1)


def _added(piece: Piece, taus: Sequence[Array], settings: Settings) -> Array:
    scale = 1.0 if settings.scale is None else settings.scale
    weights = settings.weights or ()
    change = _sum([weight * tau for weight, tau in zip(weights, taus, strict=True)])
    change *= scale
    return moved(piece.base, change)


def _sum(arrays: Sequence[Array]) -> Array:
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total
