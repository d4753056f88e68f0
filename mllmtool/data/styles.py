"""Styles: the same fact asked as a multiple choice, yes or no, for a name, a sentence, or more.

In every style an item's options are texts of which one is right, so that any of them can be
evaluated; only a multiple choice shows them. Several styles are the single-task way to diversify
text (the five of SEFE's answer style diversification, arXiv 2505.02486, by templates).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from mllmtool.configs.build_vqa import Style
from mllmtool.configs.yaml_text import load_yaml
from mllmtool.data.distractors import Pool
from mllmtool.data.items import LETTERS
from mllmtool.data.labelled import Labelled
from mllmtool.data.samples import IMAGE_MARK
from mllmtool.data.templates import template_fields
from mllmtool.errors import DataError

CHOICE: Style = "multiple-choice"
STYLES: tuple[Style, ...] = get_args(Style)
OWN = {"class_name", "letters", "others"}  # fields that are no columns


class Template(BaseModel):
    """A question and, in an open style, what is answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    answer: str | None = None


class Facts(NamedTuple):
    """What an item says beside its id and images."""

    question: str
    options: list[str]
    answer: int


Templates = Mapping[Style, Sequence[Template]]

# Without articles, as a class may be "eel", "scissors" or "water".
DEFAULTS: dict[Style, Template] = {
    "yes-no": Template(question="Is the class of this image {class_name}?"),
    "short": Template(
        question="What is the class of this image? Answer with its name.", answer="{class_name}"
    ),
    "brief": Template(
        question="What is the class of this image? Answer in one sentence.",
        answer="The class of this image is {class_name}.",
    ),
    "detailed": Template(
        question="What is the class of this image, and which classes is it not?",
        answer="The class of this image is {class_name}. It is not {others}.",
    ),
}


def make_templates(
    style: Style, given: Sequence[str | Template], label_column: str
) -> tuple[Template, ...]:
    """The checked templates of a style; a text alone is a question.

    Raises:
        ValueError: one has a field that its style has not, or lacks one that it needs.
    """
    templates = []
    for entry in given:
        template = Template(question=entry) if isinstance(entry, str) else entry
        if template.answer is None and style in DEFAULTS:
            template = template.model_copy(update={"answer": DEFAULTS[style].answer})
        _check(style, template, label_column)
        templates.append(template)
    return tuple(templates)


def read_templates(path: Path, label_column: str) -> dict[Style, tuple[Template, ...]]:
    """Templates by style: YAML of lists, each entry a question or `{question, answer}`.

    Raises:
        DataError: the file and the entry that is wrong.
    """
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: is not a mapping of styles to lists")
    found = {}
    for style, entries in values.items():
        if style not in STYLES:
            raise DataError(f"{path}: {style}: unknown style; styles are {', '.join(STYLES)}")
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{path}: {style}: is not a list of templates")
        try:
            parsed = [e if isinstance(e, str) else Template.model_validate(e) for e in entries]
            found[style] = make_templates(style, parsed, label_column)
        except ValidationError as error:
            (issue, *_) = error.errors(include_url=False)
            place = "".join(f"{step}: " for step in issue["loc"])
            raise DataError(f"{path}: {style}: {place}{issue['msg']}") from error
        except ValueError as error:
            raise DataError(f"{path}: {style}: {error}") from error
    return found


def columns_of(templates: Templates) -> tuple[str, ...]:
    """The columns that they want."""
    texts = [text for each in templates.values() for t in each for text in (t.question, t.answer)]
    names = {name for text in texts if text is not None for name in template_fields(text)}
    return tuple(sorted(names - OWN))


def _check(style: Style, template: Template, label_column: str) -> None:
    question, answer = template_fields(template.question), template_fields(template.answer or "")
    if template.answer is not None and style in (CHOICE, "yes-no"):
        raise ValueError(f"{template.answer!r}: no answer is written in this style")
    allowed = {CHOICE: {"letters"}, "yes-no": {"class_name"}}.get(style, set())
    _check_fields(question, allowed, label_column)
    _check_fields(answer, {"class_name", "others"}, label_column)
    told = question if style == "yes-no" else answer
    if style != CHOICE and "class_name" not in told:
        raise ValueError("lacks {class_name}")
    if not template.question.strip():
        raise ValueError("a question is empty")
    if IMAGE_MARK in template.question + (template.answer or ""):
        raise ValueError(f"holds {IMAGE_MARK}; images are put in front")


def _check_fields(names: Sequence[str], own: set[str], label_column: str) -> None:
    for name in names:
        if name in OWN - own:
            raise ValueError(f"{{{name}}}: is no field of this text")
        if name == label_column and name not in own:
            raise ValueError(f"{{{name}}}: is the column of classes; write {{class_name}}")


def draw_facts(
    style: Style, labelled: Labelled, templates: Sequence[Template], pool: Pool, rng: Random
) -> Facts:
    """Draw a template and options, and fill them in."""
    ask = {CHOICE: _choice, "yes-no": _yes_no}.get(style, _open)
    return ask(labelled, rng.choice(templates), pool, rng)


def _choice(labelled: Labelled, template: Template, pool: Pool, rng: Random) -> Facts:
    options = pool.draw(labelled, rng)
    letters = listed(LETTERS[: len(options)], "or")
    question = template.question.format(**{**labelled.fields, "letters": letters})
    return Facts(question, options, options.index(labelled.class_name))


def _yes_no(labelled: Labelled, template: Template, pool: Pool, rng: Random) -> Facts:
    right = rng.random() < 0.5
    asked = labelled.class_name if right else pool.draw_wrong(labelled, rng)
    question = template.question.format(**{**labelled.fields, "class_name": asked})
    return Facts(question, ["yes", "no"], 0 if right else 1)


def _open(labelled: Labelled, template: Template, pool: Pool, rng: Random) -> Facts:
    names = pool.draw(labelled, rng)
    answer = template.answer or ""
    options = [
        answer.format(
            **{
                **labelled.fields,
                "class_name": name,
                "others": listed([other for other in names if other != name], "or"),
            }
        )
        for name in names
    ]
    question = template.question.format(**labelled.fields)
    return Facts(question, options, names.index(labelled.class_name))


def listed(names: Sequence[str], last: str) -> str:
    """`A, B or C`."""
    *front, end = names
    return f"{', '.join(front)} {last} {end}" if front else end
