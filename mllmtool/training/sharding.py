"""A model in shards over processes: torch's FSDP2, or DeepSpeed's ZeRO.

Nothing else of the package knows where a weight lies.
"""

import json
import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.data.samples import Sample
from mllmtool.errors import ConfigError, DataError

LAUNCHERS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
OWN = ("optimizer", "scheduler")  # sections that would set aside each part's learning rate


def check_sharding(config: FinetuneConfig) -> None:
    """See that shards, where they are asked for, would be made.

    Raises:
        ConfigError: they would be ignored in silence, or ZeRO's config asks for what is not served.
    """
    for variable in LAUNCHERS:
        if os.environ.get(variable, "").lower() in {"1", "true"}:
            raise ConfigError(
                f"{variable}: is not read, so that a report says it all; give --fsdp or"
                " --deepspeed, and start with torchrun"
            )
    asked = "--fsdp" if config.fsdp else "--deepspeed" if config.deepspeed else None
    if asked is None:
        return
    if not has_gpu():
        raise ConfigError(
            f"{asked}: shards a model over GPUs, and there is none; on a CPU Trainer would train"
            " without it in silence; leave it out"
        )
    if "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            f"{asked}: shards a model over processes; start them with torchrun (recipes/launch)"
        )
    if config.deepspeed:
        _check_zero(config.deepspeed)


def has_gpu() -> bool:
    """Whether there is a device to hold shards."""
    return torch.cuda.is_available()


def check_alike(samples: Sequence[Sample], places: Sequence[str]) -> None:
    """See that the processes of a sharded run take the same way through the model.

    Raises:
        DataError: some samples have images and others none, so that of two processes one would wait
            for ever for the other's share of the vision tower.
    """
    first = bool(samples[0].images)
    for sample, place in zip(samples, places, strict=True):
        if bool(sample.images) != first:
            has = "an image" if sample.images else "no image"
            raise DataError(
                f"{place}: has {has}, unlike {places[0]}; with --fsdp all samples must have images,"
                " or none"
            )


def trainer_keys(config: FinetuneConfig, model: PreTrainedModel) -> dict[str, Any]:
    """Trainer's own arguments.

    Raises:
        ConfigError: a class to wrap is not of the model.
    """
    if config.fsdp is None:
        return {"deepspeed": config.deepspeed} if config.deepspeed else {}
    present = {type(module).__name__ for module in model.modules()}
    known = sorted(present & set(model._no_split_modules or ()))  # accelerate fails at the others
    wrapped = config.fsdp.transformer_layer_cls_to_wrap or known
    for name in wrapped:
        if name not in present:
            raise ConfigError(f"--fsdp: no {name} in the model; it has {', '.join(known)}")
    return {
        "fsdp": True,
        "fsdp_config": {
            "reshard_after_forward": config.fsdp.reshard_after_forward,
            "transformer_layer_cls_to_wrap": list(wrapped),
        },
    }


def whole(parameter: nn.Parameter) -> Tensor:
    """A parameter's value; of one in shards all processes must ask together."""
    value = parameter.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def own(parameter: nn.Parameter) -> Tensor:
    """What this process holds of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def fill(parameter: nn.Parameter, value: Tensor) -> None:
    """Give a parameter the value that every process holds whole."""
    held = parameter.detach()
    if isinstance(held, DTensor):
        value = distribute_tensor(value.to(held.device), held.device_mesh, held.placements)
    held.copy_(value)


def fill_from_masters(learning: Iterable[nn.Parameter]) -> None:
    """Give parameters the float32 values that ZeRO's optimizer holds of them, where it does."""
    utils = import_module("deepspeed.utils")

    for parameter in learning:
        master = utils.safe_get_full_fp32_param(parameter)
        if master is not None:
            parameter.data = master


def _check_zero(file: str) -> None:
    if find_spec("deepspeed") is None:
        raise ConfigError("--deepspeed: needs a package; pip install deepspeed, or use --fsdp")
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
        stage = values.get("zero_optimization", {}).get("stage", 0)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"--deepspeed {file}: is not a DeepSpeed config: {error}") from error
    if stage not in {0, 1, 2}:
        raise ConfigError(f"--deepspeed {file}: ZeRO stage {stage} is not served; use --fsdp")
    for section in OWN:
        if section in values:
            raise ConfigError(
                f"--deepspeed {file}: its {section} would set --lr and --schedule aside; leave it"
                " out"
            )
