"""Checkpoint directories of any tensors, written by the safetensors library and not by ours."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = Mapping[str, torch.Tensor]


def save_checkpoint(path: Path, tensors: Tensors, num_shards: int = 1) -> Path:
    """Write config.json and the tensors, dealt out in turn over the shards."""
    path.mkdir(parents=True)
    (path / "config.json").write_text('{"model_type": "llama"}')
    names, tensors = sorted(tensors), {name: t.clone() for name, t in tensors.items()}
    if num_shards == 1:
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return path
    files = {
        name: f"model-{i % num_shards + 1:05d}-of-{num_shards:05d}.safetensors"
        for i, name in enumerate(names)
    }
    for file in set(files.values()):
        shard = {name: tensors[name] for name in names if files[name] == file}
        save_file(shard, path / file, metadata={"format": "pt"})
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": files}
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return path


def retuned(path: Path, base: Path, seed: int, **changed: torch.Tensor) -> Path:
    """A copy of a single-file checkpoint with noise on its weights, or with tensors replaced."""
    shutil.copytree(base, path)
    rng = torch.Generator().manual_seed(seed)
    tensors = load_file(path / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            noise = 0.05 * torch.randn(tensor.shape, generator=rng)
            tensors[name] = tensor + noise.to(tensor.dtype)
    tensors |= changed
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal to the bit, so that 0.0 is not -0.0."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.numel() == 0 or torch.equal(a.view(-1).view(torch.uint8), b.view(-1).view(torch.uint8))
