r"""DELLA: drop at random, and the small entries of a row more often than the large ones."""

from collections.abc import Callable

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.masks import STEPS, draws
from mllmtool.fusion.method import Prepared
from mllmtool.fusion.settings import Settings
from mllmtool.fusion.task_vectors import electing
from mllmtool.fusion.thresholds import LOW_BITS, magnitudes


def della(inputs: Inputs) -> Prepared:
    r"""$\theta_0 + \lambda \tau_m$ of task vectors sampled by magnitude; then as TIES elects.

    Deep et al. 2024, section 3. In a row of n entries the one of rank r by magnitude, the largest
    0, is dropped with probability $p - \epsilon/2 + \epsilon r / n$, $p$ being one less the
    density; those that stay are divided by their probability to stay. A row is all that leads to
    one output; a vector is one row. Of equal magnitudes the earlier entry ranks first.
    """
    return Prepared(electing(_sampling(inputs)))


def has_room(settings: Settings) -> str | None:
    """What is wrong with an epsilon that makes a probability 0 or less, or above 1."""
    half = settings.epsilon / 2
    if half < settings.density <= 1 - half:
        return None
    return f"--epsilon: {settings.epsilon:g} is more than density {settings.density:g} leaves room"


def descending(rows: Array) -> Array:
    """The places of float32 magnitudes, (n,), row by row and each from the largest on; stable."""
    bits = rows.view(np.uint32)
    begins = np.arange(0, rows.size, rows.shape[1])[:, None]
    low = ~(bits & (1 << LOW_BITS) - 1).astype(np.uint16)
    order = np.argsort(low, axis=1, kind="stable")  # of 16 bits: a radix sort
    order += begins
    high = (~(bits >> LOW_BITS).astype(np.uint16)).reshape(-1).take(order)
    places = np.argsort(high, axis=1, kind="stable")
    places += begins
    return order.reshape(-1).take(places.reshape(-1))


def _sampling(inputs: Inputs) -> Callable[[Piece], list[Array]]:
    models = inputs.fingerprints

    def sample(piece: Piece) -> list[Array]:
        steps, sampled = _steps(piece), []
        for model, tau in zip(models, piece.task_vectors, strict=True):
            seed = inputs.context.stream_seed(f"della/{model}/{piece.tensor}")
            order = descending(magnitudes(tau).reshape(-1, piece.columns))
            chances = np.empty(tau.size, np.uint32)
            chances[order] = np.tile(steps, tau.size // piece.columns)
            stays = tau * (draws(seed, piece.first, tau.size) < chances)
            stays *= STEPS / chances.astype(tau.dtype)
            sampled.append(stays)
        return sampled

    return sample


def _steps(piece: Piece) -> Array:
    """The probability to stay of each rank, in the steps that draws can have, (columns,)."""
    settings, columns = piece.settings, piece.columns
    falling = settings.epsilon * np.arange(columns) / columns
    stay = settings.density + settings.epsilon / 2 - falling
    return np.maximum(1, np.rint(stay * STEPS)).astype(np.uint32)
