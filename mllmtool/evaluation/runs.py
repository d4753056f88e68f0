"""Run checkpoints over a suite with one model in memory and every item encoded once.

The batches depend on the items and the batch size alone: not on what is predicted already, on how
many processes run, or on the checkpoint. So a run that was killed goes on to the same bits, and
what a batch does to rounding it does to all checkpoints alike.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing import parent_process
from typing import Any

import torch
from torch import nn

from mllmtool.checkpoints import Checkpoint
from mllmtool.context import Context
from mllmtool.data.suites import Task
from mllmtool.errors import DataError
from mllmtool.evaluation.checking import QUESTIONS, is_out_of_memory, misread
from mllmtool.evaluation.features import Features
from mllmtool.evaluation.inference import Reader
from mllmtool.evaluation.labelled import Labelled
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.questions import Group, Question, encode, groups
from mllmtool.evaluation.store import Store
from mllmtool.models.encoding import Encoder
from mllmtool.models.loading import disk_names, load_model
from mllmtool.models.parts import part_of
from mllmtool.reports import file_sha256

log = logging.getLogger(__name__)
CPU = torch.device("cpu")
Found = dict[str, list[Prediction]]  # by task, in the order of its items


@dataclass(frozen=True)
class Settings:
    """How many prompts a forward pass, where, in which precision, and who keeps the predictions.

    `halved` notes the batches that this process went down to as memory held no more.
    """

    store: Store
    batch: int
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    halved: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Plan:
    """Every item as an encoder has it; digests by task and item."""

    encoder: Encoder
    groups: tuple[Group, ...]
    digests: dict[tuple[str, str], str]


def run(
    checkpoints: Sequence[Labelled], tasks: Sequence[Task], settings: Settings, context: Context
) -> Iterator[tuple[str, Found]]:
    """Yield each checkpoint's label with its predictions.

    What is in the store is not predicted again, and other processes may help to fill it.

    Raises:
        CheckpointError: a checkpoint cannot be loaded.
        DataError: an image is missing or broken, or a chat template refuses an item.
        NumericError: weights or logits are NaN or infinite.
        OutputError: a prediction cannot be written.
    """
    runner = _Runner(checkpoints, tasks, settings, context)
    for wait in (False, True):  # first what nobody does, then what others did not finish
        for labelled in checkpoints:
            runner.answer(labelled, wait)
    for labelled in checkpoints:
        found = runner.found(labelled)
        whole = sum(one.read == "whole" for task in found.values() for one in task)
        if whole:
            context.warn(
                f"{labelled.label}: {whole} predictions are of whole forward passes, as reading"
                " once what prompts share did not give the same"
            )
        yield labelled.label, found


def assist(
    checkpoints: Sequence[Labelled], tasks: Sequence[Task], settings: Settings, context: Context
) -> None:
    """Help another process's `run`: predict what nobody else does.

    Raises:
        MllmtoolError: as `run`.
    """
    runner = _Runner(checkpoints, tasks, settings, context)
    for labelled in checkpoints:
        runner.answer(labelled, wait=False)


class _Runner:
    def __init__(
        self,
        checkpoints: Sequence[Labelled],
        tasks: Sequence[Task],
        settings: Settings,
        context: Context,
    ) -> None:
        self.checkpoints, self.tasks = checkpoints, tasks
        self.settings, self.store, self.context = settings, settings.store, context
        self.batch = settings.batch
        self._plans: dict[str, _Plan] = {}
        self._features: dict[str, Features] = {}
        self._model: nn.Module | None = None
        self._loaded: Labelled | None = None
        self._whole = False

    def answer(self, labelled: Labelled, wait: bool) -> None:
        """Predict what is not in the store; wait for what others are at, or leave it to them."""
        missing = [group for group in self._plan(labelled).groups if self._left(labelled, group)]
        for group in self.context.track(missing, labelled.label):
            if _orphaned():
                return
            first = next(group.questions)
            with self.store.claim(self._key(labelled, first), wait) as mine:
                if mine:
                    self._answer(labelled, self._left(labelled, group))

    def found(self, labelled: Labelled) -> Found:
        """What is in the store, in the order of the items."""
        found = {
            question.place: self.store[self._key(labelled, question)]
            for group in self._plan(labelled).groups
            for question in group.questions
        }
        return {
            task.name: [
                found[task.name, item.id].model_copy(update={"item": item.id})
                for item in task.items
            ]
            for task in self.tasks
        }

    def _answer(self, labelled: Labelled, left: Group | None) -> None:
        """Answer what is left of a group, in smaller ones where memory does not hold it."""
        reader = self._reader(labelled)
        pending = [left] if left else []
        while pending:
            if pending[0].size > self.batch:
                questions = [question for group in pending for question in group.questions]
                pending = groups(questions, self.batch)
            try:
                for question, prediction in reader.answer(pending[0]):
                    self.store.add(self._key(labelled, question), prediction)
                pending = pending[1:]
            except RuntimeError as error:
                self._halve(pending[0].size, error)
                pending = [rest for group in pending if (rest := self._left(labelled, group))]

    def _halve(self, size: int, error: RuntimeError) -> None:
        if not is_out_of_memory(error):
            raise error
        if size == 1:
            raise DataError("--batch: memory does not hold a single prompt") from error
        self.batch = size // 2
        self.settings.halved.append(self.batch)
        log.warning("out of memory with %d prompts a batch; going on with %d", size, self.batch)
        if self.settings.device.type == "cuda":
            torch.cuda.empty_cache()

    def _left(self, labelled: Labelled, group: Group) -> Group | None:
        """The batches not whole in the store; the prefixes stay, and with them the bits."""
        batches = tuple(
            batch
            for batch in group.batches
            if any(self._key(labelled, question) not in self.store for question in batch)
        )
        return replace(group, batches=batches) if batches else None

    def _key(self, labelled: Labelled, question: Question) -> str:
        """Hash of all that decides a prediction: never of a name, a path or a batch."""
        digest = self._plan(labelled).digests[question.place]
        return _sha256(f"{self._identities[labelled.label]} {self.settings.dtype} {digest}")

    @cached_property
    def _identities(self) -> dict[str, str]:
        """Hash of weights, config, tokenizer and processor, by label."""
        return {
            one.label: _sha256(
                f"{one.checkpoint.fingerprint()} {one.encoding} {_canonical(one.computation)}"
            )
            for one in self.checkpoints
        }

    @cached_property
    def _visions(self) -> dict[str, str]:
        """Hash of all that decides what is seen in a picture, by label."""
        found = {}
        for one in self.checkpoints:
            names = [name for name in one.checkpoint.names if part_of(name) != "language"]
            weights = one.checkpoint.digest(names)
            found[one.label] = _sha256(f"{weights} {one.encoding} {_canonical(one.computation)}")
        return found

    def _plan(self, labelled: Labelled) -> _Plan:
        if labelled.encoding not in self._plans:
            if self._plans:
                self.context.warn(
                    f"{labelled.label}: its tokenizer or processor is not the base's;"
                    " it is evaluated with its own"
                )
            self._plans[labelled.encoding] = self._encode(labelled)
        return self._plans[labelled.encoding]

    def _encode(self, labelled: Labelled) -> _Plan:
        encoder = Encoder.load(labelled.checkpoint.path)
        tasks = self.context.track(self.tasks, f"encode for {labelled.label}")
        questions = [question for task in tasks for question in encode(task, encoder)]
        paths = {path for question in questions for path in question.prompt.images}
        images = {path: file_sha256(path) for path in sorted(paths)}
        digests = {q.place: q.digest([images[path] for path in q.prompt.images]) for q in questions}
        return _Plan(encoder, tuple(groups(questions, self.settings.batch)), digests)

    def _reader(self, labelled: Labelled) -> Reader:
        plan = self._plan(labelled)
        model, is_new = self._load(labelled)
        reader = Reader(model, plan.encoder, self._remembered(labelled))
        if is_new:
            self._whole = self._check(reader, plan)
        return replace(reader, whole=self._whole)

    def _load(self, labelled: Labelled) -> tuple[nn.Module, bool]:
        """The model with a checkpoint's weights, and whether it was built anew."""
        loaded, self._loaded = self._loaded, labelled
        if self._model and loaded and loaded.computation == labelled.computation:
            _swap(self._model, loaded.checkpoint, labelled.checkpoint)
            return self._model, False
        self._model = None  # one in memory, never two
        model = load_model(labelled.checkpoint.path, self.settings.dtype)
        self._model = model.to(self.settings.device)
        return self._model, True

    def _remembered(self, labelled: Labelled) -> Features | None:
        """What was seen in pictures, where a further checkpoint sees the same."""
        vision = self._visions[labelled.label]
        if Counter(self._visions.values())[vision] == 1:
            return None
        return self._features.setdefault(vision, Features())

    def _check(self, reader: Reader, plan: _Plan) -> bool:
        """Whether questions must be read whole, as sharing does not give the same."""
        questions = [question for group in plan.groups for question in group.questions]
        problem = None
        while problem is None:
            try:
                problem = misread(reader, questions, self.batch)
            except RuntimeError as error:
                self._halve(min(self.batch, QUESTIONS), error)
        if problem:
            log.warning("the fast way of reading is not used: %s", problem)
        return problem != ""


def _swap(model: nn.Module, loaded: Checkpoint, checkpoint: Checkpoint) -> None:
    """Copy what differs from what is loaded."""
    with torch.no_grad():
        state = model.state_dict()
        for memory, disk in disk_names(model, checkpoint).items():
            if disk not in loaded or loaded.blake3(disk) != checkpoint.blake3(disk):
                state[memory].copy_(checkpoint[disk])


def _orphaned() -> bool:
    """Whether the process that started this one is gone."""
    parent = parent_process()
    return parent is not None and not parent.is_alive()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
