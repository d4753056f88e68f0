"""Fuse tensors that are given in memory, through real files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from weights import Tensors, save_checkpoint

from mllmtool.checkpoints import Checkpoint, CheckpointWriter
from mllmtool.configs.fuse import FuseConfig, FuseMethod
from mllmtool.context import Context
from mllmtool.fusion import METHODS, Drift, Inputs, Settings, fuse, settings_for


def prepare(path: Path, base: Tensors, models: Sequence[Tensors], num_shards: int = 1) -> Inputs:
    """The tensors as checkpoints under `path`."""
    opened = [
        Checkpoint.open(save_checkpoint(path / str(i), tensors, num_shards))
        for i, tensors in enumerate((base, *models))
    ]
    settings = Settings((1.0,) * len(models))
    return Inputs(opened[0], tuple(opened[1:]), opened[0].names, settings, Context(quiet=True))


def run(
    path: Path, inputs: Inputs, method: FuseMethod, **flags: Any
) -> tuple[dict[str, torch.Tensor], dict[str, Drift], dict[str, Any]]:
    """Fused tensors, drifts and the method's findings."""
    names = tuple(str(model.path) for model in inputs.models)
    config = FuseConfig(base=str(inputs.base.path), model=names, method=method, **flags)
    path.mkdir()
    writer = CheckpointWriter(path, inputs.base)
    inputs = replace(inputs, settings=settings_for(config), unit=METHODS[method].unit)
    prepared = METHODS[method].prepare(inputs)
    drifts, _ = fuse(inputs, prepared, writer)
    fused: dict[str, torch.Tensor] = {}
    for file in path.glob("*.safetensors"):
        fused |= load_file(file)
    return fused, drifts, dict(prepared.findings)


def fused(
    path: Path, base: Tensors, models: Sequence[Tensors], method: FuseMethod, **flags: Any
) -> dict[str, torch.Tensor]:
    """The fused tensors."""
    num_shards = flags.pop("num_shards", 1)
    return run(path / "out", prepare(path, base, models, num_shards), method, **flags)[0]


def one(
    path: Path, base: list[float], models: list[list[float]], method: FuseMethod, **flags: Any
) -> list[float]:
    """Fuse models of one float32 tensor."""
    tensors = [{"w": torch.tensor(values, dtype=torch.float32)} for values in (base, *models)]
    result: list[float] = fused(path, tensors[0], tensors[1:], method, **flags)["w"].tolist()
    return result
