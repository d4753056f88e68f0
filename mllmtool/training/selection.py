"""Which parameters learn: whole parts, chosen layers of a part, or low-rank adapters on them.

Selection is positive: whatever a part's way of training does not name stays frozen.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from mllmtool.configs.base import PARTS, Part
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.configs.selection import Chosen
from mllmtool.errors import ConfigError
from mllmtool.training.adapters import adapt, is_adapter

BLOCK = re.compile(r"\.(?:layers|layer|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Selection:
    """Names in memory: weights that may move, and the layers with adapters, by part."""

    moving: frozenset[str]
    targets: dict[Part, list[str]]


def select(
    model: PreTrainedModel, parts: Mapping[str, Part], config: FinetuneConfig, seed: int
) -> Selection:
    """Let the chosen parameters learn, in place, in float32 unless all is bf16.

    Adapters begin as peft's do, A drawn from `seed` and B zero, so nothing changes at first.

    Raises:
        ConfigError: a part to train is not there, or has nothing of what is chosen in it.
    """
    present = set(parts.values())
    wanted = [part for part in PARTS if config.how(part) != "frozen"]
    for part in wanted:
        if part not in present:
            raise ConfigError(
                f"--train {part}: the model has no such part; it has {', '.join(sorted(present))}"
            )
    targets = {part: _linear_layers(model, parts, part, config) for part in wanted}
    targets = {part: names for part, names in targets.items() if names}
    named = {name for part in wanted for name in _weights(model, parts, part, config)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part, layers in targets.items():
            adapt(model, part, layers, config)
    model.requires_grad_(False)
    everything = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in everything.items():
        if name in named or is_adapter(name):
            parameter.requires_grad_(True)
            if config.precision != "bf16":
                parameter.data = parameter.data.float()
    moving = {name for name in parts if name in everything and everything[name].requires_grad}
    moving |= {f"{layer}.weight" for layers in targets.values() for layer in layers}
    return Selection(frozenset(moving), targets)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _linear_layers(
    model: PreTrainedModel, parts: Mapping[str, Part], part: Part, config: FinetuneConfig
) -> list[str]:
    """Full names of the Linear layers to adapt; the head, which may be tied, is left out."""
    lora, head = config.lora(part), model.get_output_embeddings()
    if lora is None:
        return []
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module is not head and parts[f"{name}.weight"] == part
    ]
    if not names:
        raise ConfigError(f"--train {part}=lora: the part has no Linear layer; train it in full")
    return _choose(names, lora, part)


def _weights(
    model: PreTrainedModel, parts: Mapping[str, Part], part: Part, config: FinetuneConfig
) -> list[str]:
    """Names of the parameters of a part that learn themselves."""
    names, full = [name for name, owner in parts.items() if owner == part], config.full(part)
    if full is not None:
        return _choose(names, full, part)
    how = config.how(part)
    if not isinstance(how, str):
        return []
    if how == "bitfit":  # Ben Zaken et al. 2022
        chosen = [name for name in names if name.endswith(".bias")]
    else:
        chosen = [name for name in names if "Norm" in _class_of(model, name)]
    if not chosen:
        what = {"bitfit": "bias"}.get(how, how)
        raise ConfigError(f"--train {part}={how}: the part has no {what}")
    return chosen


def _choose(names: Sequence[str], chosen: Chosen, part: Part) -> list[str]:
    """Those of the names under one of the chosen modules and in one of the last blocks."""
    steps = {name: set(name.split(".")) for name in names}
    for module in chosen.modules or ():
        if not any(module in inside for inside in steps.values()):
            leaves = sorted({name.removesuffix(".weight").split(".")[-1] for name in names})
            raise ConfigError(
                f"--train {part}: no {module} in it; its layers are {', '.join(leaves)}"
            )
    kept = [n for n in names if not chosen.modules or steps[n] & set(chosen.modules)]
    if chosen.last is None:
        return kept
    blocks = {name: int(found[1]) for name in names if (found := BLOCK.search(f".{name}."))}
    number = max(blocks.values(), default=-1) + 1
    if chosen.last > number:
        raise ConfigError(f"--train {part}: the last {chosen.last} blocks of {number}")
    return [name for name in kept if blocks.get(name, -1) >= number - chosen.last]


def _class_of(model: PreTrainedModel, name: str) -> str:
    return type(model.get_submodule(name.rpartition(".")[0])).__name__
