"""Which parameters learn: whole parts, none of a part, or low-rank adapters on its Linear layers.

Selection is positive: whatever a part's `full` or `lora` does not name stays frozen.
"""

from collections.abc import Mapping

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from mllmtool.configs.base import PARTS, Part
from mllmtool.configs.finetune import FinetuneConfig, Lora
from mllmtool.errors import ConfigError


def select(
    model: PreTrainedModel, parts: Mapping[str, Part], config: FinetuneConfig, seed: int
) -> dict[Part, list[str]]:
    """Let the chosen parameters learn, in place; return the names of the adapted layers by part.

    Adapters begin as peft's do, A drawn from `seed` and B zero, so nothing changes at first.

    Raises:
        ConfigError: a part to train has no parameters, or one to adapt no Linear layer.
    """
    present = set(parts.values())
    wanted = [part for part in PARTS if config.how(part) != "frozen"]
    for part in wanted:
        if part not in present:
            raise ConfigError(
                f"--train {part}: the model has no such part; it has {', '.join(sorted(present))}"
            )
    targets = {part: lora_targets(model, parts, part) for part in wanted if _lora(config, part)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part, names in targets.items():
            _adapt(model, part, names, config)
    full = {name for name, part in parts.items() if config.how(part) == "full"}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in full or _is_adapter(name))
    return targets


def lora_targets(model: PreTrainedModel, parts: Mapping[str, Part], part: Part) -> list[str]:
    """Full names of the Linear layers of a part; the head, which may be tied, is left out.

    Raises:
        ConfigError: there is none.
    """
    head = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module is not head and parts[f"{name}.weight"] == part
    ]
    if not names:
        raise ConfigError(f"--train {part}=lora: the part has no Linear layer; train it in full")
    return names


def merge_adapters(model: PreTrainedModel) -> None:
    """Add every adapter to the weights that it adapts, in their dtype, and take it away."""
    adapted = [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]
    for name, module in adapted:
        module.merge()
        model.set_submodule(name, module.get_base_layer())


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _adapt(model: PreTrainedModel, part: Part, names: list[str], config: FinetuneConfig) -> None:
    lora = _lora(config, part)
    if lora is None:
        return
    adapter = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft divides it by the rank only
        lora_dropout=lora.dropout,
        target_modules=names,
    )
    inject_adapter_in_model(adapter, model, adapter_name=part)
    del model.peft_config  # else peft warns when the next part is adapted
    layers = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
    made = [name for name, layer in layers.items() if part in layer.lora_A]
    if made != names:
        raise RuntimeError(f"peft adapted {made}, not {names}")
    for layer in layers.values():
        layer.set_adapter(list(layer.lora_A))  # peft has put those of other parts to sleep


def _lora(config: FinetuneConfig, part: Part) -> Lora | None:
    how = config.how(part)
    return how if isinstance(how, Lora) else None


def _is_adapter(name: str) -> bool:
    return not {"lora_A", "lora_B"}.isdisjoint(name.split("."))
