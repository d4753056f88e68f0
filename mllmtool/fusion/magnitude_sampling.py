r"""DELLA: drop at random, and the small entries of a row more often than the large ones."""

from collections.abc import Callable

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.masks import STEPS, draws
from mllmtool.fusion.method import Fused, Prepared, moved, num_kept
from mllmtool.fusion.settings import Settings
from mllmtool.fusion.task_vectors import agreeing_mean
from mllmtool.fusion.thresholds import LOW_BITS, magnitudes


def della(inputs: Inputs) -> Prepared:
    r"""$\theta_0 + \lambda \tau_m$ of task vectors sampled by magnitude; then as TIES elects.

    Deep et al. 2024, section 3. In a row of n entries the one of rank r by magnitude, the largest
    0, is dropped with probability $p - \epsilon/2 + \epsilon r / n$, $p$ being one less the
    density; those that stay are divided by their probability to stay. A row is all that leads to
    one output; a vector is one row. Of equal magnitudes the earlier entry ranks first.
    """
    sample = _sampling(inputs)

    def fuse(piece: Piece) -> Fused:
        sampled = sample(piece)
        change = piece.settings.scale * agreeing_mean(sampled)
        return Fused(moved(piece.base, change), num_kept(sampled))

    return Prepared(fuse)


def has_room(settings: Settings) -> str | None:
    """What is wrong with an epsilon that makes a probability 0 or less, or above 1."""
    half = settings.epsilon / 2
    if half < settings.density <= 1 - half:
        return None
    return f"--epsilon: {settings.epsilon:g} is more than density {settings.density:g} leaves room"


def descending(rows: Array) -> Array:
    """For each row of float32 magnitudes, the columns from the largest on; stable."""
    bits = rows.view(np.uint32)
    low = ~(bits & (1 << LOW_BITS) - 1).astype(np.uint16)
    order = np.argsort(low, axis=1, kind="stable")  # of 16 bits: a radix sort
    high = np.take_along_axis(~(bits >> LOW_BITS).astype(np.uint16), order, axis=1)
    return np.take_along_axis(order, np.argsort(high, axis=1, kind="stable"), axis=1)


def _sampling(inputs: Inputs) -> Callable[[Piece], list[Array]]:
    models = inputs.fingerprints

    def sample(piece: Piece) -> list[Array]:
        steps, sampled = _steps(piece), []
        for model, tau in zip(models, piece.task_vectors, strict=True):
            seed = inputs.context.stream_seed(f"della/{model}/{piece.tensor}")
            order = descending(magnitudes(tau).reshape(-1, piece.columns))
            chances = np.empty(order.shape, np.uint32)
            np.put_along_axis(chances, order, steps[None], axis=1)
            flat: Array = chances.reshape(-1)
            stays = tau * (draws(seed, piece.first, tau.size) < flat)
            stays *= STEPS / flat.astype(tau.dtype)
            sampled.append(stays)
        return sampled

    return sample


def _steps(piece: Piece) -> Array:
    """The probability to stay of each rank, in the steps that draws can have, (columns,)."""
    settings, columns = piece.settings, piece.columns
    falling = settings.epsilon * np.arange(columns) / columns
    stay = settings.density + settings.epsilon / 2 - falling
    return np.maximum(1, np.rint(stay * STEPS)).astype(np.uint32)
