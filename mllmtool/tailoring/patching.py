"""From moments to stored tensors: tailor every map, fuse the patches of several tuned models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mllmtool.checkpoints import Checkpoint, overlap_mean
from mllmtool.tailoring.learning import Learned, Map
from mllmtool.tailoring.matrix import Choices, Matrix, Tailored, tailor
from mllmtool.tailoring.measures import map_errors


@dataclass(frozen=True)
class Patched:
    """A tensor as it is stored; wherever `mask` is false it has the base's bits."""

    name: str
    mask: Tensor
    stored: Tensor
    changed: int  # entries that differ from the base: fewer than kept where the cast rounds


@dataclass(frozen=True)
class Result:
    """What became of a map: its tensors as stored, its row of the report.

    `finals`: for each tuned model, its own tensors before those of several are fused.
    """

    patched: list[Patched]
    row: dict[str, Any]
    finals: list[dict[str, Tensor]]


@dataclass(frozen=True)
class Solved:
    """One tuned model's problem and solution for a map; `task` counts the tuned models."""

    task: int
    map: Map
    matrix: Matrix
    tailored: Tailored

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Mask and final values of one of its tensors, as columns of the map."""
        place = self.map.names.index(name)
        final = self.matrix.base + self.tailored.change
        widths = list(self.matrix.widths)
        masks, finals = (torch.split(t, widths, dim=1) for t in (self.tailored.mask, final))
        return masks[place], finals[place]

    def finals(self, base: Checkpoint) -> dict[str, Tensor]:
        """Its tensors as they would be stored alone."""
        parts = {name: (base[name], *self.part(name)) for name in self.map.names}
        return {
            name: torch.where(
                mask.reshape(original.shape), final.reshape(original.shape), original
            ).to(original.dtype)
            for name, (original, mask, final) in parts.items()
        }


def tailored_maps(
    base: Checkpoint,
    tuned: Sequence[Checkpoint],
    maps: Sequence[Mapping[str, Map]],
    choices: Choices,
) -> Iterator[Result]:
    """Tailor map by map, those of each tuned model."""
    for lead in sorted(set().union(*maps)):
        solved = []
        for task, (checkpoint, each) in enumerate(zip(tuned, maps, strict=True)):
            if found := each.get(lead):
                matrix = _matrix(found, base, checkpoint)
                solved.append(Solved(task, found, matrix, tailor(matrix, choices)))
        names = dict.fromkeys(name for each in solved for name in each.map.names)
        patched = {name: _patched(base, name, solved) for name in names}
        by_task = {each.task: each.finals(base) for each in solved}
        finals = [by_task.get(task, {}) for task in range(len(tuned))]
        yield Result(list(patched.values()), _row(solved, patched), finals)


def tuned_tensors(
    base: Checkpoint, tuned: Sequence[Checkpoint], learned: Sequence[Learned]
) -> Iterator[tuple[list[Patched], dict[str, Any]]]:
    """The tensors that stay as tuned, whole; the mean where several models tuned one."""
    parts = {n: each.parts[n] for each in learned for n, t in each.treatments.items() if t == "sft"}
    for name in sorted(parts):
        original = base[name]
        holders = zip(tuned, learned, strict=True)
        others = [checkpoint[name] for checkpoint, each in holders if name in each.treatments]
        mask, mean = overlap_mean([other != original for other in others], others)
        patched = _stored(original, name, mask, mean)
        yield [patched], _counts([patched], parts[name])


def _matrix(found: Map, base: Checkpoint, tuned: Checkpoint) -> Matrix:
    before = [_columns(base[name].double(), found.has_rows) for name in found.names]
    after = [_columns(tuned[name].double(), found.has_rows) for name in found.names]
    start = torch.cat(before, dim=1)
    widths = tuple(columns.shape[1] for columns in before)
    return Matrix(start, torch.cat(after, dim=1) - start, widths, found.task, found.anchor)


def _columns(tensor: Tensor, has_rows: bool) -> Tensor:
    """The tensor as (R, C)."""
    return tensor.reshape(len(tensor) if has_rows else 1, -1)


def _patched(base: Checkpoint, name: str, solved: Sequence[Solved]) -> Patched:
    parts = [each.part(name) for each in solved if name in each.map.names]
    mask, mean = overlap_mean([part[0] for part in parts], [part[1] for part in parts])
    original = base[name]
    return _stored(original, name, mask.reshape(original.shape), mean.reshape(original.shape))


def _stored(original: Tensor, name: str, mask: Tensor, final: Tensor) -> Patched:
    stored = torch.where(mask, final.to(original.dtype), original)
    return Patched(name, mask, stored, int((stored != original).sum()))


def _row(solved: Sequence[Solved], patched: dict[str, Patched]) -> dict[str, Any]:
    tasks = []
    for each in solved:
        stored = torch.cat(
            [_columns(patched[n].stored.double(), each.map.has_rows) for n in each.map.names], dim=1
        )
        errors = map_errors(each.matrix, each.tailored, stored - each.matrix.base)
        tasks.append({"sft": each.task, **errors})
    matrix = solved[0].matrix
    return {
        **_counts(list(patched.values()), solved[0].map.part),
        "shape": list(matrix.change.shape),
        "mixes": matrix.task.full is not None,
        "tasks": tasks,
    }


def _counts(patched: Sequence[Patched], part: str) -> dict[str, Any]:
    return {
        "tensors": [each.name for each in patched],
        "part": part,
        "entries": sum(each.mask.numel() for each in patched),
        "kept": sum(int(each.mask.sum()) for each in patched),
        "changed": sum(each.changed for each in patched),
        "tasks": [],
    }
