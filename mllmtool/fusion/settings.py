"""What a fusion method is told besides the tensors."""

from dataclasses import dataclass
from typing import Literal, get_args

# A flag each, besides --weight.
Number = Literal[
    "density", "scale", "epsilon", "gamma", "threshold", "votes", "common", "time", "rank", "alpha"
]
NUMBERS: tuple[Number, ...] = get_args(Number)


@dataclass(frozen=True)
class Settings:
    """Numbers, for one tensor; what a method does not read has no effect.

    weights: one a model. density: share of a task vector's entries that is kept. scale: factor of
    the fused task vector. epsilon: by how much the density varies with the rank of an entry.
    gamma: share of the largest entries that is dropped. threshold: how large an entry must be
    beside the other tasks' to matter to its own. votes: to how many tasks it must matter.
    common: share of the singular vectors that are common to the tasks. time: how long gradient flow
    lasts. rank: share of the eigenvectors along which it goes. alpha: factor of a
    moment's entries off the diagonal.
    """

    weights: tuple[float, ...]
    density: float = 1.0
    scale: float = 1.0
    epsilon: float = 0.0
    gamma: float = 0.0
    threshold: float = 0.0
    votes: float = 1
    common: float = 1.0
    time: float = 0.0
    rank: float = 1.0
    alpha: float = 1.0
