"""Checkpoint directories: read lazily, written tensor by tensor, complete or not at all."""

from mllmtool.checkpoints.align import check_aligned
from mllmtool.checkpoints.reader import Checkpoint, TensorInfo
from mllmtool.checkpoints.writer import CheckpointWriter, copy_sidecars

__all__ = ["Checkpoint", "CheckpointWriter", "TensorInfo", "check_aligned", "copy_sidecars"]
