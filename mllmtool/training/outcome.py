"""Write the tuned checkpoint under the base's names and dtypes, and measure what moved on disk."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from mllmtool.checkpoints import Checkpoint, CheckpointWriter, copy_sidecars
from mllmtool.configs.base import Part
from mllmtool.models.parts import part_of


@dataclass
class Drift:
    """How far the tensors of a part went from the base, as they are on disk."""

    squares: float = 0.0  # of the differences, summed
    base_squares: float = 0.0
    largest: float = 0.0
    num_moved: int = 0
    num_weights: int = 0

    @property
    def relative(self) -> float:
        r"""$\|\theta - \theta_0\|_2 / \|\theta_0\|_2$."""
        return math.sqrt(self.squares / self.base_squares) if self.base_squares else 0.0

    @property
    def moved(self) -> float:
        """Share of the weights that differ in any bit that counts."""
        return self.num_moved / self.num_weights if self.num_weights else 0.0

    def add(self, base: torch.Tensor, tuned: torch.Tensor) -> None:
        """Take in one tensor."""
        difference = tuned.double() - base.double()
        self.squares += difference.square().sum().item()
        self.base_squares += base.double().square().sum().item()
        self.num_moved += int((difference != 0).sum())
        self.num_weights += base.numel()
        if base.numel():
            self.largest = max(self.largest, difference.abs().max().item())


def write_tuned(
    model: PreTrainedModel,
    names: Mapping[str, str],
    base: Checkpoint,
    frozen: Collection[Part],
    into: Path,
) -> None:
    """Write the whole checkpoint; `names` are those of `disk_names`, `frozen` parts the base's.

    Raises:
        NumericError: a weight is NaN or Inf.
        RuntimeError: a frozen weight moved in memory.
    """
    state = model.state_dict()
    memory = {disk: name for name, disk in names.items()}
    writer = CheckpointWriter(into, like=base)
    for disk in base.names:
        live = state[memory[disk]].cpu() if disk in memory else None
        if live is not None and part_of(disk) not in frozen:
            writer.add(disk, live)
            continue
        if live is not None and not torch.equal(live, base[disk].to(live.dtype)):
            raise RuntimeError(f"{disk}: moved, though its part is frozen")
        writer.copy(disk, base)
    writer.finish()
    copy_sidecars(base.path, into)


def drift_by_part(base: Checkpoint, tuned: Checkpoint) -> dict[Part, Drift]:
    """Compare two checkpoints on disk, tensor by tensor."""
    drifts: dict[Part, Drift] = {}
    for name in base.names:
        drifts.setdefault(part_of(name), Drift()).add(base[name], tuned[name])
    return drifts
