"""Items as tokens, and in which batches a model answers them.

Both depend on the suite and the tokenizer alone, so that they are made once for all checkpoints.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from mllmtool.data.items import Item
from mllmtool.data.suites import Task
from mllmtool.models.encoding import IGNORED, Encoder, Row

T = TypeVar("T")
Prefix = tuple[tuple[Path, ...], tuple[int, ...]]  # images, and token ids up to the last
TAIL = 6  # the prompt's last tokens that decide how an answer's first are cut


@dataclass(frozen=True)
class Question:
    """An encoded item.

    `head` is the number of the prompt's tokens up to its last image. `continuations` are each
    option's scored tokens; they follow all of the prompt but its last `merged` tokens, which an
    answer changes.
    """

    task: str
    item: str
    prompt: Row
    head: int
    merged: int
    continuations: tuple[Tensor, ...]
    max_new_tokens: int

    @property
    def place(self) -> tuple[str, str]:
        """Task and item."""
        return self.task, self.item

    def digest(self, images: Sequence[str]) -> str:
        """Hash of all that decides its answer but the checkpoint, given its images' hashes."""
        whole = hashlib.sha256(f"{self.merged} {self.max_new_tokens} {list(images)}".encode())
        for ids in (self.prompt.ids, *self.continuations):
            whole.update(f" {ids.tolist()}".encode())
        return whole.hexdigest()

    @cached_property
    def prefix(self) -> Prefix:
        """What questions about the same images begin with."""
        return self.prompt.images, tuple(self.prompt.ids[: self.head].tolist())


@dataclass(frozen=True)
class Group:
    """Distinct prefixes, and the batches of questions that begin with them."""

    prefixes: tuple[Row, ...]
    batches: tuple[tuple[Question, ...], ...]
    places: dict[Prefix, int]

    @property
    def questions(self) -> Iterator[Question]:
        """Those of all batches."""
        return chain(*self.batches)

    @property
    def size(self) -> int:
        """How many rows it reads at once."""
        return max(len(self.prefixes), *map(len, self.batches))


def encode(task: Task, encoder: Encoder) -> list[Question]:
    """Encode every item of a task.

    Raises:
        DataError: an image is missing or broken, or the chat template refuses an item.
    """
    known: dict[tuple[tuple[int, ...], tuple[str, ...]], tuple[int, tuple[Tensor, ...]]] = {}
    questions = []
    for item in task.items:
        prompt = encoder.prompt_row(task.sample(item), task.root)
        key = (tuple(prompt.ids[-TAIL:].tolist()), task.answers(item))
        if key not in known:
            known[key] = _continuations(task, item, encoder, len(prompt.ids))
        merged, continuations = known[key]
        questions.append(
            Question(
                task=task.name,
                item=item.id,
                prompt=prompt,
                head=_head(prompt, encoder),
                merged=merged,
                continuations=continuations,
                max_new_tokens=task.file.max_new_tokens,
            )
        )
    return questions


def groups(questions: Iterable[Question], size: int) -> list[Group]:
    """Groups of at most `size` prefixes, in batches of at most `size` questions of like lengths."""
    by_prefix: dict[Prefix, list[Question]] = {}
    for question in questions:
        by_prefix.setdefault(question.prefix, []).append(question)
    order = sorted(by_prefix, key=lambda prefix: max(map(_length, by_prefix[prefix])))
    found = []
    for prefixes in _chunks(order, size):
        asked = sorted((q for prefix in prefixes for q in by_prefix[prefix]), key=_length)
        found.append(
            Group(
                prefixes=tuple(_row(by_prefix[prefix][0]) for prefix in prefixes),
                batches=tuple(tuple(batch) for batch in _chunks(asked, size)),
                places={prefix: place for place, prefix in enumerate(prefixes)},
            )
        )
    return found


def _continuations(
    task: Task, item: Item, encoder: Encoder, length: int
) -> tuple[int, tuple[Tensor, ...]]:
    options = task.answers(item)
    if not options:
        return 0, ()
    rows = encoder.option_rows(task.sample(item), options, task.root)
    shared = int((rows[0].labels == IGNORED).sum())
    return length - shared, tuple(row.ids[shared:] for row in rows)


def _head(prompt: Row, encoder: Encoder) -> int:
    if not prompt.images:
        return 1
    mark = encoder.tokenizer.convert_tokens_to_ids(str(encoder.processor.image_token))
    return int((prompt.ids == mark).nonzero().max()) + 1


def _row(question: Question) -> Row:
    prompt, head = question.prompt, question.head
    return Row(prompt.ids[:head], prompt.labels[:head], prompt.images)


def _length(question: Question) -> int:
    return len(question.prompt.ids)


def _chunks(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
