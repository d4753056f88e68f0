"""Findings of a recipe: a claim, a figure with its interval, and the verdict that follows.

Figures are shares. Scripts of recipes import this by path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t


class Estimate(NamedTuple):
    """A figure and the ends of its 95 % interval; infinite where nothing tells them."""

    value: float
    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        """In points: `+3.2 (-0.4 to +6.8)`."""
        return self.shown("+")

    def shown(self, sign: str) -> str:
        """In points, with plus signs or, if `sign` is empty, without."""
        value, low, high = (f"{round(100 * end, 1) + 0.0:{sign}.1f}" for end in self)  # no -0.0
        unknown = math.isinf(self.high - self.low)
        return f"{value} (no interval)" if unknown else f"{value} ({low} to {high})"


class Finding(NamedTuple):
    """A claim, which says that `figure` lies above `least`.

    `over` is what the interval is over, `paper` what was published, if it is known.
    """

    claim: str
    figure: Estimate
    over: str
    least: float = 0.0
    paper: str = ""

    @property
    def verdict(self) -> str:
        """What the whole interval says."""
        if self.figure.low > self.least:
            return "held"
        return "not held" if self.figure.high < self.least else "undecided"


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean and Student's interval; of one value no interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean)
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return Estimate(mean, mean - half, mean + half)


def difference(first: Estimate, second: Estimate) -> Estimate:
    r"""$a - b$ from $\sqrt{(a - l_a)^2 + (u_b - b)^2}$ below to the like above.

    The method of variance estimates recovery (Newcombe 1998, Zou and Donner 2008). It takes the
    two for independent: of two checkpoints on the same items the interval is too wide, if anything.
    """
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above)


def compared(first: Sequence[Estimate], second: Sequence[Estimate]) -> tuple[Estimate, str]:
    """First less second over paired seeds, or over items where there is one seed; and which."""
    if len(first) == 1:
        return difference(first[0], second[0]), "items"
    pairs = zip(first, second, strict=True)
    return over_seeds([one.value - two.value for one, two in pairs]), f"{len(first)} seeds"


def sentence(findings: Sequence[Finding], scale: str) -> str:
    """Which findings held and which did not, in one sentence."""
    said = []
    for verdict in ("held", "not held", "undecided"):
        claims = [found.claim for found in findings if found.verdict == verdict]
        if claims:
            said.append(f"{len(claims)} {verdict} ({'; '.join(claims)})")
    return f"Of {len(findings)} findings at {scale} scale: {', '.join(said) or 'none'}."
