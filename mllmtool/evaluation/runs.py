"""Run checkpoints over a suite with one model in memory and every item encoded once."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mllmtool.checkpoints import Checkpoint
from mllmtool.context import Context
from mllmtool.data.suites import Task
from mllmtool.errors import DataError
from mllmtool.evaluation.inference import Reader
from mllmtool.evaluation.labelled import Labelled
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.questions import Group, encode, groups
from mllmtool.models.encoding import Encoder
from mllmtool.models.loading import disk_names, load_model


def run(
    checkpoints: Sequence[Labelled], tasks: Sequence[Task], batch: int, context: Context
) -> Iterator[tuple[str, dict[str, list[Prediction]]]]:
    """Yield each checkpoint's label with its predictions, by task, in the order of the items.

    The model is built once and weights are copied into it, where configs agree on what is computed.

    Raises:
        CheckpointError: a checkpoint cannot be loaded.
        DataError: an image is missing or broken, or a chat template refuses an item.
        NumericError: weights or logits are NaN or infinite.
    """
    encoded: dict[str, tuple[Encoder, list[Group]]] = {}
    model: nn.Module | None = None
    computation: Any = None
    for labelled in checkpoints:
        if model is None or labelled.computation != computation:
            model, computation = load_model(labelled.checkpoint.path), labelled.computation
        else:
            _swap(model, labelled.checkpoint)
        if labelled.encoding not in encoded:
            if encoded:
                context.warn(
                    f"{labelled.label}: its tokenizer or processor is not the base's;"
                    " it is evaluated with its own"
                )
            encoded[labelled.encoding] = _encode(labelled, tasks, batch, context)
        encoder, grouped = encoded[labelled.encoding]
        found: dict[str, dict[str, Prediction]] = {task.name: {} for task in tasks}
        for group in context.track(grouped, labelled.label):
            for question, prediction in Reader(model, encoder).answer(group):
                found[question.task][question.item] = prediction
        yield labelled.label, {t.name: [found[t.name][i.id] for i in t.items] for t in tasks}


def _encode(
    labelled: Labelled, tasks: Sequence[Task], batch: int, context: Context
) -> tuple[Encoder, list[Group]]:
    encoder = Encoder.load(labelled.checkpoint.path)
    encoded = context.track(tasks, f"encode for {labelled.label}")
    return encoder, groups((q for task in encoded for q in encode(task, encoder)), batch)


def _swap(model: nn.Module, checkpoint: Checkpoint) -> None:
    with torch.no_grad():
        state = model.state_dict()
        for memory, disk in disk_names(model, checkpoint).items():
            state[memory].copy_(checkpoint[disk])


def image_digests(task: Task) -> tuple[str, ...]:
    """For each item a hash of its images' bytes, in order; of its own name where it has none.

    Raises:
        DataError: an image is missing, unreadable or leads out of the image folder.
    """
    return tuple(_digest(task.images(item)) or f"{task.name}/{item.id}" for item in task.items)


def _digest(paths: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        try:
            whole.update(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return whole.hexdigest() if paths else ""
