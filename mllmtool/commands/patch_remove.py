"""`patch remove`: the base again from a patched checkpoint, proved by hash.

A patch holds no base values, so they come from the base; what this command proves is that nothing
else had changed in the model: every tensor that it writes is the base's, bit for bit.
"""

from pathlib import Path
from typing import Any

import torch

from mllmtool.checkpoints import (
    Checkpoint,
    CheckpointWriter,
    Patch,
    check_aligned,
    copy_sidecars,
    tensor_sha256,
)
from mllmtool.configs.patch import PatchRemoveConfig
from mllmtool.context import Context
from mllmtool.errors import MismatchError
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made


def run(config: PatchRemoveConfig, context: Context, into: Path) -> Made:
    """Write the restored checkpoint."""
    model, base, patch = _open(config)
    writer = CheckpointWriter(into, like=model)
    for name in context.track(model.names, "tensors"):
        writer.add(name, _restored(name, model, base, patch))
    writer.finish()
    copy_sidecars(model.path, into)
    inputs = [
        Artifact(role="patch", path=config.patch, sha256=file_sha256(patch.path)),
        Artifact(role="model", path=config.model, sha256=model.fingerprint()),
        Artifact(role="base", path=config.base, sha256=patch.header.base),
    ]
    return Made(inputs=inputs, results=_results(model, patch), run={})


def plan(config: PatchRemoveConfig, context: Context) -> dict[str, Any]:  # noqa: ARG001 (contract)
    """Check that the model is the base with the patch on it."""
    model, base, patch = _open(config)
    for name in model.names:
        _restored(name, model, base, patch)
    return _results(model, patch)


def _open(config: PatchRemoveConfig) -> tuple[Checkpoint, Checkpoint, Patch]:
    model, base = Checkpoint.open(config.model), Checkpoint.open(config.base)
    patch = Patch.open(config.patch)
    patch.check_base(base)
    check_aligned(base, [model])
    return model, base, patch


def _restored(name: str, model: Checkpoint, base: Checkpoint, patch: Patch) -> torch.Tensor:
    tensor, original = model[name], base[name]
    if name in patch:
        mask = patch.mask(name)
        if not torch.equal(tensor[mask], patch.values(name)):
            raise MismatchError(f"{name}: {model.path} does not hold the values of {patch.path}")
        tensor = torch.where(mask, original.to(tensor.dtype), tensor)
    found, expected = tensor_sha256(tensor), tensor_sha256(original)
    if found != expected:
        raise MismatchError(
            f"{name}: sha256 {found[:12]} in {model.path} without the patch, {expected[:12]} in"
            f" {base.path}; the model was changed besides the patch"
        )
    return tensor


def _results(model: Checkpoint, patch: Patch) -> dict[str, Any]:
    return {
        "tensors": len(model.names),
        "restored_tensors": len(patch.names),
        "restored": sum(patch.num_kept(name) for name in patch.names),
    }
