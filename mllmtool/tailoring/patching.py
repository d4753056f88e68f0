"""From moments to stored tensors: tailor every map, fuse the patches of several tuned models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mllmtool.checkpoints import Checkpoint, fuse_masked
from mllmtool.configs.patch import Overlap
from mllmtool.tailoring.learning import Learned, Map
from mllmtool.tailoring.matrix import Choices, Matrix, Tailored, tailor, tailor_jointly
from mllmtool.tailoring.measures import map_errors, mask_overlap
from mllmtool.tailoring.memory import trim
from mllmtool.tailoring.workers import solved_by_all


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
    """One tuned model's problem and solution for a map; `task` counts the tuned models.

    `tuned`: the tuned values, (R, C): base and change may differ from them by a rounding.
    """

    task: int
    map: Map
    matrix: Matrix
    tuned: Tensor
    tailored: Tailored

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Mask and final values of one of its tensors, as columns of the map."""
        place = self.map.names.index(name)
        change = self.tailored.change
        final = torch.where(change == self.matrix.change, self.tuned, self.matrix.base + change)
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
    """Tailor map by map, those of each tuned model; each by one of the processes, if several."""

    def one(lead: str) -> Result:
        trim()
        holders = [task for task, each in enumerate(maps) if lead in each]
        problems = [_matrix(maps[task][lead], base, tuned[task]) for task in holders]
        matrices = [matrix for matrix, _ in problems]
        if choices.combine == "joint" and len(matrices) > 1:
            solutions = [tailor_jointly(matrices, choices)] * len(matrices)
        else:
            solutions = [tailor(matrix, choices) for matrix in matrices]
        solved = [
            Solved(task, maps[task][lead], *problem, solution)
            for task, problem, solution in zip(holders, problems, solutions, strict=True)
        ]
        names = dict.fromkeys(name for each in solved for name in each.map.names)
        rule = (choices, len(tuned))
        patched = {name: _patched(base, name, solved, rule) for name in names}
        by_task = {each.task: each.finals(base) for each in solved}
        finals = [by_task.get(task, {}) for task in range(len(tuned))]
        return Result(list(patched.values()), _row(solved, patched), finals)

    yield from solved_by_all(sorted(set().union(*maps)), one)


def tuned_tensors(
    base: Checkpoint, tuned: Sequence[Checkpoint], learned: Sequence[Learned], choices: Choices
) -> Iterator[tuple[list[Patched], dict[str, Any]]]:
    """The tensors that stay as tuned, whole; fused where several models tuned one."""
    parts = {n: each.parts[n] for each in learned for n, t in each.treatments.items() if t == "sft"}
    for name in sorted(parts):
        original = base[name]
        holders = zip(tuned, learned, strict=True)
        others = [checkpoint[name] for checkpoint, each in holders if name in each.treatments]
        masks = [other != original for other in others]
        mask, final = fuse_masked(original, masks, others, _overlap(choices), len(tuned))
        patched = _stored(original, name, mask, final)
        yield [patched], _counts([patched], parts[name])


def _matrix(found: Map, base: Checkpoint, tuned: Checkpoint) -> tuple[Matrix, Tensor]:
    """The problem, in float32 unless weights are wider, and the tuned values."""
    dtype = torch.promote_types(base[found.names[0]].dtype, torch.float32)
    before, after = (
        [_columns(checkpoint[name].to(dtype), found.has_rows) for name in found.names]
        for checkpoint in (base, tuned)
    )
    start, end = torch.cat(before, dim=1), torch.cat(after, dim=1)
    widths = tuple(columns.shape[1] for columns in before)
    held_out = found.held_out.to(dtype) if found.held_out and found.held_out.tokens else None
    moments = (found.task.to(dtype), found.anchor.to(dtype), held_out)
    return Matrix(start, end - start, widths, *moments), end


def _columns(tensor: Tensor, has_rows: bool) -> Tensor:
    """The tensor as (R, C)."""
    return tensor.reshape(len(tensor) if has_rows else 1, -1)


def _patched(
    base: Checkpoint, name: str, solved: Sequence[Solved], rule: tuple[Choices, int]
) -> Patched:
    """A tensor's patches fused; `rule` is how, and the number of all tuned models."""
    original = base[name]
    parts = [each.part(name) for each in solved if name in each.map.names]
    masks, finals = ([t.reshape(original.shape) for t in each] for each in zip(*parts, strict=True))
    return _stored(
        original, name, *fuse_masked(original, masks, finals, _overlap(rule[0]), rule[1])
    )


def _overlap(choices: Choices) -> Overlap:
    """What a joint solution leaves to fuse is equal, or tuned by one model alone."""
    return "mean" if choices.combine == "joint" else choices.combine


def _stored(original: Tensor, name: str, mask: Tensor, final: Tensor) -> Patched:
    stored = torch.where(mask, final.to(original.dtype), original)
    return Patched(name, mask, stored, int((stored != original).sum()))


def _row(solved: Sequence[Solved], patched: dict[str, Patched]) -> dict[str, Any]:
    tasks = []
    for each in solved:
        stored = torch.cat(
            [
                _columns(patched[n].stored.to(each.matrix.base.dtype), each.map.has_rows)
                for n in each.map.names
            ],
            dim=1,
        )
        errors = map_errors(each.matrix, each.tailored, stored - each.matrix.base)
        tasks.append({"sft": each.task, **errors})
    matrix = solved[0].matrix
    return {
        **_counts(list(patched.values()), solved[0].map.part),
        "shape": list(matrix.change.shape),
        "mixes": matrix.task.full is not None,
        "tasks": tasks,
        "overlap": mask_overlap([(each.tailored.mask, each.tailored.change) for each in solved]),
    }


def _counts(patched: Sequence[Patched], part: str) -> dict[str, Any]:
    return {
        "tensors": [each.name for each in patched],
        "part": part,
        "entries": sum(each.mask.numel() for each in patched),
        "kept": sum(int(each.mask.sum()) for each in patched),
        "changed": sum(each.changed for each in patched),
        "tasks": [],
        "overlap": [],
    }
