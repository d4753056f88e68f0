r"""Methods that add task vectors $\tau_t = \theta_t - \theta_0$ to the base."""

from collections.abc import Callable, Sequence

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.masks import bernoulli, probability
from mllmtool.fusion.method import Fused, Prepared, moved, num_kept, summed, weighted_sum
from mllmtool.fusion.thresholds import magnitudes, thresholds


def task_arithmetic(piece: Piece) -> Fused:
    r"""$\theta_0 + \lambda \sum_t w_t \tau_t$. Ilharco et al. 2023, section 2."""
    return Fused(added(piece, piece.task_vectors))


def ties(inputs: Inputs) -> Prepared:
    r"""$\theta_0 + \lambda \tau_m$: trim, elect a sign, mean of those that agree.

    Yadav et al. 2023, algorithm 1. Trimming keeps the entries of a task vector whose magnitude
    is among its `density` largest over all fused tensors together: one threshold a model, as in
    the paper. Entries tied at the threshold are all kept (the released code's `>=`), so no order
    of entries matters; the report counts them. An entry whose signs cancel to exactly 0 stays as
    in the base ($\operatorname{sgn}(0) = 0$; the released code takes the model's majority sign).
    """
    found = thresholds(inputs)

    def trim(piece: Piece) -> list[Array]:
        return [
            tau * (magnitudes(tau) >= threshold.magnitude)
            for tau, threshold in zip(piece.task_vectors, found, strict=True)
        ]

    return Prepared(electing(trim), {"thresholds": [threshold.describe() for threshold in found]})


def dare(inputs: Inputs) -> Prepared:
    r"""$\theta_0 + \lambda \sum_t w_t\, m_t \odot \tau_t / d$, $m_t \sim \text{Bernoulli}(d)$.

    Yu et al. 2024, section 3: drop at random, rescale by one over the density. A mask is addressed
    by seed, model, tensor and place.
    """
    drop = dropping(inputs)

    def fuse(piece: Piece) -> Fused:
        trimmed = drop(piece)
        return Fused(added(piece, trimmed), num_kept(trimmed))

    return Prepared(fuse)


def dare_ties(inputs: Inputs) -> Prepared:
    r"""$\theta_0 + \lambda \tau_m$: drop at random and rescale, elect a sign, mean of the agreeing.

    Yu et al. 2024, section 4.3: DARE before TIES, whose own trimming is left out, as dropping has
    trimmed already.
    """
    return Prepared(electing(dropping(inputs)))


def tailor(piece: Piece) -> Fused:
    r"""$\theta_0 + \lambda \sum_t \tau_t / \max(1, \sum_t [\tau_t \ne 0])$.

    Zhu et al. 2024, Model Tailor's multi-task fusion: the models are tailored, their task vectors
    sparse; the sum of the patches, and the mean where patches overlap.
    """
    taus = piece.task_vectors
    overlap = sum((tau != 0).astype(np.uint8) for tau in taus)
    change = piece.settings.scale * (summed(taus) / np.maximum(overlap, 1))
    return Fused(moved(piece.base, change), num_kept(taus))


def dropping(inputs: Inputs) -> Callable[[Piece], list[Array]]:
    r"""What makes $m_t \odot \tau_t / d$ of a piece, $m_t \sim \text{Bernoulli}(d)$, each model."""
    models = inputs.fingerprints

    def drop(piece: Piece) -> list[Array]:
        density, dropped = probability(piece.settings.density), []
        for model, tau in zip(models, piece.task_vectors, strict=True):
            seed = inputs.context.stream_seed(f"dare/{model}/{piece.tensor}")
            kept = tau * bernoulli(seed, piece.first, tau.size, density)
            kept /= density
            dropped.append(kept)
        return dropped

    return drop


def electing(trim: Callable[[Piece], Sequence[Array]]) -> Callable[[Piece], Fused]:
    r"""What fuses by $\theta_0 + \lambda \tau_m$: trim, elect a sign, mean of those that agree."""

    def fuse(piece: Piece) -> Fused:
        trimmed = trim(piece)
        change = agreeing_mean(trimmed)
        change *= piece.settings.scale
        return Fused(moved(piece.base, change), num_kept(trimmed))

    return fuse


def agreeing_mean(trimmed: Sequence[Array]) -> Array:
    """Mean over the models whose sign is that of the sum; 0 where the sum is 0."""
    elected = summed(trimmed)
    up, down = elected > 0, elected < 0
    total, count = np.zeros_like(elected), np.zeros(elected.shape, np.uint8)
    for tau in trimmed:
        agrees = tau > 0
        agrees &= up
        agrees |= (tau < 0) & down
        total += tau * agrees
        count += agrees
    count += count == 0
    total /= count
    return total


def added(piece: Piece, taus: Sequence[Array]) -> Array:
    r"""$\theta_0 + \lambda \sum_t w_t \tau_t$, of task vectors as they are or trimmed."""
    change = weighted_sum(taus, piece.settings.weights)
    change *= piece.settings.scale
    return moved(piece.base, change)
