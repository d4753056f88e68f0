"""Low-rank adapters: put on, saved as peft reads them, and merged away."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from mllmtool.checkpoints.saving import save_tensors
from mllmtool.configs.base import Part
from mllmtool.configs.finetune import FinetuneConfig

PARAMETERS = frozenset({"lora_A", "lora_B", "lora_magnitude_vector"})


def adapt(model: PreTrainedModel, part: Part, layers: list[str], config: FinetuneConfig) -> None:
    """Put an adapter on each of the layers, named in full."""
    inject_adapter_in_model(_peft(part, layers, config), model, adapter_name=part)
    del model.peft_config  # else peft warns when the next part is adapted
    found = _adapted(model)
    made = [name for name, layer in found.items() if part in layer.lora_A]
    if made != layers:
        raise RuntimeError(f"peft adapted {made}, not {layers}")
    for layer in found.values():
        layer.set_adapter(list(layer.lora_A))  # peft has put those of other parts to sleep


def save_adapters(
    model: PreTrainedModel,
    targets: Mapping[Part, Sequence[str]],
    config: FinetuneConfig,
    into: Path,
) -> None:
    """Write `adapter-PART/`, a directory that peft loads onto the base, for each adapted part."""
    parameters = dict(model.named_parameters())
    for part, layers in targets.items():
        folder = into / f"adapter-{part}"
        folder.mkdir()
        save_tensors(_saved(parameters, part), folder / "adapter_model.safetensors")
        values = _peft(part, layers, config).to_dict() | {  # type: ignore[no-untyped-call]
            "base_model_name_or_path": config.model,
            "inference_mode": True,
            "target_modules": list(layers),
        }
        text = json.dumps(values, indent=2, sort_keys=True, default=sorted)
        (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def merge_adapters(model: PreTrainedModel) -> None:
    """Add every adapter to the weights that it adapts, in float32, and take it away."""
    for name, module in _adapted(model).items():
        module.float()
        module.merge()
        model.set_submodule(name, module.get_base_layer())


def is_adapter(name: str) -> bool:
    """Whether a parameter is of an adapter."""
    return not PARAMETERS.isdisjoint(name.split("."))


def _adapted(model: nn.Module) -> dict[str, Any]:
    return {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}


def _saved(parameters: Mapping[str, nn.Parameter], part: Part) -> dict[str, torch.Tensor]:
    """A part's adapter under the names of peft's files, which leave the adapter's own name out."""
    ending = f".{part}.weight"
    return {
        f"base_model.model.{_named(name.removesuffix(ending))}": p.detach().cpu().contiguous()
        for name, p in parameters.items()
        if is_adapter(name) and name.endswith(ending)
    }


def _named(name: str) -> str:
    return name if name.endswith("lora_magnitude_vector") else f"{name}.weight"


def _peft(part: Part, layers: Sequence[str], config: FinetuneConfig) -> LoraConfig:
    lora = config.lora(part)
    if lora is None:
        raise RuntimeError(f"{part} has no adapters")
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft divides it by the rank only
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        target_modules=list(layers),
    )
