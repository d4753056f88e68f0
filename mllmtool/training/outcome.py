"""Write the tuned checkpoint under the base's names and dtypes, and measure what moved on disk."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel

from mllmtool.checkpoints import Checkpoint, CheckpointWriter, copy_sidecars
from mllmtool.checkpoints.difference import Difference, compare, total
from mllmtool.configs.base import Part
from mllmtool.models.parts import part_of


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


def drift_by_part(base: Checkpoint, tuned: Checkpoint) -> dict[Part, Difference]:
    """Compare two checkpoints on disk, so that the rounding of the file counts too."""
    members: dict[Part, list[Difference]] = {}
    for name in base.names:
        members.setdefault(part_of(name), []).append(compare(base, tuned, name))
    return {part: total(differences) for part, differences in members.items()}
