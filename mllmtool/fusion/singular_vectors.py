"""Methods that merge singular vectors: TSV-Merge, Iso-C and Iso-CTS."""

from collections.abc import Sequence

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Piece
from mllmtool.fusion.matrices import decomposed, orthogonalised
from mllmtool.fusion.method import summed


def tsv_m(taus: Sequence[Array], _: Piece) -> Array:
    r"""$U_\perp \Sigma V_\perp^\top$ of the leading singular vectors of all tasks.

    Gargiulo et al. 2025, algorithm 1: of each task the largest $\lfloor r / T \rfloor$ are kept
    (here at least 1), set side by side, and both sides brought to the nearest orthonormal ones.
    """
    rank = max(1, min(taus[0].shape) // len(taus))
    return _joined([decomposed(tau, rank) for tau in taus])


def iso_c(taus: Sequence[Array], _: Piece) -> Array:
    r"""$\bar\sigma\, U V^\top$ of $\sum_t \tau_t = U \Sigma V^\top$, $\bar\sigma$ the mean value.

    Marczak et al. 2025, section 4.1. Directions in which the sum is 0 stay so.
    """
    whole = summed(taus)
    left, values, right = decomposed(whole)
    return _isotropic(left, values, right, min(whole.shape))


def iso_cts(taus: Sequence[Array], piece: Piece) -> Array:
    r"""As Iso-C, the least singular vectors of the sum giving way to those of each task.

    Marczak et al. 2025, algorithm 1: the share `common` of the vectors is the sum's; the others
    are the tasks' in equal numbers, of $\tau_t - U U^\top \tau_t$, U being the common left ones.
    """
    size = min(taus[0].shape)
    each = round((size - int(size * piece.settings.common)) / len(taus))
    each = min(each, size // len(taus))
    common = decomposed(summed(taus), size - each * len(taus))
    left = common[0]
    found = [decomposed(tau - left @ (left.T @ tau), each) for tau in taus] if each else []
    left, values, right = _side_by_side([*found, common])
    return _isotropic(orthogonalised(left), values, orthogonalised(right), size)


def _side_by_side(found: Sequence[tuple[Array, Array, Array]]) -> tuple[Array, Array, Array]:
    lefts, values, rights = zip(*found, strict=True)
    return np.concatenate(lefts, axis=1), np.concatenate(values), np.concatenate(rights)


def _joined(found: Sequence[tuple[Array, Array, Array]]) -> Array:
    left, values, right = _side_by_side(found)
    joined: Array = (orthogonalised(left) * values) @ orthogonalised(right)
    return joined


def _isotropic(left: Array, values: Array, right: Array, size: int) -> Array:
    """With all singular values the mean of the `size` that there are, those that are 0 too."""
    same: Array = (values.sum() / size) * (left @ right)
    return same
