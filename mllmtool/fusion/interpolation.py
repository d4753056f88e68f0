"""Methods that mix whole weights: linear, WiSE-FT, SLERP."""

import math
from functools import cache

import numpy as np

from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.method import Fused, Prepared, moved, weighted_sum
from mllmtool.fusion.settings import Settings

COLLINEAR = 1e-4  # sine of the angle under which an arc and a chord agree to 1e-9


def linear(piece: Piece) -> Fused:
    r"""$\sum_t w_t \theta_t / \sum_t w_t$. Wortsman et al. 2022, model soups."""
    return Fused(weighted_sum(piece.tuned, _shares(piece.settings)))


def wise_ft(piece: Piece) -> Fused:
    r"""$(1 - \alpha) \theta_0 + \alpha \theta_1$. Wortsman et al. 2022, WiSE-FT, section 3.

    Reckoned from the nearer end, so that 0 gives the base and 1 the tuned model.
    """
    alpha = piece.settings.scale
    (tuned,), (task_vector,) = piece.tuned, piece.task_vectors
    if alpha < 0.5:
        return Fused(moved(piece.base, alpha * task_vector))
    return Fused(moved(tuned, (alpha - 1) * task_vector))


def is_share(settings: Settings) -> str | None:
    """What is wrong with a scale that is no share."""
    scale = settings.scale
    return None if 0 <= scale <= 1 else f"--scale: {scale:g} is outside 0 to 1"


def slerp(inputs: Inputs) -> Prepared:
    r"""$(\sin((1-t)\Omega) a + \sin(t\Omega) b) / \sin\Omega$, $\Omega$ between flattened tensors.

    Shoemake 1985. Norms are not equalised first. Collinear tensors, and those of norm 0, are mixed
    along the chord, as there the arc is not defined.
    """

    @cache
    def angle(tensor: str) -> float:
        return _angle(inputs, tensor)

    def fuse(piece: Piece) -> Fused:
        omega, (_, share) = angle(piece.tensor), _shares(piece.settings)
        if math.sin(omega) < COLLINEAR:
            return Fused(weighted_sum(piece.tuned, (1 - share, share)))
        arcs = [math.sin(part * omega) / math.sin(omega) for part in (1 - share, share)]
        return Fused(weighted_sum(piece.tuned, arcs))

    return Prepared(fuse)


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
    return tuple(weight / sum(settings.weights) for weight in settings.weights)
