"""`fuse`: tuned checkpoints of one base as one, tensor by tensor, complete or an error."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllmtool import __version__
from mllmtool.checkpoints import Checkpoint, CheckpointWriter, check_aligned, copy_sidecars
from mllmtool.checkpoints.adapter import AdaptedCheckpoint, is_adapter
from mllmtool.checkpoints.align import lined_up
from mllmtool.checkpoints.moments import INDEX_NAME
from mllmtool.checkpoints.writer import sharded
from mllmtool.configs.base import PARTS
from mllmtool.configs.eval_matrix import as_share
from mllmtool.configs.fuse import FuseConfig, num_bytes
from mllmtool.context import Context
from mllmtool.errors import ConfigError, OutputError
from mllmtool.fusion import (
    Drift,
    Inputs,
    Journal,
    PatchedBase,
    Target,
    check_integers,
    check_shares,
    described,
    fuse,
    method_of,
    prepare,
    settings_for,
    stamps,
    total,
)
from mllmtool.fusion.method import Method
from mllmtool.fusion.needs import check_disk, memory, seconds, within
from mllmtool.fusion.places import by_block, by_module
from mllmtool.fusion.scope import chosen, factors, weights
from mllmtool.fusion.statistics import Moments, open_diagonal
from mllmtool.models.parts import part_of
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made

DTYPE_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
DENSE = 0.5  # a tailored checkpoint differs from its base in a smaller share of its entries


def run(config: FuseConfig, context: Context, into: Path) -> Made:
    """Write the fused checkpoint; what `--parts` leaves out is the base's, byte for byte.

    A sweep writes one for each of its points, in a folder of its name.
    """
    points = config.points()
    opened = _open_points(points, context)
    base = opened[0].base
    _check_suite(config, context)
    with Journal((context.work or into) / "fused", _identity(config, context)) as journal:
        if not journal.done:
            check_disk(into, len(points) * _size(base))
        prepared = prepare(method_of(config), opened)
        targets = [
            Target(inputs, ready, _writer(config, base, journal.folder / name))
            for name, inputs, ready in zip(points, opened, prepared, strict=True)
        ]
        made = fuse(targets, journal)
        journal.close()
    _move(journal.folder, into)
    results = [
        _results(config, target, fused.drifts, into / name)
        for name, target, fused in zip(points, targets, made, strict=True)
    ]
    if config.method == "tailor":
        _warn_of_dense(made[0].drifts, config, context)
    whole = Made(
        inputs=_artifacts(config, opened[0]),
        results={"points": _named(points, results)} if config.sweep else results[0],
        run={"resumed_tensors": len(journal.done)},
        hashes={
            str(Path(name) / file): sha256
            for name, fused in zip(points, made, strict=True)
            for file, sha256 in fused.hashes.items()
        },
    )
    return _selected(config, context, into, whole) if config.select is not None else whole


def _selected(config: FuseConfig, context: Context, into: Path, whole: Made) -> Made:
    """Keep of a sweep what the suite chooses, in the place of all."""
    from mllmtool.evaluation.choosing import choose, halves  # imports torch

    points = {row["checkpoint"]: row for row in whole.results["points"]}
    folders = {name: into / name for name in points}
    suites = halves(str(config.select), context)
    choice = choose(suites, config.base, folders, as_share(config.max_loss), context)
    for name, folder in folders.items():
        if name == choice.label:
            for path in folder.iterdir():
                path.rename(into / path.name)
        shutil.rmtree(folder)
    within = f"{choice.label}/"
    return replace(
        whole,
        inputs=[*whole.inputs, *choice.inputs],
        results={**points[choice.label], "select": choice.said},
        hashes={
            path.removeprefix(within): sha256
            for path, sha256 in whole.hashes.items()
            if path.startswith(within)
        },
    )


def plan(config: FuseConfig, context: Context) -> dict[str, Any]:
    """Check all that headers and integer tensors tell, and say what would be done."""
    points = config.points()
    inputs, *_ = opened = _open_points(points, context)
    base, method = inputs.base, method_of(config)
    size = len(points) * _size(base)
    _check_suite(config, context)
    if context.work is not None:
        check_disk(next(folder for folder in context.work.parents if folder.exists()), size)
    return {
        "method": _method(config, inputs),
        "points": [name for name in points if name],
        "fused": _by_part(base, inputs.names),
        "unchanged": _by_part(base, _copied(inputs)),
        "files": sorted(set(_files(config, base).values())),
        "bytes_to_write": size,
        "memory": memory(inputs),
        "workers": inputs.workers,
        "seconds": round(sum(seconds(each, method) for each in opened), 1),
    }


def _check_suite(config: FuseConfig, context: Context) -> None:
    """What is wrong with the suite is told before any work."""
    if config.select is not None:
        from mllmtool.evaluation.choosing import halves  # imports torch

        halves(config.select, context)


def _identity(config: FuseConfig, context: Context) -> dict[str, Any]:
    """What a run must agree on with one that was killed to go on from it."""
    read = (config.base, *config.model, *config.fisher, *config.moments)
    return {
        "config": config.model_dump(mode="json", exclude={"workers", "max_ram"}),
        "seed": context.seed,
        "version": __version__,
        "inputs": stamps(read),
    }


def _move(folder: Path, into: Path) -> None:
    for path in folder.iterdir():
        path.rename(into / path.name)
    folder.rmdir()


def _results(
    config: FuseConfig, target: Target, drifts: Mapping[str, Drift], into: Path
) -> dict[str, Any]:
    """Put beside the weights what else belongs there, and say what was found."""
    inputs = target.inputs
    copied = _copied(inputs)
    copy_sidecars(inputs.base.path, into)
    _draw(drifts, into)
    return {
        "method": {**_method(config, inputs), **target.prepared.findings},
        "unchanged": {**_by_part(inputs.base, copied), **_proof(inputs.base, into, copied)},
        "parts": _drift_by_part(drifts),
        "blocks": by_block(drifts, total, part_of),
        "tensors": {name: drift.describe() for name, drift in drifts.items()},
    }


def _named(points: Iterable[str], results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"checkpoint": name, **each} for name, each in zip(points, results, strict=True)]


def _writer(config: FuseConfig, base: Checkpoint, into: Path) -> CheckpointWriter:
    into.mkdir(exist_ok=True)
    return CheckpointWriter(into, base, _files(config, base))


def _open_points(points: Mapping[str, FuseConfig], context: Context) -> list[Inputs]:
    """The inputs, with the settings of each point; they are opened once."""
    first, *others = points.values()
    opened = [_open(first, context)]
    for config in others:
        opened.append(replace(opened[0], settings=settings_for(config)))
        _check_factors(opened[-1], method_of(config), config)
    return opened


def _files(config: FuseConfig, base: Checkpoint) -> Mapping[str, str]:
    return sharded(base, num_bytes(config.shard_size)) if config.shard_size else base.files


def _size(base: Checkpoint) -> int:
    return sum(base.info(name).num_bytes for name in base.names)


def _open(config: FuseConfig, context: Context) -> Inputs:
    settings, method = settings_for(config), method_of(config)
    base = Checkpoint.open(config.base)
    if config.check_class:
        _check_class(base)
    names = chosen(base, part_of, config)
    floating = tuple(name for name in names if base.info(name).floating)
    _check_dtype(base, floating, config)
    models = tuple(_open_model(path, base, names, config.allow_extra) for path in config.model)
    inputs = Inputs(
        *(base, models, floating, settings, context, method.unit, config.workers),
        narrow=config.compat is not None,
        scattered=config.rounding == "stochastic",
        factors=factors(base, floating, part_of, config),
        weights=weights(base, floating, part_of, config),
        diagonals=tuple(open_diagonal(path, base, floating) for path in config.fisher),
        moments=Moments(config.moments),
    )
    _check_factors(inputs, method, config)
    inputs = within(inputs, num_bytes(config.max_ram) if config.max_ram else None)
    check_integers(inputs, sorted(set(names) - set(floating)))
    return inputs


def _check_class(base: Checkpoint) -> None:
    """What is written has the names and shapes of the base: `_proof` sees to that."""
    from mllmtool.models.skeleton import Skeleton  # imports transformers

    Skeleton(base)


def _check_dtype(base: Checkpoint, names: Sequence[str], config: FuseConfig) -> None:
    if config.dtype is None:
        return
    for name in names:
        if base.info(name).dtype != DTYPE_NAMES[config.dtype]:
            raise ConfigError(
                f"--dtype: {config.dtype} asked for, {name} is {base.info(name).dtype} in"
                f" {base.path}, and is written so"
            )


def _check_factors(inputs: Inputs, method: Method, config: FuseConfig) -> None:
    if config.scale_by and "scale" not in method.reads:
        raise ConfigError(f"--scale-by: {config.method} does not read --scale")
    wrong = [w for name in inputs.factors if (w := method.check(inputs.settings_at(name)))]
    if wrong:
        raise ConfigError(f"{wrong[0]} for {config.method}, by --scale-by")
    for name in inputs.weights:
        check_shares(config, inputs.settings_at(name), f" at {name}")


def _open_model(
    path: str, base: Checkpoint, names: Sequence[str], allow_extra: bool
) -> Checkpoint | PatchedBase:
    if Path(path).is_file():
        return PatchedBase(base, path)
    if is_adapter(path):
        return AdaptedCheckpoint(base, path)
    return lined_up(base, Checkpoint.open(path), names, allow_extra)


def _copied(inputs: Inputs) -> list[str]:
    return sorted(set(inputs.base.names) - set(inputs.names))


def _proof(base: Checkpoint, into: Path, copied: Sequence[str]) -> dict[str, str]:
    """Read the output back: every tensor is there, and the copies have the base's bytes."""
    fused = Checkpoint.open(into)
    check_aligned(base, [fused])
    expected, found = base.digest(copied), fused.digest(copied)
    if found != expected:
        raise OutputError(f"{into}: does not hold what was copied from {base.path}; check the disk")
    return {"sha256_base": expected, "sha256_fused": found}


