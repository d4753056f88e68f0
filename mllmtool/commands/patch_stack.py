"""`patch stack`: several patches of one base as one."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from mllmtool.checkpoints import Checkpoint, Patch, PatchBuilder, fuse_masked
from mllmtool.checkpoints.patch import PATCH_NAME
from mllmtool.configs.patch import PatchStackConfig
from mllmtool.context import Context
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made


def run(config: PatchStackConfig, context: Context, into: Path) -> Made:
    """Write `patch.safetensors`."""
    base, patches = _open(config)
    fused = PatchBuilder(base)
    for name in context.track(_names(patches), "tensors"):
        tensor = base[name]
        holders = [patch for patch in patches if name in patch]
        mask, final = fuse_masked(
            tensor,
            [patch.mask(name) for patch in holders],
            [patch.apply(name, tensor) for patch in holders],
            config.overlap,
            len(patches),
        )
        fused.add(name, mask, final)
    origin = {"command": "patch stack", "patches": [patch.header.origin for patch in patches]}
    fused.write(into / PATCH_NAME, patches[0].header.base, origin)
    inputs = [
        Artifact(role="patch", path=path, sha256=file_sha256(Path(path))) for path in config.patch
    ]
    inputs.append(Artifact(role="base", path=config.base, sha256=patches[0].header.base))
    return Made(inputs=inputs, results=_results(config, base, patches), run={})


def plan(config: PatchStackConfig, context: Context) -> dict[str, Any]:  # noqa: ARG001 (contract)
    """Check every patch against the base and say where they overlap."""
    return _results(config, *_open(config))


def _open(config: PatchStackConfig) -> tuple[Checkpoint, list[Patch]]:
    base = Checkpoint.open(config.base)
    patches = [Patch.open(path) for path in config.patch]
    for patch in patches:
        patch.check_base(base)
    return base, patches


def _names(patches: Sequence[Patch]) -> list[str]:
    return sorted({name for patch in patches for name in patch.names})


def _results(
    config: PatchStackConfig, base: Checkpoint, patches: Sequence[Patch]
) -> dict[str, Any]:
    return {
        "overlap": config.overlap,
        "tensors": len(_names(patches)),
        "kept": [sum(patch.num_kept(name) for name in patch.names) for patch in patches],
        "pairs": [
            {"patches": [str(first.path), str(second.path)], **_conflict(base, first, second)}
            for first, second in combinations(patches, 2)
        ],
    }


def _conflict(base: Checkpoint, first: Patch, second: Patch) -> dict[str, Any]:
    """Entries in both patches, over the union (Jaccard), and how often their changes disagree."""
    both = union = opposed = 0
    for name in _names([first, second]):
        tensor = base[name]
        empty = torch.zeros(tensor.shape, dtype=torch.bool)
        masks = [p.mask(name) if name in p else empty for p in (first, second)]
        overlap = masks[0] & masks[1]
        both, union = both + int(overlap.sum()), union + int((masks[0] | masks[1]).sum())
        if overlap.any():
            start = tensor[overlap].double()
            changes = [p.apply(name, tensor)[overlap].double() - start for p in (first, second)]
            opposed += int((changes[0] * changes[1] < 0).sum())
    return {
        "overlap": both,
        "jaccard": both / union if union else None,
        "opposed_share": opposed / both if both else None,
    }
