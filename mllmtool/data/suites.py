"""Suites of evaluation tasks: `suite.yaml` names tasks, a task names its items.

A task says where it stands in the 2x2 matrix (is its text, is its image in or out of the
distribution of the fine-tuning data) and whether it is an old ability or the new one. Prompts are
templates of named fields; no code is run.
"""

import difflib
import random
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mllmtool.data.samples import (
    IMAGE_MARK,
    Message,
    Sample,
    image_path,
    images_root,
    parse_line,
    read_jsonl,
)
from mllmtool.errors import DataError, some

LETTERS = string.ascii_uppercase
Distribution = Literal["id", "ood"]
Role = Literal["original", "new"]
AnswerForm = Literal["letter", "text"]
NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}"  # also a file name, and inert in every report
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Quadrant(Strict):
    """A cell of the 2x2 matrix."""

    text: Distribution
    image: Distribution

    @property
    def name(self) -> str:
        """`id_text_ood_image`."""
        return f"{self.text}_text_{self.image}_image"


class Item(BaseModel):
    """One question with its options; `answer` is the index of the right one."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: Annotated[str, Field(min_length=1)]
    images: tuple[str, ...] = ()
    question: str
    options: Annotated[tuple[str, ...], Field(min_length=2, max_length=len(LETTERS))]
    answer: Annotated[int, Field(strict=True, ge=0)]
    class_name: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.answer >= len(self.options):
            raise ValueError(f"answer {self.answer} is not among {len(self.options)} options")
        if any(IMAGE_MARK in text for text in (self.question, *self.options)):
            raise ValueError(f"the text holds {IMAGE_MARK}; images are put in front by the task")
        if not all(option.strip() for option in self.options):
            raise ValueError("an option is empty")
        return self


class TaskFile(Strict):
    """What a task's YAML says."""

    schema_: Annotated[Literal["mllmtool.task/1"], Field(alias="schema")]
    name: Name
    items: str
    image_root: str | None = None
    quadrant: Quadrant
    role: Role
    type: Literal["mcq"]
    answer: AnswerForm
    prompt: str | None = None
    options_style: str = "{letter}. {text}"
    max_new_tokens: Annotated[int, Field(ge=1)] = 16

    @property
    def template(self) -> str:
        """The prompt; by default the options are shown where they are answered by letter."""
        shown = "{question}\n{options}" if self.answer == "letter" else "{question}"
        return self.prompt or shown

    @model_validator(mode="after")
    def _templates(self) -> Self:
        fields = _fields("prompt", self.template, {"question", "options"})
        if self.answer == "letter" and "options" not in fields:
            raise ValueError("prompt: lacks {options}, and answer is letter")
        _fields("options_style", self.options_style, {"letter", "text"})
        return self


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
        """What a response to choose each option looks like."""
        return tuple(LETTERS[: len(item.options)]) if self.file.answer == "letter" else item.options

    def sample(self, item: Item) -> Sample:
        """The user's turn: the images, then the rendered prompt."""
        prompt = self.file.template.format(question=item.question, options=self._options(item))
        marks = f"{IMAGE_MARK}\n" * len(item.images)
        turn = Message(role="user", content=marks + prompt)
        return Sample(id=item.id, images=item.images, messages=(turn,))

    def limited(self, limit: int, rng: random.Random) -> Self:
        """At most `limit` of the items, drawn by `rng`, in their order."""
        if limit >= len(self.items):
            return self
        chosen = sorted(rng.sample(range(len(self.items)), limit))
        return replace(self, items=tuple(self.items[index] for index in chosen))

    def _options(self, item: Item) -> str:
        style = self.file.options_style
        pairs = zip(LETTERS, item.options, strict=False)
        return "\n".join(style.format(letter=letter, text=text) for letter, text in pairs)


@dataclass(frozen=True)
class Suite:
    """Tasks with their items."""

    path: Path
    file: SuiteFile
    tasks: tuple[Task, ...]

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
    file = _read_yaml(SuiteFile, path)
    tasks = tuple(_read_task(path.parent / name) for name in file.tasks)
    seen: dict[str, Task] = {}
    for task in tasks:
        if task.name in seen:
            raise DataError(f"{task.path}: name: {task.name!r} is also {seen[task.name].path}")
        seen[task.name] = task
    return Suite(path, file, tasks)


def _read_task(path: Path) -> Task:
    file = _read_yaml(TaskFile, path)
    items = tuple(_read_items(path.parent / file.items))
    if not items:
        raise DataError(f"{path.parent / file.items}: holds no items")
    return Task(path, file, items)


def _read_items(path: Path) -> Iterator[Item]:
    lines: dict[str, int] = {}
    for line, values in read_jsonl(path):
        item: Item = parse_line(Item, values, f"{path}:{line}")
        if item.id in lines:
            raise DataError(f"{path}:{line}: id {item.id!r} is also that of line {lines[item.id]}")
        lines[item.id] = line
        yield item


def _read_yaml(model: type[M], path: Path) -> M:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise DataError(f"{path}: is not a mapping of keys to values")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        issues = [_issue(model, issue) for issue in error.errors(include_url=False)]
        raise DataError(f"{path}: {'; '.join(issues)}") from error


def _issue(model: type[BaseModel], issue: Any) -> str:
    path = [str(step) for step in issue["loc"]]
    if issue["type"] == "extra_forbidden":
        keys = Quadrant.model_fields if path[0] == "quadrant" else model.model_fields
        known = [field.alias or key for key, field in keys.items()]
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        return f"{'.'.join(path)}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
    if issue["type"] == "missing":
        return f"{'.'.join(path)}: is required"
    reason = issue["msg"].removeprefix("Value error, ")
    return f"{'.'.join(path)}: {reason}" if path else str(reason)


def _fields(key: str, template: str, known: set[str]) -> set[str]:
    """The fields of a template; anything but a plain `{name}` is refused."""
    try:
        found = [parts[1:] for parts in string.Formatter().parse(template) if parts[1] is not None]
    except ValueError as error:
        raise ValueError(f"{key}: {error}; write {{{{ and }}}} for braces") from error
    wrong = [name or "" for name, spec, turn in found if name not in known or spec or turn]
    if wrong:
        shown = some([f"{{{name}}}" for name in wrong])
        raise ValueError(
            f"{key}: unknown field {shown}; fields are"
            f" {', '.join(f'{{{name}}}' for name in sorted(known))}"
        )
    return {str(name) for name, _, _ in found}
