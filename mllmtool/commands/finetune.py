"""`finetune`: train chosen parts of a checkpoint, and prove what moved."""

import logging
import resource
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mllmtool.checkpoints import Checkpoint
from mllmtool.checkpoints.difference import Difference
from mllmtool.configs.base import PARTS, Part
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.context import Context, is_main_process
from mllmtool.models.encoding import IGNORED, Row
from mllmtool.models.parts import part_of
from mllmtool.reports import Artifact
from mllmtool.runner import Made
from mllmtool.training.job import Job, prepare
from mllmtool.training.outcome import drift_by_part, write_tuned
from mllmtool.training.selection import merge_adapters, trainable
from mllmtool.training.states import drop_states, latest_state
from mllmtool.training.trainer import PartsTrainer

log = logging.getLogger(__name__)


def run(config: FinetuneConfig, context: Context, into: Path) -> Made:
    """Train, write the whole checkpoint, measure it against the base on disk."""
    job = prepare(config, context)
    table = _part_table(job)
    trainer, pace = _train(job, context, into)
    sums, tokens = trainer.totals()
    trainer.leave()
    if not is_main_process():
        return Made([], {}, {})
    merge_adapters(job.model)
    write_tuned(job.model, job.names, job.base, job.frozen, into)
    inputs = [
        Artifact(role="base", path=config.model, sha256=job.identity["base sha256"]),
        Artifact(role="samples", path=config.samples, sha256=job.identity["samples sha256"]),
    ]
    results = {
        "parts": _with_drift(table, job.base, Checkpoint.open(into)),
        **_length(job),
        "loss": _curve(trainer.state.log_history),
        "loss_by_source": trainer.ledger.means(sums),
    }
    seen, learnt = tokens.tolist()
    return Made(inputs, results, {**pace, "tokens": int(seen), "learnt_tokens": int(learnt)})


def plan(config: FinetuneConfig, context: Context) -> dict[str, Any]:
    """Check every input and say what would be trained."""
    job = prepare(config, context)
    encoder, examples = job.encoder, job.examples
    rows = [encoder.train_row(sample, examples.root) for sample in examples.samples]
    learnt = [row.labels[row.labels != IGNORED] for row in rows]
    return {
        "parts": _part_table(job),
        "lora_targets": [name for names in job.targets.values() for name in names],
        **_length(job),
        "tokens": _spread([len(row.ids) for row in rows]),
        "image_tokens": _spread([_num_image_tokens(row, encoder.image_token_id) for row in rows]),
        "learnt_tokens": _spread([len(ids) for ids in learnt]),
        "learnt_text": {
            place: encoder.tokenizer.decode(ids)
            for place, ids in zip(examples.places[:3], learnt[:3], strict=True)
        },
        "sources": list(examples.sources),
    }


def _train(job: Job, context: Context, into: Path) -> tuple[PartsTrainer, dict[str, Any]]:
    """Train from the start, or go on from where a kill left off; and how fast it went."""
    states, state = context.work or into, None
    if job.config.resume == "auto":
        state = latest_state(states, job.identity)
    elif is_main_process():
        drop_states(states)
    if state is not None:
        log.info("going on from %s", state)
    trainer = PartsTrainer(job, context, states if job.config.save_every else into)
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(state) if state else None)
    return trainer, {
        "train_seconds": round(time.monotonic() - started, 3),
        "resumed_from": state.name if state else None,
        "processes": job.length.processes,
        "device": str(trainer.args.device),
        "torch": torch.__version__,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _part_table(job: Job) -> dict[Part, dict[str, Any]]:
    """Of each part: how it is trained, its weights on disk, those that learn (or of adapters)."""
    weights: Counter[Part] = Counter()
    for name in job.base.names:
        weights[part_of(name)] += job.base.info(name).size
    learning: Counter[Part] = Counter()
    for name, parameter in trainable(job.model).items():
        learning[part_of(name)] += parameter.numel()
    train = job.config.model_dump(mode="json")["train"]
    return {
        part: {
            "how": train.get(part, "frozen"),
            "weights": weights[part],
            "trainable": learning[part],
            "lora_targets": len(job.targets.get(part, [])),
        }
        for part in PARTS
        if part in weights
    }


def _with_drift(
    table: dict[Part, dict[str, Any]], base: Checkpoint, tuned: Checkpoint
) -> dict[Part, dict[str, Any]]:
    """Add how far each part went; one that is frozen must be equal, and is looked at on disk."""
    drifts = drift_by_part(base, tuned)
    return {
        part: {**row, "equal_to_base": not drifts[part].changed, "drift": _drift(drifts[part])}
        for part, row in table.items()
    }


def _drift(difference: Difference) -> dict[str, Any]:
    return {key: value for key, value in difference.describe().items() if key != "entries"}


def _length(job: Job) -> dict[str, Any]:
    samples, steps = len(job.examples.samples), job.length.steps
    return {"samples": samples, "steps": steps, "epochs": steps * job.config.batch / samples}


def _curve(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The logged losses, each the mean since the one before."""
    points = [{"step": row["step"], "loss": row["loss"]} for row in history if "loss" in row]
    return {"first": points[0]["loss"], "last": points[-1]["loss"], "curve": points}


def _spread(counts: Sequence[int]) -> dict[str, float]:
    return {"min": min(counts), "median": statistics.median(counts), "max": max(counts)}


def _num_image_tokens(row: Row, image_token_id: int | None) -> int:
    return 0 if image_token_id is None else int((row.ids == image_token_id).sum())
