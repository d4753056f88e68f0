"""`patch apply`: the base with the patch on it, streamed and bit-exact."""

from pathlib import Path
from typing import Any

from mllmtool.checkpoints import Checkpoint, CheckpointWriter, Patch, copy_sidecars
from mllmtool.configs.patch import PatchApplyConfig
from mllmtool.context import Context
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made


def run(config: PatchApplyConfig, context: Context, into: Path) -> Made:
    """Write the patched checkpoint."""
    base, patch = _open(config)
    writer = CheckpointWriter(into, like=base)
    for name in context.track(base.names, "tensors"):
        tensor = base[name]
        writer.add(name, patch.apply(name, tensor) if name in patch else tensor)
    writer.finish()
    copy_sidecars(base.path, into)
    inputs = [
        Artifact(role="patch", path=config.patch, sha256=file_sha256(patch.path)),
        Artifact(role="base", path=config.base, sha256=patch.header.base),
    ]
    return Made(inputs=inputs, results=_results(base, patch), run={})


def plan(config: PatchApplyConfig, context: Context) -> dict[str, Any]:  # noqa: ARG001 (contract)
    """Check the patch against the base."""
    return _results(*_open(config))


def _open(config: PatchApplyConfig) -> tuple[Checkpoint, Patch]:
    base, patch = Checkpoint.open(config.base), Patch.open(config.patch)
    patch.check_base(base)
    return base, patch


def _results(base: Checkpoint, patch: Patch) -> dict[str, Any]:
    return {
        "tensors": len(base.names),
        "patched_tensors": len(patch.names),
        "replaced": sum(patch.num_kept(name) for name in patch.names),
    }
