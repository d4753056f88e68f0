"""The contract of a fusion method.

A method is first shown all inputs, and may look through them (a threshold over a whole model, the
angle between two tensors); what it hands back then fuses piece by piece. It is pure, takes chance
only from named streams, and gives the same entries however tensors are cut, stored or ordered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.inputs import Inputs, Piece


@dataclass(frozen=True)
class Settings:
    """What a method may read; None where it reads nothing."""

    weights: tuple[float, ...] | None
    density: float | None
    scale: float | None


@dataclass(frozen=True)
class Fused:
    """Fused entries, (n,), and the trimmed task vectors of a method that trims, (n,) each."""

    entries: Array
    trimmed: Sequence[Array] = ()


@dataclass(frozen=True)
class Prepared:
    """What fuses a piece, and what was found while preparing, for the report."""

    fuse: Callable[[Piece], Fused]
    findings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A row of the table: a method, its paper, how many models it takes, its defaults.

    A default of None means that the method does not read that setting. `defaults` says whose they
    are.
    """

    prepare: Callable[[Inputs, Settings], Prepared]
    paper: str
    defaults: str
    weight: float | None = None
    density: float | None = None
    scale: float | None = None
    num_models: int | None = None
    shares: bool = False  # weights are shares of a whole, so their sum must be above 0
    scale_is_share: bool = False
