"""Fuse tensor by tensor from file to file: memory holds pieces, whatever the model's size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mllmtool.checkpoints import CheckpointWriter
from mllmtool.checkpoints.dtypes import Array, narrow, scatter, widen
from mllmtool.checkpoints.workers import in_order
from mllmtool.errors import MismatchError
from mllmtool.fusion.blas import one_thread
from mllmtool.fusion.drift import Drift
from mllmtool.fusion.inputs import Inputs, Piece
from mllmtool.fusion.journal import Journal
from mllmtool.fusion.masks import draws
from mllmtool.fusion.method import Method, Prepared
from mllmtool.fusion.settings import Settings


@dataclass(frozen=True)
class Target:
    """A checkpoint to be fused: `inputs` have its settings, and `prepared` is for these."""

    inputs: Inputs
    prepared: Prepared
    writer: CheckpointWriter


@dataclass(frozen=True)
class Fused:
    """How far each fused tensor went, and the hash of each file."""

    drifts: dict[str, Drift]
    hashes: dict[str, str]


def check_integers(inputs: Inputs, names: Iterable[str]) -> None:
    """Tensors that are not of weights cannot be fused: all models must have the base's.

    Raises:
        MismatchError: one differs.
    """
    for name in names:
        expected = inputs.base.blake3(name)
        for model in inputs.models:
            if model.blake3(name) != expected:
                dtype = inputs.base.info(name).dtype
                raise MismatchError(
                    f"{name}: {dtype} differs between {model.path} and {inputs.base.path};"
                    " only weights can be fused"
                )


def fuse(targets: Sequence[Target], journal: Journal | None = None) -> list[Fused]:
    """Write whole checkpoints of the same models: `inputs.names` fused, the others as in the base.

    The models are read once, whatever the number of targets. What is done by the journal is kept.

    Raises:
        NumericError: an input holds NaN or Inf, or a fused entry becomes one.
    """
    inputs, layout = targets[0].inputs, targets[0].writer.layout
    chosen, hashes = set(inputs.names), [target.writer.hashes() for target in targets]

    def write(name: str) -> list[Drift]:
        if journal and name in journal.done:
            for target in targets:
                target.writer.keep(name)
            return journal.done[name]
        drifts = _fuse(name, targets) if name in chosen else []
        for target in targets if name not in chosen else ():
            target.writer.copy(name, inputs.base)
        if journal:
            journal.add(name, drifts)
        return drifts

    written = in_order(write, layout, inputs.workers)
    tracked = inputs.context.track(written, "fusing", total=len(layout))
    drifts = dict(zip(layout, tracked, strict=True))
    for target in targets:
        target.writer.finish()
    return [
        Fused(
            {name: drifts[name][place] for name in sorted(chosen)},
            {file: each.hexdigest() for file, each in hashed.items()},
        )
        for place, hashed in enumerate(hashes)
    ]


def prepare(method: Method, points: Sequence[Inputs]) -> list[Prepared]:
    """Look through the inputs, once for all points whose settings differ in the scale alone."""
    if method.unit == "matrix":
        one_thread()
    found: dict[Settings, Prepared] = {}
    for inputs in points:
        settings = replace(inputs.settings, scale=1.0)
        if settings not in found:
            found[settings] = method.prepare(inputs)
    return [found[replace(inputs.settings, scale=1.0)] for inputs in points]


@np.errstate(over="ignore", invalid="ignore")  # the writer refuses what comes of it
def _fuse(name: str, targets: Sequence[Target]) -> list[Drift]:
    inputs = targets[0].inputs
    dtype, drifts = inputs.base.info(name).dtype, [Drift(len(inputs.models)) for _ in targets]
    settings = [target.inputs.settings_at(name) for target in targets]
    for piece in inputs.pieces(name):
        for target, own, drift in zip(targets, settings, drifts, strict=True):
            fused = target.prepared.fuse(piece.under(own))
            stored = _rounded(inputs, piece, fused.entries)
            target.writer.write(name, stored)
            drift.add(piece, widen(stored, dtype, piece.working), fused.kept)
    return drifts


def _rounded(inputs: Inputs, piece: Piece, entries: Array) -> Array:
    dtype = inputs.base.info(piece.tensor).dtype
    if not inputs.scattered:
        return narrow(entries, dtype)
    seed = inputs.context.stream_seed(f"rounding/{piece.tensor}")
    return scatter(entries, dtype, draws(seed, piece.first, entries.size))
