"""Fuse tensor by tensor from file to file: memory holds pieces, whatever the model's size."""

from collections.abc import Iterable

import numpy as np

from mllmtool.checkpoints import CheckpointWriter
from mllmtool.checkpoints.dtypes import narrow, widen
from mllmtool.checkpoints.workers import in_order
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


def fuse(
    inputs: Inputs, prepared: Prepared, writer: CheckpointWriter
) -> tuple[dict[str, Drift], dict[str, str]]:
    """Write the whole checkpoint: `inputs.names` fused, the others as in the base.

    Returns how far each fused tensor went, and the hash of each file.

    Raises:
        NumericError: an input holds NaN or Inf, or a fused entry becomes one.
    """
    chosen, hashes = set(inputs.names), writer.hashes()

    def write(name: str) -> Drift | None:
        drift = None
        if name in chosen:
            drift = _fuse(name, inputs, prepared, writer)
        else:
            writer.copy(name, inputs.base)
        hashes[writer.files[name]].advance(name)
        return drift

    written = in_order(write, writer.layout, inputs.workers)
    tracked = inputs.context.track(written, "fusing", total=len(writer.layout))
    drifts = dict(zip(writer.layout, tracked, strict=True))
    writer.finish()
    return (
        {name: drift for name, drift in sorted(drifts.items()) if drift},
        {file: hashed.hexdigest() for file, hashed in hashes.items()},
    )


@np.errstate(over="ignore", invalid="ignore")  # the writer refuses what comes of it
def _fuse(name: str, inputs: Inputs, prepared: Prepared, writer: CheckpointWriter) -> Drift:
    dtype, drift = inputs.base.info(name).dtype, Drift(len(inputs.models))
    for piece in inputs.pieces(name):
        fused = prepared.fuse(piece)
        stored = narrow(fused.entries, dtype)
        writer.write(name, stored)
        drift.add(piece, widen(stored, dtype, piece.base.dtype.type), fused.kept)
    return drift
