"""Suites of evaluation tasks: `suite.yaml` names tasks, a task names its items.

A task says where it stands in the 2x2 matrix (is its text, is its image in or out of the
distribution of the fine-tuning data) and whether it is an old ability, the new one, or held out.
Prompts are templates of named fields and metrics are chosen by name; no code is run.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mllmtool.data.items import LETTERS, Item
from mllmtool.data.samples import (
    IMAGE_MARK,
    Message,
    Sample,
    image_path,
    images_root,
    parse_line,
    read_jsonl,
)
from mllmtool.data.strict_yaml import Strict, read_yaml
from mllmtool.data.task_types import (
    NO_PRIMARY,
    AnswerForm,
    ChoiceForm,
    MetricName,
    TaskType,
    allowed_metrics,
    usual_metrics,
)
from mllmtool.data.templates import known_fields
from mllmtool.errors import DataError

Distribution = Literal["id", "ood"]
Role = Literal["original", "new", "heldout"]
NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}"  # also a file name, and inert in every report
Name = Annotated[str, Field(pattern=f"^{NAME}$")]


class Quadrant(Strict):
    """A cell of the 2x2 matrix."""

    text: Distribution
    image: Distribution

    @property
    def name(self) -> str:
        """`id_text_ood_image`."""
        return f"{self.text}_text_{self.image}_image"


class TaskFile(Strict):
    """What a task's YAML says. `metrics` and `primary` are by default those of its type."""

    schema_: Annotated[Literal["mllmtool.task/1"], Field(alias="schema")]
    name: Name
    items: str
    image_root: str | None = None
    quadrant: Quadrant
    role: Role
    type: TaskType
    answer: ChoiceForm | None = None
    prompt: str | None = None
    options_style: str = "{letter}. {text}"
    max_new_tokens: Annotated[int, Field(ge=1)] = 16
    metrics: tuple[MetricName, ...] = ()
    primary: MetricName | None = None

    @property
    def template(self) -> str:
        """The prompt; by default the options are shown where they are answered by letter."""
        shown = "{question}\n{options}" if self.answer == "letter" else "{question}"
        return self.prompt or shown

    @property
    def lettered(self) -> bool:
        """Whether options have letters, in the prompt or as answers."""
        return "{options}" in self.template and "{letter}" in self.options_style

    @property
    def form(self) -> AnswerForm:
        """What a right response is."""
        return self.answer or "open"

    @property
    def verdict_metric(self) -> MetricName:
        """The metric that verdicts are about."""
        named = self.metrics or usual_metrics(self.type, self.answer)
        return self.primary or named[0]

    @property
    def reported(self) -> tuple[MetricName, ...]:
        """The metrics of the report, the primary first; what shows lost format is among them."""
        usual = usual_metrics(self.type, self.answer)
        always = [name for name in usual if name in ("likelihood", "format_fail")]
        return tuple(dict.fromkeys((self.verdict_metric, *(self.metrics or usual), *always)))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type == "mcq" and self.answer is None:
            raise ValueError("answer: is required for mcq: letter or text")
        if self.type != "mcq" and self.answer is not None:
            raise ValueError(f"answer: is for mcq, and type is {self.type}")
        fields = _fields("prompt", self.template, self._known)
        if self.answer == "letter" and "options" not in fields:
            raise ValueError("prompt: lacks {options}, and answer is letter")
        style = _fields("options_style", self.options_style, {"letter", "text"})
        if self.answer == "letter" and "letter" not in style:
            raise ValueError("options_style: lacks {letter}, and answer is letter")
        if any(IMAGE_MARK in text for text in (self.template, self.options_style)):
            raise ValueError(f"prompt: holds {IMAGE_MARK}; images are put in front by the task")
        self._check_metrics()
        return self

    def _check_metrics(self) -> None:
        allowed = allowed_metrics(self.type, self.answer)
        for key, names in (("metrics", self.metrics), ("primary", (self.verdict_metric,))):
            for name in names:
                if name not in allowed:
                    raise ValueError(
                        f"{key}: {name} is not for {self.type}; {', '.join(allowed)} are"
                    )
        if self.verdict_metric in NO_PRIMARY:
            reason = NO_PRIMARY[self.verdict_metric]
            raise ValueError(f"primary: {self.verdict_metric} cannot be it, as {reason}")

    @property
    def _known(self) -> set[str]:
        return {"question", "options"} if self.type == "mcq" else {"question"}


