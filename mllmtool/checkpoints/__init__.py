"""Checkpoint directories: read lazily, written tensor by tensor, complete or not at all."""

from mllmtool.checkpoints.align import check_aligned
from mllmtool.checkpoints.patch import Patch, PatchBuilder, overlap_mean
from mllmtool.checkpoints.reader import Checkpoint, TensorInfo, tensor_sha256
from mllmtool.checkpoints.writer import CheckpointWriter, copy_sidecars

__all__ = [
    "Checkpoint",
    "CheckpointWriter",
    "Patch",
    "PatchBuilder",
    "TensorInfo",
    "check_aligned",
    "copy_sidecars",
    "overlap_mean",
    "tensor_sha256",
]
