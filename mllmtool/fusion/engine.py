"""Fuse tensor by tensor from file to file: memory holds a piece, whatever the model's size."""

from collections.abc import Iterable

import numpy as np

from mllmtool.checkpoints import CheckpointWriter
from mllmtool.checkpoints.dtypes import narrow, widen
from mllmtool.errors import MismatchError
from mllmtool.fusion.drift import Drift
from mllmtool.fusion.inputs import Inputs
from mllmtool.fusion.method import Prepared


def check_integers(inputs: Inputs, names: Iterable[str]) -> None:
    """Tensors that are not of weights cannot be fused: all models must have the base's.

    Raises:
        MismatchError: one differs.
    """
    for name in names:
        expected = inputs.base.sha256(name)
        for model in inputs.models:
            if model.sha256(name) != expected:
                dtype = inputs.base.info(name).dtype
                raise MismatchError(
                    f"{name}: {dtype} differs between {model.path} and {inputs.base.path};"
                    " only weights can be fused"
                )


@np.errstate(over="ignore", invalid="ignore")  # the writer refuses what comes of it
def fuse(inputs: Inputs, prepared: Prepared, writer: CheckpointWriter) -> dict[str, Drift]:
    """Write every tensor of `inputs.names`, and say how far each went.

    Raises:
        NumericError: an input holds NaN or Inf, or a fused entry becomes one.
    """
    drifts = {}
    for name in inputs.context.track(inputs.names, "fusing"):
        dtype = inputs.base.info(name).dtype
        drifts[name] = Drift(len(inputs.models))
        for piece in inputs.pieces(name):
            fused = prepared.fuse(piece)
            stored = narrow(fused.entries, dtype)
            writer.write(name, stored)
            drifts[name].add(piece, widen(stored, dtype, piece.base.dtype.type), fused.trimmed)
    return drifts
