"""Where in a model a tensor is: in which block of which stack, and in which module there."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from mllmtool.configs.base import Part

BLOCK = re.compile(r"^(.*?\blayers?|.*?\bblocks)\.(\d+)\.(.+)$")
OWN = r"\.(weight|bias)$"  # a module's weight and bias are one module
T = TypeVar("T")
Total = Callable[[Sequence[T]], Any]  # several tensors as one, which can `describe` itself


class Place(NamedTuple):
    """`model.layers.3.mlp.up_proj.weight` is in stack `model.layers`, block 3, `mlp.up_proj`.

    A tensor outside of the blocks has neither stack nor number.
    """

    stack: str | None
    block: int | None
    module: str


def place_of(name: str) -> Place:
    """Of a tensor, by its name; numbered experts are one module."""
    found = BLOCK.search(name)
    if not found:
        return Place(None, None, re.sub(OWN, "", name))
    module = re.sub(r"\.\d+(?=\.|$)", ".*", re.sub(OWN, "", found[3]))
    return Place(found[1], int(found[2]), module)


def by_block(
    tensors: Mapping[str, T], total: Total[T], part_of: Callable[[str], Part | str]
) -> list[dict[str, Any]]:
    """Each block as one, from the first to the last of each stack, for a report."""
    members: dict[tuple[str, int], list[str]] = {}
    for name in tensors:
        stack, block, _ = place_of(name)
        if stack is not None and block is not None:
            members.setdefault((stack, block), []).append(name)
    return [
        {
            "part": part_of(names[0]),
            "stack": stack,
            "block": block,
            **total([tensors[name] for name in names]).describe(),
        }
        for (stack, block), names in sorted(members.items())
    ]


def by_module(tensors: Mapping[str, T], total: Total[T]) -> dict[Place, Any]:
    """What each module of each block comes to, described."""
    members: dict[Place, list[T]] = {}
    for name, tensor in tensors.items():
        members.setdefault(place_of(name), []).append(tensor)
    return {place: total(found).describe() for place, found in members.items()}
