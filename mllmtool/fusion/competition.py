"""PCB-Merging: entries compete within their task vector and across tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.method import Fused, Prepared, moved, num_kept, summed
from mllmtool.fusion.thresholds import ranked
from mllmtool.fusion.thresholds import sizes as sizes_of

OUTLIERS = 1e-4  # share of the magnitudes that is clamped on either side


@dataclass(frozen=True)
class Range:
    """The least and the greatest that values of one model are clamped to."""

    low: float
    high: float

    def clamp(self, values: Array) -> Array:
        """Values, none outside."""
        return np.clip(values, self.low, self.high)

    def normalise(self, values: Array) -> Array:
        """Clamped values from 0 to 1; all 0 in an empty range."""
        span = self.high - self.low
        return (self.clamp(values) - self.low) / span if span > 0 else np.zeros_like(values)


def pcb(inputs: Inputs) -> Prepared:
    r"""$\theta_0 + \lambda \sum_t \beta_t \odot \tau_t / \sum_t \beta_t$.

    Du et al. 2024, section 3: $\beta_t = \exp(N\,\mathrm{norm}(|\tau_t|)^2) \odot
    \tanh(\tau_t \odot \sum_s \tau_s)$, of which the largest `density` are kept, from 0 for the
    least of them to 1; over all fused tensors together, magnitudes clamped at both ends. As the
    sums are over kept entries only, an entry that no task keeps stays as in the base. Negative
    scores are never kept.
    """
    size = inputs.num_entries
    sizes = _ranges(
        ranked(inputs, size - int(size * OUTLIERS), sizes_of, "least magnitudes"),
        ranked(inputs, size - int(size * (1 - OUTLIERS) - 1), sizes_of, "greatest magnitudes"),
    )

    def scores(piece: Piece) -> list[Array]:
        return _scores(piece, sizes)

    rank = size - min(size - 1, int(size * (1 - inputs.settings.density)))
    kept = _ranges(
        ranked(inputs, rank, scores, "least scores"), ranked(inputs, 1, scores, "greatest scores")
    )

    def fuse(piece: Piece) -> Fused:
        taus = [
            np.sign(tau) * each.clamp(np.abs(tau))
            for tau, each in zip(piece.task_vectors, sizes, strict=True)
        ]
        betas = [each.normalise(score) for score, each in zip(scores(piece), kept, strict=True)]
        change = summed([tau * beta for tau, beta in zip(taus, betas, strict=True)])
        change /= np.maximum(summed(betas), 1e-12)
        change *= piece.settings.scale
        return Fused(moved(piece.base, change), num_kept(betas))

    return Prepared(fuse)


def _ranges(low: Sequence[np.float32], high: Sequence[np.float32]) -> list[Range]:
    return [Range(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _scores(piece: Piece, sizes: Sequence[Range]) -> list[Array]:
    whole, scores = summed(piece.task_vectors), []
    for tau, each in zip(piece.task_vectors, sizes, strict=True):
        within = np.exp(len(sizes) * np.square(each.normalise(np.abs(tau))))
        score = within * np.tanh(tau * whole)
        scores.append(np.maximum(score, 0).astype(np.float32, copy=False))
    return scores