def _artifacts(config: FuseConfig, inputs: Inputs) -> list[Artifact]:
    models = [
        Artifact(role=_role(path), path=path, sha256=sha256)
        for path, sha256 in zip(config.model, inputs.fingerprints, strict=True)
    ]
    base = Artifact(role="base", path=config.base, sha256=inputs.base.fingerprint())
    diagonals = [
        Artifact(role="fisher", path=path, sha256=file_sha256(Path(path))) for path in config.fisher
    ]
    moments = [
        Artifact(role="moments", path=path, sha256=file_sha256(Path(path) / INDEX_NAME))
        for path in config.moments
    ]
    return [base, *models, *diagonals, *moments]


def _role(path: str) -> str:
    if Path(path).is_file():
        return "patch"
    return "adapter" if is_adapter(path) else "model"


def _method(config: FuseConfig, inputs: Inputs) -> dict[str, Any]:
    row = method_of(config)
    said = {"name": config.method, "paper": row.paper, "defaults": row.defaults}
    return {**said, **described(config, inputs.settings)}


def _by_part(base: Checkpoint, names: Sequence[str]) -> dict[str, Any]:
    parts = [part_of(name) for name in names]
    return {
        "tensors": {part: parts.count(part) for part in PARTS},
        "bytes": sum(base.info(name).num_bytes for name in names),
    }


def _drift_by_part(drifts: Mapping[str, Drift]) -> dict[str, Any]:
    members = {
        part: [drift for name, drift in drifts.items() if part_of(name) == part] for part in PARTS
    }
    return {part: total(found).describe() for part, found in members.items() if found}


def _draw(drifts: Mapping[str, Drift], into: Path) -> None:
    from mllmtool.fusion.plots import HEAT_MAP_NAME, draw_heat_map  # slow to import

    draw_heat_map(by_module(drifts, total), into / HEAT_MAP_NAME)


def _warn_of_dense(drifts: Mapping[str, Drift], config: FuseConfig, context: Context) -> None:
    kept = total(list(drifts.values())).describe()["kept"]
    for path, share in zip(config.model, kept, strict=True):
        if share > DENSE:
            context.warn(
                f"{path}: differs from the base in {share:.0%} of its entries; method tailor is for"
                " tailored checkpoints, which differ in few"
            )
