"""`finetune`: train chosen parts of a checkpoint, and prove what moved."""

import logging
import resource
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mllmtool.checkpoints import Checkpoint
from mllmtool.checkpoints.difference import Difference
from mllmtool.checkpoints.states import drop_states, latest_state, whole_states
from mllmtool.configs.base import PARTS, Part
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.context import Context, is_main_process
from mllmtool.errors import NumericError, OutputError
from mllmtool.evaluation.probing import SuiteProbe
from mllmtool.models.parts import part_of
from mllmtool.reports import Artifact
from mllmtool.runner import Made
from mllmtool.training.adapters import merge_adapters, save_adapters
from mllmtool.training.callbacks import tensorboard
from mllmtool.training.card import write_card
from mllmtool.training.job import Job, load_again, prepare
from mllmtool.training.outcome import merge_checked, moved_by_part, write_tuned
from mllmtool.training.plots import draw_curves
from mllmtool.training.preview import needs, preview
from mllmtool.training.selection import trainable
from mllmtool.training.trainer import PartsTrainer, restore

log = logging.getLogger(__name__)


def run(config: FinetuneConfig, context: Context, into: Path) -> Made:
    """Train, write the whole checkpoint, measure it against the base on disk."""
    job = prepare(config, context)
    _check_room(job, into)
    table = _part_table(job)
    trainer, pace = _train(job, context, into)
    sums, tokens = trainer.summed(trainer.ledger.sums), trainer.summed(trainer.ledger.tokens)
    noted = trainer.keeper.describe(trainer.summed(trainer.keeper.noted)) if trainer.keeper else {}
    job = replace(job, model=trainer.leave())
    if not is_main_process():
        return Made([], {}, {})
    merged = _write(job, into)
    _write_saved(job, context, into)
    parts = _with_drift(table, job, Checkpoint.open(into))
    curve = _curve(trainer.state.log_history)
    draw_curves(curve["curve"], trainer.prober.points, into / "curves.png")
    for part, row in parts.items():
        if row["trainable"] and row["equal_to_base"]:
            context.warn(
                f"--train {part}: none of its weights moved on disk; the model does not use what"
                " learns there, or --lr is below its dtype's rounding"
            )
    write_card(config, context.seed, parts, trainer.prober.stopped_at, into)
    results = {
        "parts": parts,
        **_length(job),
        "dropped": list(job.examples.dropped),
        "loss": curve,
        "loss_by_source": trainer.ledger.means(sums),
        "keep": noted,
        "probe": trainer.prober.points,
        "stopped_at": trainer.prober.stopped_at,
        "steps_done": trainer.state.global_step,
        "merge_changed_logits_by": merged,
    }
    seen, learnt = tokens.tolist()
    return Made(_inputs(job), results, {**pace, "tokens": int(seen), "learnt_tokens": int(learnt)})


def plan(config: FinetuneConfig, context: Context) -> dict[str, Any]:
    """Check every input and say what would be trained."""
    job = prepare(config, context)
    if config.probe:
        SuiteProbe(config.probe, job.encoder, context)
    return {
        "parts": _part_table(job),
        "lora_targets": [name for names in job.selection.targets.values() for name in names],
        **_length(job),
        "dropped": list(job.examples.dropped),
        **preview(job),
    }


def _check_room(job: Job, into: Path) -> None:
    """Refuse to begin what the disk cannot hold in the end.

    Raises:
        OutputError: it has too little room.
    """
    needed = needs(job)
    disk, free = needed["disk_output"] + needed["disk_states"], shutil.disk_usage(into).free
    if disk > free:
        raise OutputError(
            f"{into.parent}: the checkpoint and its states need {disk:,} bytes, and {free:,} are"
            " free; choose another --out, or leave --save-every out"
        )


