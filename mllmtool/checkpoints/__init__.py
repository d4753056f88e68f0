"""Checkpoint directories: read lazily, written tensor by tensor, complete or not at all.

Patches are of torch tensors; they, and torch with them, are loaded when they are asked for.
"""

from typing import TYPE_CHECKING, Any

from mllmtool.checkpoints.align import check_aligned
from mllmtool.checkpoints.reader import Checkpoint, TensorInfo, tensor_sha256
from mllmtool.checkpoints.writer import CheckpointWriter, copy_sidecars

if TYPE_CHECKING:
    from mllmtool.checkpoints.patch import Patch, PatchBuilder, fuse_masked, overlap_mean

__all__ = [
    "Checkpoint",
    "CheckpointWriter",
    "Patch",
    "PatchBuilder",
    "TensorInfo",
    "check_aligned",
    "copy_sidecars",
    "fuse_masked",
    "overlap_mean",
    "tensor_sha256",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mllmtool.checkpoints import patch

    return getattr(patch, name)
