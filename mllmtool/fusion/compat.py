r"""Methods as mergekit 0.1.5 defines them, where it differs from the papers.

All is reckoned in float32 (its `dtype: float32`) and in its order, so that the bits agree. Weights
are applied before signs are elected, and the sum is divided by the weights of those that agree.
TIES keeps the largest entries of each tensor, not of the model. Where several entries equal the
smallest that is kept, mergekit takes some of them as its sorting has it; here all are kept, as
otherwise, and the report counts them. Model Stock's sums are torch's own, as on one thread.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.method import Fused, Method, Prepared, at_once
from mllmtool.fusion.thresholds import Threshold, magnitudes, thresholds_of

if TYPE_CHECKING:
    import torch


def linear(piece: Piece) -> Fused:
    r"""$\sum_t w_t \theta_t / \sum_t w_t$, products added without rounding between (FMA)."""
    total = np.zeros_like(piece.base)
    for tuned, weight in zip(piece.tuned, _weights(piece), strict=True):
        total = (total + tuned.astype(np.float64) * weight).astype(np.float32)
    return Fused(total / np.sum(_weights(piece), dtype=np.float32))


def task_arithmetic(piece: Piece) -> Fused:
    r"""$\theta_0 + \lambda \sum_t w_t \tau_t$."""
    weighted = [tau * w for tau, w in zip(piece.task_vectors, _weights(piece), strict=True)]
    change: Array = sum(weighted[1:], weighted[0]) * np.float32(piece.settings.scale)
    return Fused(piece.base + change)


def ties(inputs: Inputs) -> Prepared:
    r"""Trim each tensor, weigh, elect (a sum of 0 elects +), divide by the weights that agree."""
    density = inputs.settings.density
    ranked = inputs.over(lambda name: _trimming(inputs, name), "thresholds") if density < 1 else []
    found = dict(zip(inputs.names, ranked, strict=True)) if density < 1 else {}

    def fuse(piece: Piece) -> Fused:
        taus, kept = list(piece.task_vectors), list[int]()
        for i, threshold in enumerate(found.get(piece.tensor, ())):
            mask = magnitudes(taus[i]) >= threshold.magnitude
            taus[i], kept = taus[i] * mask, [*kept, int(np.count_nonzero(mask))]
        change: Array = _agreed(taus, _weights(piece)) * np.float32(piece.settings.scale)
        return Fused(piece.base + change, kept)

    tied = [
        sum(max(0, each.ties - 1) for each in model) for model in zip(*found.values(), strict=True)
    ]
    return Prepared(fuse, {"tied_besides": tied})


def model_stock(_: Inputs) -> Prepared:
    r"""$t\,\bar\theta + (1-t)\,\theta_0$ as in Model Stock, but t may be negative, or above 1."""
    import torch  # slow to import; the bits depend on its order of summing

    torch.set_num_threads(1)  # and on how many share a sum

    def fuse(piece: Piece) -> Fused:
        tuned = piece.tuned
        share = np.float32(_ratio([torch.from_numpy(tau) for tau in piece.task_vectors]).item())
        average: Array = sum(tuned[1:], tuned[0]) / np.float32(len(tuned))
        return Fused(share * average + (1 - share) * piece.base)

    return Prepared(fuse)


ROWS = {
    "linear": Method(
        at_once(linear),
        paper="mergekit 0.1.5, linear",
        defaults="equal weights",
        reads={"weight": 1.0},
        shares=True,
    ),
    "task-arithmetic": Method(
        at_once(task_arithmetic),
        paper="mergekit 0.1.5, task_arithmetic",
        defaults="weight 1, lambda 1",
        reads={"weight": 1.0, "scale": 1.0},
    ),
    "ties": Method(
        ties,
        paper="mergekit 0.1.5, ties",
        defaults="weight 1, density 1, lambda 1, normalize",
        reads={"weight": 1.0, "density": 1.0, "scale": 1.0},
    ),
    "model-stock": Method(
        model_stock,
        paper="mergekit 0.1.5, model_stock",
        defaults="none: filter_wise is false",
        unit="tensor",
        at_least=2,
    ),
}


def _agreed(taus: list[Array], weights: Array) -> Array:
    weighted = [tau * weight for tau, weight in zip(taus, weights, strict=True)]
    up = sum(weighted[1:], weighted[0]) >= 0
    total: Array = np.zeros_like(weighted[0])
    divisor: Array = np.zeros_like(weighted[0])
    for tau, weight in zip(weighted, weights, strict=True):
        agrees = np.where(up, tau > 0, tau < 0)
        total += tau * agrees
        divisor += weight * agrees
    divisor[divisor == 0] = 1
    total /= divisor
    return total


def _ratio(taus: Sequence["torch.Tensor"]) -> "torch.Tensor":
    r"""$N\cos\phi / (1 + (N-1)\cos\phi)$ of flattened task vectors; 0 where it has no value."""
    cosines = []
    for i, first in enumerate(taus):
        for second in taus[i + 1 :]:
            norms = first.norm(dim=-1) * second.norm(dim=-1)
            cosines.append(((first * second).sum(dim=-1) / norms.clamp(min=1e-6)).clamp(-1, 1))
    cosine = sum(cosines[1:], cosines[0]) / len(cosines)
    divisor = 1 + (len(taus) - 1) * cosine
    ratio: torch.Tensor = (len(taus) * cosine / divisor).where(divisor.abs() >= 1e-6, 0.0)
    return ratio


def _weights(piece: Piece) -> Array:
    return np.array(piece.settings.weights, np.float32)


def _trimming(inputs: Inputs, name: str) -> list[Threshold]:
    rank = max(1, int(inputs.settings.density * inputs.base.info(name).size))
    return thresholds_of(inputs, name, rank)
