"""Methods that mix whole weights: linear, WiSE-FT, SLERP."""

import math
from functools import cache

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.method import Fused, Prepared, Settings

COLLINEAR = 1e-4  # sine of the angle under which an arc and a chord agree to 1e-9


def moved(start: Array, change: Array) -> Array:
    """`start + change`; where the change is 0, `start` to the bit, even -0.0."""
    return start - (0.0 - change)


def linear(_: Inputs, settings: Settings) -> Prepared:
    r"""$\sum_t w_t \theta_t / \sum_t w_t$. Wortsman et al. 2022, model soups."""
    shares = _shares(settings)
    return Prepared(lambda piece: Fused(_weighted(piece.tuned, shares)))


def wise_ft(_: Inputs, settings: Settings) -> Prepared:
    r"""$(1 - \alpha) \theta_0 + \alpha \theta_1$. Wortsman et al. 2022, WiSE-FT, section 3.

    Reckoned from the nearer end, so that 0 gives the base and 1 the tuned model.
    """
    alpha = settings.scale or 0.0

    def fuse(piece: Piece) -> Fused:
        (tuned,), (task_vector,) = piece.tuned, piece.task_vectors
        if alpha < 0.5:
            return Fused(moved(piece.base, alpha * task_vector))
        return Fused(moved(tuned, (alpha - 1) * task_vector))

    return Prepared(fuse)


def slerp(inputs: Inputs, settings: Settings) -> Prepared:
    r"""$(\sin((1-t)\Omega) a + \sin(t\Omega) b) / \sin\Omega$, $\Omega$ between flattened tensors.

    Shoemake 1985. Norms are not equalised first. Collinear tensors, and those of norm 0, are mixed
    along the chord, as there the arc is not defined.
    """
    _, share = _shares(settings)

    @cache
    def factors(tensor: str) -> tuple[float, float]:
        angle = _angle(inputs, tensor)
        if math.sin(angle) < COLLINEAR:
            return 1 - share, share
        return (
            math.sin((1 - share) * angle) / math.sin(angle),
            math.sin(share * angle) / math.sin(angle),
        )

    return Prepared(lambda piece: Fused(_weighted(piece.tuned, factors(piece.tensor))))


def _angle(inputs: Inputs, tensor: str) -> float:
    """The angle between the two models' flattened tensors, radians; 0 when one has norm 0."""
    dot = a_squared = b_squared = 0.0
    for piece in inputs.pieces(tensor):
        a, b = (tuned.astype(np.float64, copy=False) for tuned in piece.tuned)
        dot += float((a * b).sum())
        a_squared += float((a * a).sum())
        b_squared += float((b * b).sum())
    norms = math.sqrt(a_squared) * math.sqrt(b_squared)
    return math.acos(min(1.0, max(-1.0, dot / norms))) if norms else 0.0


def _shares(settings: Settings) -> tuple[float, ...]:
    weights = settings.weights or ()
    return tuple(weight / sum(weights) for weight in weights)


def _weighted(tensors: tuple[Array, ...], factors: tuple[float, ...]) -> Array:
    total = factors[0] * tensors[0]
    for tensor, factor in zip(tensors[1:], factors[1:], strict=True):
        total += factor * tensor
    return total
