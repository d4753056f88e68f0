"""Where a model's parameters act: every parameter is a linear map on some input.

| parameter | its input |
|---|---|
| Linear and convolution weight | the layer's input, unfolded into patches for a convolution |
| bias of such a layer | the constant 1, one more column beside the weight's |
| embedding | one-hot tokens: rows are measured by how often their token occurs |
| weight of a norm, of a layer scale | what it multiplies, channel by channel |
| any other (class token, query, gate) | the constant 1 |

A tensor that acts at several places (a tied head) is measured by the sum of their moments.

A unit is what a model runs as one: a block of a stack, or a module outside any stack that holds
none (embeddings, a projector, a head).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from mllmtool.configs.base import Part

Kind = Literal["linear", "convolution", "lookup", "scale", "constant"]
Sequence = Literal["text", "question"]
QUESTION = r"(^|\.)qformer\.(?!.*(_query\.|crossattention\.))"
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Use:
    """One place where a parameter acts.

    unit: the path of its unit; "" for a parameter that is held outside of all.
    sequence: the padded sequence that its input lies along: the language model's, or the question
        of a Q-Former, which its queries may precede.
    biased: whether a column of ones belongs to its input.
    """

    module: nn.Module
    parameter: str
    kind: Kind
    part: Part
    unit: str = ""
    sequence: Sequence | None = None
    biased: bool = False

    def shares(self, other: "Use") -> bool:
        """Whether one input makes the same moment for both."""
        same = (self.sequence, self.biased) == (other.sequence, other.biased)
        return same and self.kind == other.kind == "linear"


@dataclass(frozen=True)
class Site:
    """A linear map: the names on disk of its tensors (a weight, then its bias) and its uses."""

    names: tuple[str, ...]
    uses: tuple[Use, ...]

    @property
    def is_linear(self) -> bool:
        """Whether it is the weight of Linear layers alone."""
        return all(use.kind == "linear" for use in self.uses)

    @property
    def has_rows(self) -> bool:
        """Whether the tensor's first axis are outputs, or tokens; else it is one row."""
        return any(use.kind not in ("scale", "constant") for use in self.uses)


def find_units(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Path and module of every unit, in the order of their definition."""
    has_stack = any(isinstance(inner, nn.ModuleList) for inner in module.modules())
    if path and not has_stack:
        if next(module.parameters(), None) is not None:
            yield path, module
        return
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if isinstance(module, nn.ModuleList):
            yield inner, child
        else:
            yield from find_units(child, inner)


def find_sites(
    model: nn.Module, names: Mapping[str, str], parts: Mapping[str, Part], tuned: frozenset[str]
) -> list[Site]:
    """The sites of the `tuned` tensors.

    Args:
        model: the live model.
        names: name on disk of each of its parameters, tied ones included, by its name in memory.
        parts: the part of each parameter, by its name in memory.
        tuned: names on disk.
    """
    uses: dict[str, list[Use]] = {}
    biases: dict[str, str] = {}  # weight -> bias, names on disk
    units = dict(find_units(model))
    unit_of = {inner: unit for unit in units for inner in units[unit].modules()}
    for path, module in model.named_modules():
        for parameter, tensor in module.named_parameters(recurse=False):
            memory = f"{path}.{parameter}" if path else parameter
            kind, part = _kind(module, parameter, tensor), parts[memory]
            places = (unit_of.get(module, ""), _sequence(memory, part))
            use = Use(module, parameter, kind, part, *places)
            uses.setdefault(names[memory], []).append(use)
            if kind in ("linear", "convolution") and getattr(module, "bias", None) is not None:
                biases[names[memory]] = names[f"{path}.bias"]
    joined = {w: b for w, b in biases.items() if len(uses[w]) == 1 and {w, b} <= tuned}
    sites = [
        _site(name, places, joined.get(name))
        for name, places in uses.items()
        if name not in joined.values()
    ]
    return [site for site in sites if tuned.intersection(site.names)]


def _site(name: str, uses: list[Use], bias: str | None) -> Site:
    if bias is None:
        return Site((name,), tuple(uses))
    return Site((name, bias), tuple(replace(use, biased=True) for use in uses))


def _sequence(name: str, part: Part) -> Sequence | None:
    if part == "language":
        return "text"
    return "question" if re.search(QUESTION, name) else None


def _kind(module: nn.Module, parameter: str, tensor: nn.Parameter) -> Kind:
    if parameter == "weight" and isinstance(module, nn.Linear):
        return "linear"
    if parameter == "weight" and isinstance(module, CONVOLUTIONS):
        return "convolution"
    if isinstance(module, nn.Embedding):
        return "lookup"
    is_leaf = next(module.children(), None) is None
    is_bias = isinstance(module, (nn.Linear, *CONVOLUTIONS))
    return "scale" if is_leaf and tensor.ndim == 1 and not is_bias else "constant"
