"""Write the tuned checkpoint under the base's names and dtypes, and measure what moved on disk."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mllmtool.checkpoints import Checkpoint, CheckpointWriter, copy_sidecars
from mllmtool.checkpoints.difference import Difference, compare, total
from mllmtool.configs.base import Part
from mllmtool.errors import NumericError
from mllmtool.models.parts import part_of
from mllmtool.training.adapters import merge_adapters

PROCESSOR, IMAGE_PROCESSOR = "processor_config.json", "preprocessor_config.json"
MERGED = 1e-3  # of the largest logit: what merging adapters in float32 may change


def write_tuned(
    model: PreTrainedModel,
    names: Mapping[str, str],
    base: Checkpoint,
    moving: Collection[str],
    into: Path,
) -> None:
    """Write the whole checkpoint; `names` are those of `disk_names`, `moving` names on disk.

    What may not move is the base's, byte for byte.

    Raises:
        NumericError: a weight is NaN or Inf.
        RuntimeError: a frozen weight moved in memory.
    """
    state = model.state_dict()
    memory = {disk: name for name, disk in names.items()}
    writer = CheckpointWriter(into, like=base)
    for disk in base.names:
        live = state[memory[disk]].cpu() if disk in memory else None
        if live is not None and disk in moving:
            writer.add(disk, live)
            continue
        if live is not None and not torch.equal(live, base[disk].to(live.dtype)):
            raise RuntimeError(f"{disk}: moved, though it is frozen")
        writer.copy(disk, base)
    writer.finish()
    copy_sidecars(base.path, into)
    _write_image_processor(into)


@dataclass
class Moved:
    """A part on disk against the base: how far it went, and how many tensors were held frozen."""

    members: list[Difference] = field(default_factory=list)
    frozen: int = 0

    @property
    def drift(self) -> Difference:
        """All of the part's tensors as one."""
        return total(self.members)


def moved_by_part(
    base: Checkpoint, tuned: Checkpoint, moving: Collection[str]
) -> dict[Part, Moved]:
    """Compare two checkpoints on disk, so that the rounding of the file counts too.

    Raises:
        RuntimeError: a frozen tensor is not the base's, bit for bit.
    """
    parts: dict[Part, Moved] = {}
    for name in base.names:
        part, difference = parts.setdefault(part_of(name), Moved()), compare(base, tuned, name)
        part.members.append(difference)
        part.frozen += name not in moving
        if name not in moving and difference.changed:
            raise RuntimeError(f"{name}: is frozen, and is not the base's on disk")
    return parts


def merge_checked(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> float:
    """Merge the adapters; the largest change of a logit of `batch`, as a share of the largest.

    Raises:
        NumericError: the merged model answers otherwise than the adapted one.
    """
    model.eval().float()
    before = _logits(model, batch)
    merge_adapters(model)
    after = _logits(model, batch)
    change = float((after - before).abs().max() / before.abs().max().clamp(min=1e-30))
    if not change < MERGED:
        raise NumericError(
            f"adapters: merged, they change logits by {change:.2g} of the largest; lower the"
            " learning rate, or the adapters' alpha"
        )
    return change


def _logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(**batch).logits
        return logits.float()


def _write_image_processor(into: Path) -> None:
    """Where transformers 5 nests the image processor, write the older file besides."""
    processor, older = into / PROCESSOR, into / IMAGE_PROCESSOR
    if not processor.is_file() or older.exists():
        return
    values = json.loads(processor.read_text(encoding="utf-8"))
    if isinstance(values.get("image_processor"), dict):
        nested = {"processor_class": values.get("processor_class"), **values["image_processor"]}
        older.write_text(json.dumps(nested, indent=2) + "\n", encoding="utf-8")
