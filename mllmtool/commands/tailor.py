"""`tailor`: keep a sparse, decorated patch of fine-tuned checkpoints on their base."""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mllmtool.checkpoints import Checkpoint, CheckpointWriter, PatchBuilder, copy_sidecars
from mllmtool.checkpoints.patch import PATCH_NAME
from mllmtool.configs.tailor import TailorConfig
from mllmtool.context import Context
from mllmtool.models.encoding import Encoder
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made
from mllmtool.tailoring.calibration import batches
from mllmtool.tailoring.capture import Batch
from mllmtool.tailoring.job import Data, Job, Task, open_job
from mllmtool.tailoring.learning import Learned, learn
from mllmtool.tailoring.measures import caveats, depth_profile, part_summary
from mllmtool.tailoring.patching import Patched, map_names, tailored_maps, tuned_tensors
from mllmtool.tailoring.presets import choices_of, treatment_of

Row = dict[str, Any]


def run(config: TailorConfig, context: Context, into: Path) -> Made:
    """Record moments, tailor map by map, write."""
    job = open_job(config, context)
    started = time.monotonic()
    learned = [_learn(config, context, job, task) for task in job.tasks]
    recorded = time.monotonic()
    rows: list[Row] = []
    inputs = _inputs(job)
    write = _write_patch if config.format == "patch" else _write_checkpoint
    write(job.pre, into, _patches(config, context, job, learned, rows), inputs)
    seconds = {
        "moments_seconds": round(recorded - started, 3),
        "solving_seconds": round(time.monotonic() - recorded, 3),
    }
    results = _results(job, learned, rows)
    for text in caveats(rows, results["depth"]):
        context.warn(text)
    return Made(inputs=inputs, results=results, run=seconds)


def plan(config: TailorConfig, context: Context) -> dict[str, Any]:
    """Check every input, load no model."""
    job = open_job(config, context)
    return {
        "preset": config.named_preset,
        "choices": {**vars(choices_of(config)), "mask": config.mask.model_dump()},
        "calibration": [_described(task.data) for task in job.tasks],
        "anchor": job.anchor and _described(job.anchor),
        "tuned_tensors": len(job.tuned),
        "unchanged_tensors": len(job.pre.names) - len(job.tuned),
        "depth": depth_profile(job.pre.names, sorted(job.tuned)),
    }


def _learn(config: TailorConfig, context: Context, job: Job, task: Task) -> Learned:
    path = task.checkpoint.path
    encoder = Encoder.load(path)

    def passes(data: Data | None, label: str) -> Iterable[Batch]:
        if data is None:
            return ()
        made = batches(encoder, data.samples, data.file.root, config.batch)
        return context.track(made, label, -(-len(data.samples) // config.batch))

    treat = partial(treatment_of, config)
    return learn(path, task.tuned, treat, passes(task.data, "task"), passes(job.anchor, "anchor"))


def _patches(
    config: TailorConfig, context: Context, job: Job, learned: list[Learned], rows: list[Row]
) -> Iterator[Patched]:
    """Tensors as they are stored; `rows` gets a row of the report for each map."""
    tuned = [task.checkpoint for task in job.tasks]
    maps = tailored_maps(job.pre, tuned, learned, choices_of(config))
    for patched, row in context.track(maps, "tailoring", len(map_names(learned))):
        rows.append(row)
        yield from patched
    for patched, row in tuned_tensors(job.pre, tuned, learned):
        rows.append(row)
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
    copy_sidecars(pre.path, into)


def _write_patch(
    pre: Checkpoint, into: Path, patches: Iterator[Patched], inputs: list[Artifact]
) -> None:
    builder = PatchBuilder(pre)
    for patched in patches:
        builder.add(patched.name, patched.mask, patched.stored)
    origin = {"command": "tailor", "inputs": [each.model_dump() for each in inputs]}
    builder.write(into / PATCH_NAME, inputs[0].sha256, origin)


def _inputs(job: Job) -> list[Artifact]:
    checkpoints = [("pre", job.pre), *(("sft", task.checkpoint) for task in job.tasks)]
    files = [("calibration", task.data) for task in job.tasks]
    files += [("anchor", job.anchor)] if job.anchor else []
    return [
        *(Artifact(role=r, path=str(c.path), sha256=c.fingerprint()) for r, c in checkpoints),
        *(
            Artifact(role=r, path=str(d.file.path), sha256=file_sha256(d.file.path))
            for r, d in files
        ),
    ]


def _results(job: Job, learned: list[Learned], rows: list[Row]) -> dict[str, Any]:
    entries = sum(job.pre.info(name).size for name in job.tuned)
    changed = sum(row["changed"] for row in rows)
    written = {name for row in rows for name in row["tensors"]}
    tailored = {name for each in learned for found in each.maps.values() for name in found.names}
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
        "parts": part_summary(rows),
        "depth": depth_profile(job.pre.names, sorted(job.tuned)),
        "maps": rows,
    }


def _described(data: Data) -> dict[str, Any]:
    return {
        "samples": str(data.file.path),
        "images": str(data.file.root),
        "drawn": len(data.samples),
    }