def _train(job: Job, context: Context, into: Path) -> tuple[PartsTrainer, dict[str, Any]]:
    """Train from the start, or go on from where a kill left off; and how fast it went."""
    states, state = context.work or into, None
    if job.config.resume == "auto":
        state = latest_state(states, job.identity)
    elif is_main_process():
        drop_states(states)
    if state is not None:
        log.info("going on from %s", state)
    probe = job.config.probe
    measure = SuiteProbe(probe, job.encoder, context) if probe and is_main_process() else None
    trainer = PartsTrainer(job, context, states if job.config.save_every else into, measure)
    if job.config.tensorboard and is_main_process():
        trainer.add_callback(tensorboard(into / "tensorboard"))
    started = time.monotonic()
    try:
        trainer.go_on(state)
    except NumericError:  # its states lead to the same end
        drop_states(states)
        raise
    return trainer, {
        "train_seconds": round(time.monotonic() - started, 3),
        "resumed_from": state.name if state else None,
        "processes": job.length.processes,
        "device": str(trainer.args.device),
        "torch": torch.__version__,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated(),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _write(job: Job, into: Path) -> float | None:
    """The checkpoint and its adapters; how far merging those changed logits."""
    changed, targets = None, job.selection.targets
    if targets:
        save_adapters(job.model, targets, job.config, into)
        batch = job.stream.batch([0], job.encoder)
        del batch["labels"]
        changed = merge_checked(job.model, batch)
    write_tuned(job.model, job.names, job.base, job.moving, into)
    return None if changed is None else float(f"{changed:.1g}")


def _write_saved(job: Job, context: Context, into: Path) -> None:
    """Every state as a checkpoint of its own, if the config wants that."""
    if not job.config.save_checkpoints:
        return
    for state in whole_states(context.work or into, job.identity):
        model = load_again(job, context)
        restore(model, state)
        merge_adapters(model)
        folder = into / "saved" / state.name
        folder.mkdir(parents=True)
        write_tuned(model, job.names, job.base, job.moving, folder)


def _inputs(job: Job) -> list[Artifact]:
    config, hashes = job.config, job.identity
    files = {"base": config.model, "samples": config.samples}
    if config.keep and config.keep.samples:
        files["keep samples"] = config.keep.samples
    if config.probe:
        files["probe suite"] = config.probe.suite
    return [
        Artifact(role=role, path=path, sha256=hashes[f"{role} sha256"])
        for role, path in files.items()
    ]


def _part_table(job: Job) -> dict[Part, dict[str, Any]]:
    """Of each part: how it is trained, its weights on disk, those that learn (or of adapters)."""
    weights, tensors, moving = Counter[Part](), Counter[Part](), Counter[Part]()
    for name in job.base.names:
        part = part_of(name)
        weights[part] += job.base.info(name).size
        tensors[part] += 1
        moving[part] += name in job.moving
    learning = Counter[Part]()
    for name, parameter in trainable(job.model).items():
        learning[part_of(name)] += parameter.numel()
    train = job.config.model_dump(mode="json", exclude_none=True)["train"]
    return {
        part: {
            "how": train.get(part, "frozen"),
            "lr": job.config.rate(part) if moving[part] else None,
            "weights": weights[part],
            "trainable": learning[part],
            "tensors": tensors[part],
            "tensors_learning": moving[part],
            "lora_targets": len(job.selection.targets.get(part, [])),
        }
        for part in PARTS
        if part in weights
    }


def _with_drift(
    table: dict[Part, dict[str, Any]], job: Job, tuned: Checkpoint
) -> dict[Part, dict[str, Any]]:
    """Add how far each part went, read from disk; frozen tensors were found equal there."""
    moved = moved_by_part(job.base, tuned, job.moving)
    return {
        part: {
            **row,
            "frozen_tensors_equal_to_base": moved[part].frozen,
            "equal_to_base": not moved[part].drift.changed,
            "drift": _drift(moved[part].drift),
        }
        for part, row in table.items()
    }


def _drift(difference: Difference) -> dict[str, Any]:
    return {key: value for key, value in difference.describe().items() if key != "entries"}


def _length(job: Job) -> dict[str, Any]:
    samples, steps = len(job.examples.samples), job.length.steps
    return {"samples": samples, "steps": steps, "epochs": steps * job.config.batch / samples}


def _curve(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The logged losses, each the mean since the one before, and learning rates."""
    keys = ("step", "loss", "learning_rate")
    points = [{key: row[key] for key in keys} for row in history if "loss" in row]
    return {"first": points[0]["loss"], "last": points[-1]["loss"], "curve": points}
