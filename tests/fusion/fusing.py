"""Fuse tensors that are given in memory, through real files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from weights import Tensors, save_checkpoint

from mllmtool.checkpoints import Checkpoint, CheckpointWriter
from mllmtool.configs.fuse import FuseConfig, FuseMethod
from mllmtool.context import Context
from mllmtool.fusion import METHODS, Drift, Inputs, Settings, Target, fuse, settings_for
from mllmtool.fusion.statistics import Moments


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
    if needs := METHODS[method].needs:
        flags = {needs: names, **flags}
    config = FuseConfig(base=str(inputs.base.path), model=names, method=method, **flags)
    path.mkdir()
    writer = CheckpointWriter(path, inputs.base)
    inputs = replace(inputs, settings=settings_for(config), unit=METHODS[method].unit)
    if needs and not (inputs.diagonals or inputs.moments.given):
        inputs = with_statistics(path.with_name(f"{path.name}-statistics"), inputs)
    prepared = METHODS[method].prepare(inputs)
    (made,) = fuse([Target(inputs, prepared, writer)])
    fused: dict[str, torch.Tensor] = {}
    for file in path.glob("*.safetensors"):
        fused |= load_file(file)
    return fused, made.drifts, dict(prepared.findings)


def with_statistics(folder: Path, inputs: Inputs) -> Inputs:
    """With diagonals and moments of each model, made up of its weights."""
    diagonals, models = [], []
    for i, model in enumerate(inputs.models):
        tensors = Checkpoint.open(model.path)
        weights = {name: tensors[name].float() for name in tensors.names}
        made = {name: tensor.abs() for name, tensor in weights.items()}
        diagonals.append(Checkpoint.open(save_checkpoint(folder / f"fisher-{i}", made)))
        grams = {n: w.T @ w + torch.eye(w.shape[1]) for n, w in weights.items() if w.ndim == 2}
        models.append(save_moments(folder / f"moments-{i}", model.fingerprint(), grams))
    return replace(inputs, diagonals=tuple(diagonals), moments=Moments([str(m) for m in models]))


def save_moments(path: Path, model: str, grams: Tensors) -> Path:
    """What `tailor --save-moments` writes of one model with these moments of Linear layers."""
    path.mkdir(parents=True)
    tensors = {f"{i}": gram.clone() for i, gram in enumerate(grams.values())}
    save_file({**tensors, "zero": torch.zeros(1, 1)}, path / "00000.safetensors")
    moments = [{"diagonal": "zero", "full": f"{i}", "tokens": 8.0} for i in range(len(grams))]
    common = {"model": 0, "part": "language", "has_rows": True, "file": "00000.safetensors"}
    maps = [
        {**common, "names": [name], "moments": [moment, {**moment, "full": None}]}
        for name, moment in zip(grams, moments, strict=True)
    ]
    head = {"schema": "mllmtool.moments/1", "models": [model], "samples": [], "anchored": False}
    (path / "moments.json").write_text(json.dumps({**head, "maps": maps}))
    return path


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
