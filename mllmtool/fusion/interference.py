r"""Methods that minimise interference: WUDI in closed form (SWUDI), and OptMerge.

Both lower $\sum_t \|(\tau - \tau_t) \tau_t^\top\|_F^2 / \|\tau_t\|_F^2$: what a merged layer adds
to the output of task t, whose inputs lie near the rows of $\tau_t$. What a task does not change
has no part in it.
"""

from collections.abc import Sequence

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Piece
from mllmtool.fusion.matrices import decomposed
from mllmtool.fusion.method import summed

LEAST_EIGENVALUE = 1e-8
STEPS, RATE, MOMENTUM = 300, 1e-4, 0.9  # of OptMerge


def wudi(taus: Sequence[Array], piece: Piece) -> Array:
    r"""$\tau = \tau_0 - \tau_0 P + D C^+$, filtered; $\tau_0 = \sum_t \tau_t$.

    Cheng et al. 2025, WUDI, solved as SWUDI does (Wei et al. 2026):
    $C = \sum_t \tau_t^\top \tau_t / \|\tau_t\|^2$, $D = \sum_t \tau_t \tau_t^\top \tau_t /
    \|\tau_t\|^2$. Along an eigenvector of C, gradient flow for `time` t goes the share
    $1 - e^{-\lambda t}$ of the way from the sum to the least interference; it goes along the share
    `rank` of those with the largest $\lambda$.
    """
    columns, start = taus[0].shape[1], summed(taus)
    curvature, pull = np.zeros((columns, columns), start.dtype), np.zeros_like(start)
    for tau in (tau for tau in taus if tau.any()):
        gram = tau.T @ tau
        gram /= np.trace(gram)
        curvature += gram
        pull += tau @ gram
    values, vectors = np.linalg.eigh(curvature)
    kept = max(1, int(np.ceil(columns * piece.settings.rank - 1e-3)))
    values, vectors = np.maximum(values[-kept:], LEAST_EIGENVALUE), vectors[:, -kept:]
    share = -np.expm1(-values * piece.settings.time)
    along = (pull @ vectors) / values - start @ vectors
    merged: Array = start + (along * share) @ vectors.T
    return merged


def optmerge(taus: Sequence[Array], _: Piece) -> Array:
    r"""300 steps of gradient descent from the mean on the interference of what is left of tasks.

    Wei et al. 2026, OptMerge (`wudi2` in the released code): $\tau_t$ is cut to its largest
    $\lfloor r / T \rfloor$ singular values (here at least 1), and its right factor $\Sigma V^\top$
    stands for the inputs. Rate 1e-4, momentum 0.9.
    """
    rank = max(1, min(taus[0].shape) // len(taus))
    merged = summed(taus) / len(taus)
    pull, curvature = np.zeros_like(merged), np.zeros((merged.shape[1],) * 2, merged.dtype)
    for tau in (tau for tau in taus if tau.any()):
        left, values, right = decomposed(tau, rank)
        inputs = (right.T * (2 * values**2 / np.vdot(tau, tau))) @ right
        curvature += inputs
        pull += (left * values) @ (right @ inputs)
    velocity = np.zeros_like(merged)
    for _step in range(STEPS):
        velocity = MOMENTUM * velocity + (merged @ curvature - pull)
        merged = merged - RATE * velocity
    return merged
