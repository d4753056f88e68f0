"""Labelled images as multiple-choice questions, and the class-name distractor set.

A question's options depend on the seed, its id and the classes alone, so that leaving images out
or adding some changes no other question.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mllmtool.data.rows import ImageFolder
from mllmtool.data.samples import IMAGE_MARK, images_root, parse_line, read_jsonl
from mllmtool.data.suites import LETTERS, Item
from mllmtool.errors import DataError

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class Labelled(BaseModel):
    """An image, by its name in the folder of the images, and its class."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    image: Annotated[str, Field(min_length=1)]
    class_name: str
    id: str | None = None

    @field_validator("class_name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not value.strip() or IMAGE_MARK in value or "\n" in value:
            raise ValueError(f"{value!r} cannot be an option's text")
        return value.strip()

    @property
    def key(self) -> str:
        """The id, else the image."""
        return self.id or self.image


@dataclass(frozen=True)
class LabelledImages:
    """All of them, the folder that they are in, and how many files were passed over."""

    root: Path
    images: tuple[Labelled, ...]
    passed_over: int = 0

    @property
    def classes(self) -> list[str]:
        """Sorted."""
        return sorted({labelled.class_name for labelled in self.images})

    @property
    def sha256(self) -> str:
        """Hash of ids, images' names and classes; the images themselves are not read."""
        digest = hashlib.sha256()
        for labelled in self.images:
            digest.update(labelled.model_dump_json().encode() + b"\n")
        return digest.hexdigest()


def read_labelled(path: Path) -> LabelledImages:
    """A folder with one subfolder a class, or a JSONL file of {image, class_name} and maybe id.

    Raises:
        DataError: there are no images, one is missing, or an id occurs twice.
    """
    if path.is_dir():
        return _read_folder(path)
    root, lines = images_root(path), dict[str, int]()
    folder, images = ImageFolder(root), []
    for line, values in read_jsonl(path):
        where = f"{path}:{line}"
        labelled: Labelled = parse_line(Labelled, values, where)
        if (before := lines.setdefault(labelled.key, line)) != line:
            raise DataError(f"{where}: id {labelled.key!r} is also that of line {before}")
        folder.check(labelled.image, where)
        images.append(labelled)
    if not images:
        raise DataError(f"{path}: holds no images")
    return LabelledImages(root, tuple(images))


def _read_folder(root: Path) -> LabelledImages:
    images, passed_over = [], 0
    for folder, folders, files in os.walk(root):
        folders.sort()
        place = Path(folder).relative_to(root)
        for file in sorted(files):
            name = place / file
            if len(name.parts) < 2 or name.suffix.lower() not in IMAGE_SUFFIXES:
                passed_over += 1
                continue
            values = {"image": name.as_posix(), "class_name": name.parts[0]}
            images.append(parse_line(Labelled, values, str(root / name)))
    if not images:
        raise DataError(f"{root}: holds no images in a subfolder named after their class")
    return LabelledImages(root, tuple(images), passed_over)


def question(
    labelled: Labelled, classes: Sequence[str], number: int, text: str, rng: Random
) -> dict[str, Any]:
    """An item with `number` options: the class at a random place among other classes, drawn."""
    own = classes.index(labelled.class_name)
    drawn = rng.sample(range(len(classes) - 1), number - 1)
    options = [classes[index + (index >= own)] for index in drawn]
    answer = rng.randrange(number)
    options.insert(answer, labelled.class_name)
    return {
        "id": labelled.key,
        "images": [labelled.image],
        "question": text,
        "options": options,
        "answer": answer,
        "class_name": labelled.class_name,
    }


def sample(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item as a training sample: options in lettered lines, answered by a letter."""
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, item["options"], strict=False)]
    prompt = "\n".join([IMAGE_MARK, item["question"], *lines])
    answer = LETTERS[item["answer"]]
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"id": item["id"], "images": item["images"], "messages": turns}


def read_items(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """Items, each with a text under `field`.

    Raises:
        DataError: `file:line`; it is no item, lacks the field, or has an id that occurred before.
    """
    lines = dict[str, int]()
    for line, values in read_jsonl(path):
        where = f"{path}:{line}"
        parse_line(Item, values, where)
        if (before := lines.setdefault(values["id"], line)) != line:
            raise DataError(f"{where}: id {values['id']!r} is also that of line {before}")
        if not isinstance(values.get(field), str) or not values[field].strip():
            raise DataError(f"{where}: {field}: must be a text, got {values.get(field)!r}")
        yield values


def distracted(item: Mapping[str, Any], text: str, rng: Random) -> dict[str, Any] | None:
    """The item with `text` in the place of one wrong option, drawn; None when an option holds it.

    `class_option` is the index of the replaced option. All else stays (the class-name distractor
    test, arXiv 2603.14493: it shows whether a model names the class whatever is asked).
    """
    whole_word = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)
    if any(whole_word.search(option) for option in item["options"]):
        return None
    wrong = [index for index in range(len(item["options"])) if index != item["answer"]]
    place = rng.choice(wrong)
    options = [text if index == place else option for index, option in enumerate(item["options"])]
    return {**item, "options": options, "class_option": place}


def answer_counts(items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How often each letter is the right one."""
    counts = Counter(LETTERS[item["answer"]] for item in items)
    return dict(sorted(counts.items()))
