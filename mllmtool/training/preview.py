"""What a dry run shows of the samples, and what the run would need."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from mllmtool.models.encoding import IGNORED
from mllmtool.training.job import Job
from mllmtool.training.keeping import needs_copy
from mllmtool.training.selection import trainable

SHOWN, BINS = 3, 10
ADAM = 8  # bytes of AdamW's two moments in float32, a weight that learns


def preview(job: Job) -> dict[str, Any]:
    """Lengths of the samples, what three of them teach, and needs of memory and disk in bytes."""
    encoder, examples = job.encoder, job.examples
    shown = {
        place: encoder.train_row(sample, examples.root)
        for place, sample in zip(examples.places[:SHOWN], examples.samples, strict=False)
    }
    return {
        "tokens": _spread([count.tokens for count in examples.counts]),
        "image_tokens": _spread([count.image_tokens for count in examples.counts]),
        "learnt_tokens": _spread([count.learnt_tokens for count in examples.counts]),
        "learnt_text": {
            place: encoder.tokenizer.decode(row.labels[row.labels != IGNORED])
            for place, row in shown.items()
        },
        "rows": {place: encoder.tokenizer.decode(row.ids) for place, row in shown.items()},
        "sources": list(examples.sources),
        "needs": needs(job),
    }


def needs(job: Job) -> dict[str, int]:
    """Bytes: what weights, gradients and optimizer hold; activations come on top."""
    learning = trainable(job.model).values()
    held = sum(p.numel() * p.element_size() for p in job.model.parameters())
    state = sum(p.numel() * (ADAM + p.element_size()) for p in learning)
    output = sum(job.base.info(name).num_bytes for name in job.base.names)
    every, states, saved = job.config.save_every, 3, 0  # the last two, and the one being written
    if every and job.config.save_checkpoints:
        states = saved = -(-job.length.steps // every)
    return {
        "memory_without_activations": held + state + _copies(job),
        "disk_output": output * (1 + saved),
        "disk_states": states * state if every else 0,
    }


def _copies(job: Job) -> int:
    """What `keep` holds of the base: the weights that learn, and a whole teacher."""
    keep, learning = job.config.keep, trainable(job.model)
    held = list(learning.values()) if keep and keep.l2 else []
    if keep and needs_copy(keep, learning):
        held += job.model.parameters()
    return sum(parameter.numel() * parameter.element_size() for parameter in held)


def _spread(counts: Sequence[int]) -> dict[str, Any]:
    """Least, middle and most, and how many fall into each of ten bins, by its first number."""
    width = -(-(1 + max(counts) - min(counts)) // BINS)
    number, edges = np.histogram(counts, np.arange(min(counts), max(counts) + 1 + width, width))
    return {
        "min": min(counts),
        "median": statistics.median(counts),
        "max": max(counts),
        "histogram": {str(edge): int(n) for edge, n in zip(edges, number, strict=False)},
    }
