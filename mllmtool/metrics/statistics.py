r"""Intervals, tests and verdicts.

"Without forgetting" is a claim of non-inferiority: not that a loss could not be shown, but that a
loss beyond a margin can be ruled out. So a verdict reads the bounds of a delta, not its p-value.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

Verdict = Literal["kept", "forgot", "undecided"]
Array = NDArray[np.float64]
CONFIDENCE = 0.95
CHUNK = 256  # clusters whose weights are in memory together


class Interval(NamedTuple):
    """Lower and upper end."""

    lower: float
    upper: float


class McNemar(NamedTuple):
    """Two-sided p-values."""

    exact: float
    mid: float


@dataclass(frozen=True)
class Resamples:
    """Resampled deltas, (resamples, checkpoints), if what was not seen was lost, or gained."""

    low: Array
    high: Array


def wilson(hits: float, total: int, confidence: float = CONFIDENCE) -> Interval:
    r"""$(p + z^2/2n \pm z\sqrt{p(1-p)/n + z^2/4n^2})\,/\,(1 + z^2/n)$. Wilson 1927."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p, scale = hits / total, 1 + z**2 / total
    half = z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2)) / scale
    centre = (p + z**2 / (2 * total)) / scale
    return Interval(centre - half if hits else 0.0, centre + half if hits < total else 1.0)


def mcnemar(lost: int, gained: int) -> McNemar:
    """Exact test of the discordant pairs, 2 P(Bin(lost + gained, 1/2) <= fewer), and its mid-p.

    The exact test is conservative; mid-p counts what was seen by half (Fagerland et al. 2013).
    """
    pairs, fewer = lost + gained, min(lost, gained)
    below = float(bdtr(fewer - 1, pairs, 0.5)) if fewer else 0.0
    until = float(bdtr(fewer, pairs, 0.5))
    return McNemar(min(1.0, 2 * until), until + below)


def sign_flip(sums: Array, seed: int, permutations: int) -> float:
    r"""Two-sided p of a mean difference: $(1 + \#\{|\sum \pm s_c| \ge |\sum s_c|\}) / (1 + B)$.

    sums (clusters,) are of the differences of each cluster, whose sign is equally likely to be
    either if nothing changed. For scores that are not 0 or 1.
    """
    moved = sums[sums != 0]
    seen, rng, extreme = abs(moved.sum()) * (1 - 1e-12), np.random.default_rng(seed), 0
    if not len(moved):
        return 1.0
    for start in range(0, permutations, CHUNK):
        rows = min(CHUNK, permutations - start)
        signs = rng.integers(0, 2, (rows, len(moved)), dtype=np.int8) * 2 - 1
        extreme += int((abs(signs @ moved) >= seen).sum())
    return (1 + extreme) / (1 + permutations)


def clustered_se(scores: Array, clusters: Sequence[str]) -> float:
    r"""Standard error of a mean, items of a cluster correlated (Miller 2024, equation 4).

    $\sqrt{\sum_c (\sum_{i \in c} (s_i - \bar s))^2} / n$, scores (items,).
    """
    return float(np.sqrt(np.square(cluster_sums(scores - scores.mean(), clusters)).sum())) / len(
        scores
    )


def cluster_sums(values: Array, clusters: Sequence[str]) -> Array:
    """Sums by cluster, in the order of their names: (items, ...) to (clusters, ...)."""
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, place, values)
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in the order given. Holm 1979."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable_difference(differences: Array) -> float | None:
    r"""Smallest |delta| found at 80 % power and 5 % level, $(z_{.975} + z_{.8})\sqrt{d/n}$.

    d is the mean square of the differences (items,), which for scores of 0 or 1 is the share of
    items that changed; None where none did.
    """
    factor = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    squares = float(np.square(differences).sum())
    return factor * math.sqrt(squares) / len(differences) if squares else None


def bootstrap(
    differences: Array,
    clusters: Sequence[str],
    unseen: str,
    stream_seed: Callable[[str], int],
    resamples: int,
) -> Resamples:
    r"""Resample mean differences by cluster: Bayesian bootstrap (Rubin 1981).

    differences (items, checkpoints) are score after minus score before; items of one image are
    one cluster. A resample gives each cluster a weight $w_c \sim \mathrm{Exp}(1)$ from the stream
    of its name, so tasks on the same images are resampled together, and its delta is
    $(\sum_c w_c d_c \mp w\,m) / (\sum_c w_c n_c + w\,m)$: one more cluster, of the mean size m
    and the stream `unseen`, was wholly lost (low) or wholly gained (high). Without it, no change
    among few items would rule out any change; with it, where items are only lost, the quantiles of
    `low` are the exact bounds of Clopper and Pearson.
    """
    names, sizes = np.unique(np.asarray(clusters), return_counts=True)
    sums = cluster_sums(differences, clusters)
    top, bottom = np.zeros((resamples, differences.shape[1])), np.zeros((resamples, 1))
    for start in range(0, len(names), CHUNK):
        part = slice(start, start + CHUNK)
        weights = np.stack([_weights(stream_seed(name), resamples) for name in names[part]], axis=1)
        top += weights @ sums[part]
        bottom += (weights @ sizes[part])[:, None]
    more = _weights(stream_seed(unseen), resamples)[:, None] * sizes.mean()
    return Resamples((top - more) / (bottom + more), (top + more) / (bottom + more))


def resampled(
    rows: Array, clusters: Sequence[str], stream_seed: Callable[[str], int], resamples: int
) -> tuple[Array, Array]:
    """Weighted sums of rows (items, k) by cluster, (resamples, k), and of items, (resamples,).

    The same weights as in `bootstrap`; for the value of a metric that is no mean.
    """
    names, sizes = np.unique(np.asarray(clusters), return_counts=True)
    sums = cluster_sums(rows, clusters)
    top, bottom = np.zeros((resamples, rows.shape[1])), np.zeros(resamples)
    for start in range(0, len(names), CHUNK):
        part = slice(start, start + CHUNK)
        weights = np.stack([_weights(stream_seed(name), resamples) for name in names[part]], axis=1)
        top += weights @ sums[part]
        bottom += weights @ sizes[part]
    return top, bottom


def interval(resamples: Resamples, confidence: float = CONFIDENCE) -> list[Interval]:
    """Two-sided interval of each column."""
    tail = (1 - confidence) / 2
    low = np.quantile(resamples.low, tail, axis=0)
    high = np.quantile(resamples.high, 1 - tail, axis=0)
    return [Interval(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def bounds(resamples: Resamples, confidence: float = CONFIDENCE) -> list[Interval]:
    """One-sided lower and one-sided upper bound of each column."""
    return interval(resamples, 2 * confidence - 1)


def verdict(bound: Interval, margin: float) -> Verdict:
    """kept: a loss of `margin` or more is ruled out; forgot: a smaller one is; else undecided."""
    if bound.lower > -margin:
        return "kept"
    return "forgot" if bound.upper < -margin else "undecided"


def _weights(seed: int, resamples: int) -> Array:
    return np.random.default_rng(seed).standard_exponential(resamples)
