"""`tailor`: keep a sparse, decorated patch of fine-tuned checkpoints on their base."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

from mllmtool import __version__
from mllmtool.checkpoints import Checkpoint, CheckpointWriter, PatchBuilder, copy_sidecars
from mllmtool.checkpoints.moments import INDEX_NAME
from mllmtool.checkpoints.patch import PATCH_NAME
from mllmtool.checkpoints.states import drop_states
from mllmtool.configs.tailor import TailorConfig
from mllmtool.context import Context, is_main_process
from mllmtool.errors import NumericError
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made
from mllmtool.tailoring.calibration import Data
from mllmtool.tailoring.gather import gather, learn_tasks
from mllmtool.tailoring.job import Job, open_job
from mllmtool.tailoring.kept import Kept
from mllmtool.tailoring.learning import Learned
from mllmtool.tailoring.measures import (
    beside_wise,
    caveats,
    depth_profile,
    overlap_summary,
    part_summary,
)
from mllmtool.tailoring.memory import map_tensors
from mllmtool.tailoring.patching import Patched, tailored_maps, tuned_tensors
from mllmtool.tailoring.plots import draw
from mllmtool.tailoring.points import sweep_points
from mllmtool.tailoring.presets import choices_of
from mllmtool.tailoring.sites import find_units
from mllmtool.tailoring.stream import Step
from mllmtool.tailoring.workers import together

Row = dict[str, Any]
Work = tuple[Job, list[Learned], Kept]
Write = Callable[[Checkpoint, Path, Iterator[Patched], list[Artifact]], None]
COMMON = ("tensors", "entries", "depth")  # results that the points of a sweep share


@dataclass
class Found:
    """Rows of the report, and seconds spent, filled as tensors are written."""

    rows: list[Row] = field(default_factory=list)
    moments: float = 0.0
    solving: float = 0.0


def run(config: TailorConfig, context: Context, into: Path) -> Made:
    """Run the tuned models unit by unit, tailor what a unit holds, write.

    What became of a unit is kept, so that a killed run goes on from it.
    """
    folder = context.work or into
    map_tensors()
    with together():
        job = open_job(config, context)
        learned, inputs = learn_tasks(config, job), _inputs(config, job)
        kept = Kept(folder, job, _identity(config, context, inputs), config.resume == "auto")
        try:
            return _tailor(config, context, (job, learned, kept), into, inputs)
        except NumericError:  # its states lead to the same end
            drop_states(folder)
            raise


def _tailor(
    config: TailorConfig, context: Context, work: Work, into: Path, inputs: list[Artifact]
) -> Made:
    (job, learned, kept), found = work, Found()
    with closing(gather(config, work, inputs)) as steps:
        if config.sweep:
            return _sweep(config, context, work, steps, (into, inputs))
        write: Write = _write_patch if config.format == "patch" else _write_checkpoint
        if not is_main_process():
            write = _nowhere
        write(job.pre, into, _patches(config, context, work, steps, found), inputs)
    rows = sorted(found.rows, key=lambda row: str(row["tensors"][0]))
    results = _results(job, learned, rows)
    if is_main_process():
        draw(rows, into)
    for text in caveats(rows, results["depth"]):
        context.warn(text)
    seconds = {
        "moments_seconds": round(found.moments, 3),
        "solving_seconds": round(found.solving, 3),
    }
    return Made(inputs=inputs, results=results, run={**_run(kept), **seconds})


def plan(config: TailorConfig, context: Context) -> dict[str, Any]:
    """Check every input, load no model."""
    job = open_job(config, context)
    return {
        "preset": config.named_preset,
        "points": [name for name in config.points() if name],
        "choices": {**vars(choices_of(config)), "mask": config.mask.model_dump()},
        "calibration": [_described(task.data) for task in job.tasks if task.data],
        "anchor": job.anchor and _described(job.anchor),
        "tuned_tensors": len(job.tuned),
        "unchanged_tensors": len(job.pre.names) - len(job.tuned),
        "depth": depth_profile(job.pre.names, sorted(job.tuned)),
    }


def _sweep(
    config: TailorConfig,
    context: Context,
    work: Work,
    steps: Iterable[Step],
    target: tuple[Path, list[Artifact]],
) -> Made:
    """Write a patch for each point, in a folder of its name."""
    (job, learned, kept), (into, inputs) = work, target
    tracked = context.track(steps, "units", len(list(find_units(learned[0].skeleton.model))))
    *_, points = sweep_points(config, work, tracked)
    described = []
    for point in points:
        if is_main_process():
            point.write(into, (inputs[0].sha256, {**_origin(inputs), "point": point.name}))
        found = _results(job, learned, point.rows)
        own = {key: value for key, value in found.items() if key not in ("maps", *COMMON)}
        described.append({"patch": f"{point.name}/{PATCH_NAME}", **own})
    common = {key: found[key] for key in COMMON}
    for text in caveats(points[0].rows, found["depth"]):
        context.warn(text)
    return Made(inputs=inputs, results={**common, "points": described}, run=_run(kept))


def _patches(
    config: TailorConfig,
    context: Context,
    work: Work,
    steps: Iterable[Step],
    found: Found,
) -> Iterator[Patched]:
    """Tensors as they are stored."""
    job, learned, kept = work
    tuned = [task.checkpoint for task in job.tasks]
    number, clock = len(list(find_units(learned[0].skeleton.model))), time.monotonic()
    for step in context.track(kept.steps(steps), "units", number):
        solving = time.monotonic()
        step.finals = [{} for _ in tuned]
        made = tailored_maps(job.pre, tuned, step.maps, choices_of(config))
        for result in kept.results(made):
            found.rows.append(result.row)
            for known, own in zip(step.finals, result.finals, strict=True):
                known.update(own)
            yield from result.patched
        found.solving += time.monotonic() - solving
    found.moments = time.monotonic() - clock - found.solving
    for patched, row in tuned_tensors(job.pre, tuned, learned, choices_of(config)):
        found.rows.append(row)
        yield from patched


def _write_checkpoint(
    pre: Checkpoint, into: Path, patches: Iterator[Patched], _: list[Artifact]
) -> None:
    writer, left = CheckpointWriter(into, like=pre), set(pre.names)
    for patched in patches:
        writer.add(patched.name, patched.stored)
        left.discard(patched.name)
    for name in sorted(left):
        writer.add(name, pre[name])
    writer.finish()
    copy_sidecars(pre.folder, into)


def _nowhere(_: Checkpoint, __: Path, patches: Iterator[Patched], ___: list[Artifact]) -> None:
    """What a process does that only helps."""
    for _patched in patches:
        pass


def _write_patch(
    pre: Checkpoint, into: Path, patches: Iterator[Patched], inputs: list[Artifact]
) -> None:
    builder = PatchBuilder(pre)
    for patched in patches:
        builder.add(patched.name, patched.mask, patched.stored)
    builder.write(into / PATCH_NAME, inputs[0].sha256, _origin(inputs))


def _origin(inputs: list[Artifact]) -> dict[str, Any]:
    return {"command": "tailor", "inputs": [each.model_dump() for each in inputs]}


def _identity(config: TailorConfig, context: Context, inputs: Sequence[Artifact]) -> dict[str, Any]:
    """What a state must agree on to be gone on from."""
    hashes: dict[str, str] = {}
    for each in inputs:
        key = f"{each.role} sha256"
        hashes[key] = f"{hashes[key]} {each.sha256}" if key in hashes else each.sha256
    return {
        **config.model_dump(mode="json", exclude={"pre", "sft", "resume"}),
        "version": __version__,
        "seed": context.seed,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        **hashes,
    }


def _inputs(config: TailorConfig, job: Job) -> list[Artifact]:
    tuned = [task.checkpoint for task in job.tasks]
    files = [("calibration", task.data) for task in job.tasks if task.data]
    files += [("anchor", job.anchor)] if job.anchor else []
    kept = [] if config.moments is None else [Path(config.moments) / INDEX_NAME]
    return [
        Artifact(role="pre", path=str(job.pre.path), sha256=job.pre.fingerprint()),
        *(Artifact(role="sft", path=str(c.path), sha256=c.digest(c.names)) for c in tuned),
        *(Artifact(role="moments", path=str(p), sha256=file_sha256(p)) for p in kept),
        *(
            Artifact(role=r, path=str(d.file.path), sha256=file_sha256(d.file.path))
            for r, d in files
        ),
    ]


def _results(job: Job, learned: list[Learned], rows: list[Row]) -> dict[str, Any]:
    entries = sum(job.pre.info(name).size for name in job.tuned)
    changed = sum(row["changed"] for row in rows)
    written = {name for row in rows for name in row["tensors"]}
    tailored = {name for each in learned for site in each.sites for name in site.names}
    return {
        "tensors": {
            "all": len(job.pre.names),
            "unchanged": len(job.pre.names) - len(job.tuned),
            "tailored": len(tailored),
            "as_tuned": len(written - tailored),
            "reverted": len(job.tuned - written),
        },
        "entries": entries,
        "kept": sum(row["kept"] for row in rows),
        "changed": changed,
        "share": changed / entries,
        "patch_bytes": _patch_bytes(job, rows),
        "parts": part_summary(rows),
        "wise_ft": beside_wise(rows),
        "overlap": overlap_summary(rows) if len(job.tasks) > 1 else None,
        "depth": depth_profile(job.pre.names, sorted(job.tuned)),
        "maps": rows,
    }


def _patch_bytes(job: Job, rows: list[Row]) -> int:
    """What bitmaps and values take in a patch file."""
    total = 0
    for row in rows:
        infos = [job.pre.info(name) for name in row["tensors"]]
        total += row["kept"] * infos[0].num_bytes // max(infos[0].size, 1)
        total += sum(-(-info.size // 8) for info in infos)
    return total


def _run(kept: Kept) -> dict[str, Any]:
    peak = getrusage(RUSAGE_SELF).ru_maxrss * 1024
    return {"resumed_from": kept.resumed_from, "peak_memory_bytes": peak}


def _described(data: Data) -> dict[str, Any]:
    return {
        "samples": str(data.file.path),
        "images": str(data.file.root),
        "drawn": len(data.samples),
    }