class SuiteFile(Strict):
    """What a suite's YAML says. `margin` is the loss, a share of the items, that is still kept."""

    schema_: Annotated[Literal["mllmtool.suite/1"], Field(alias="schema")]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Task:
    """A task and its items."""

    path: Path
    file: TaskFile
    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        """Unique in its suite."""
        return self.file.name

    @property
    def items_path(self) -> Path:
        """The items' JSONL."""
        return self.path.parent / self.file.items

    @cached_property
    def root(self) -> Path:
        """The folder that every image lies under."""
        if self.file.image_root is None:
            return images_root(self.items_path)
        return self.path.parent / self.file.image_root

    def images(self, item: Item) -> tuple[Path, ...]:
        """The image files of an item.

        Raises:
            DataError: one is missing or leads out of the image folder.
        """
        try:
            setting = f"image_root in {self.path}"
            return tuple(image_path(self.root, name, setting) for name in item.images)
        except DataError as error:
            raise DataError(f"{self.items_path}: {item.id}: {error}") from error

    def answers(self, item: Item) -> tuple[str, ...]:
        """What a response to choose each option looks like; nothing where there are none."""
        return tuple(LETTERS[: len(item.options)]) if self.file.answer == "letter" else item.options

    def asked_sha256(self, digests: Sequence[str]) -> str:
        """Hash of all that a model is asked; `digests` are of the pictures of each item."""
        asked = [
            (item.id, self._prompt(item), self.answers(item), digest)
            for item, digest in zip(self.items, digests, strict=True)
        ]
        whole = json.dumps([self.file.max_new_tokens, asked])
        return hashlib.sha256(whole.encode()).hexdigest()

    @cached_property
    def image_digests(self) -> tuple[str, ...]:
        """For each item a hash of its images' bytes, in order; of its own name where it has none.

        Raises:
            DataError: an image is missing, unreadable or leads out of the image folder.
        """
        return tuple(_digest(self.images(item)) or f"{self.name}/{item.id}" for item in self.items)

    def sample(self, item: Item) -> Sample:
        """The user's turn: the images, then the rendered prompt."""
        marks = f"{IMAGE_MARK}\n" * len(item.images)
        turn = Message(role="user", content=marks + self._prompt(item))
        return Sample(id=item.id, images=item.images, messages=(turn,))

    def limited(self, limit: int, rng: random.Random) -> Self:
        """At most `limit` of the items, drawn by `rng`, in their order."""
        if limit >= len(self.items):
            return self
        chosen = sorted(rng.sample(range(len(self.items)), limit))
        return replace(self, items=tuple(self.items[index] for index in chosen))

    def _prompt(self, item: Item) -> str:
        return self.file.template.format(question=item.question, options=self._options(item))

    def _options(self, item: Item) -> str:
        style = self.file.options_style
        pairs = zip_longest(LETTERS[: len(item.options)], item.options)
        return "\n".join(style.format(letter=letter, text=text) for letter, text in pairs)


@dataclass(frozen=True)
class Suite:
    """Tasks with their items."""

    path: Path
    file: SuiteFile
    tasks: tuple[Task, ...]

    def of(self, tasks: Iterable[Task]) -> Self:
        """The suite with other tasks, or other items of its own."""
        return replace(self, tasks=tuple(tasks))

    @cached_property
    def num_items(self) -> int:
        """Items of all tasks."""
        return sum(len(task.items) for task in self.tasks)


def read_suite(path: str | Path) -> Suite:
    """Read a suite, its tasks and their items; images are not opened.

    Raises:
        DataError: the file, and the line or key, that is wrong.
    """
    path = Path(path)
    file = read_yaml(SuiteFile, path)
    tasks = tuple(_read_task(path.parent / name) for name in file.tasks)
    seen: dict[str, Task] = {}
    for task in tasks:
        if task.name in seen:
            raise DataError(f"{task.path}: name: {task.name!r} is also {seen[task.name].path}")
        seen[task.name] = task
    return Suite(path, file, tasks)


def _read_task(path: Path) -> Task:
    file = read_yaml(TaskFile, path)
    items = tuple(_read_items(path.parent / file.items, file))
    if not items:
        raise DataError(f"{path.parent / file.items}: holds no items")
    return Task(path, file, items)


def _read_items(path: Path, file: TaskFile) -> Iterator[Item]:
    lines: dict[str, int] = {}
    for line, values in read_jsonl(path):
        item: Item = parse_line(Item, values, f"{path}:{line}")
        if (wrong := _unfit(item, file)) is not None:
            raise DataError(f"{path}:{line}: {wrong}")
        if item.id in lines:
            raise DataError(f"{path}:{line}: id {item.id!r} is also that of line {lines[item.id]}")
        lines[item.id] = line
        yield item


def _unfit(item: Item, file: TaskFile) -> str | None:
    """What an item lacks, or has too much, for its task."""
    kind = file.type
    if (kind == "mcq") != bool(item.options):
        return f"has {'answers' if kind == 'mcq' else 'options'}, and type is {kind}"
    if file.lettered and len(item.options) > len(LETTERS):
        return f"has {len(item.options)} options, and there are {len(LETTERS)} letters"
    if file.answer == "text" and (twins := _twins(item)):
        return f"options {' and '.join(map(str, twins))} are the same text, and one is the answer"
    if "{question}" in file.template and not item.question.strip():
        return "question: is empty, and the prompt shows it"
    return "has images, and type is text" if kind == "text" and item.images else None


def _fields(key: str, template: str, known: set[str]) -> list[str]:
    try:
        return known_fields(template, known)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _twins(item: Item) -> list[int]:
    """The options that the right one cannot be told from; case and white space do not tell."""
    texts = [" ".join(text.casefold().split()) for text in item.options]
    same = [place for place, text in enumerate(texts) if text == texts[item.answer]]
    return same if len(same) > 1 else []


def _digest(paths: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        try:
            whole.update(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return whole.hexdigest() if paths else ""
