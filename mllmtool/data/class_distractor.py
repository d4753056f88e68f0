"""The class-name distractor set: the image's class among the options of a question about more.

It shows whether a model names the class whatever is asked. Exactly one wrong option gives way to
the class's name, in its place; the others and the answer stay. So much the matcher of arXiv
2603.14493's authors implies; which wrong option they replaced is not known, and here all are
equally likely.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from mllmtool.data.items import Item
from mllmtool.data.labelled import option_text
from mllmtool.data.samples import parse_line, read_jsonl
from mllmtool.errors import DataError


def read_items(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """Items, each with a text under `field`.

    Raises:
        DataError: `file:line`; it is no item, lacks the field, or has an id that occurred before.
    """
    lines = dict[str, int]()
    for line, values in read_jsonl(path):
        where = f"{path}:{line}"
        item: Item = parse_line(Item, values, where)
        if (before := lines.setdefault(values["id"], line)) != line:
            raise DataError(f"{where}: id {values['id']!r} is also that of line {before}")
        if not item.options:
            raise DataError(f"{where}: has no options, one of which is to give way")
        if not isinstance(values.get(field), str):
            raise DataError(f"{where}: {field}: must be a text, got {values.get(field)!r}")
        try:
            option_text(values[field])
        except ValueError as error:
            raise DataError(f"{where}: {field}: {error}") from error
        yield {**values, "answer": item.answer}  # which may be a letter there


def distracted(item: Mapping[str, Any], text: str, rng: Random) -> dict[str, Any] | None:
    """The item with `text` in the place of one wrong option, drawn; None when an option holds it.

    `class_option` is the index of that option, and `source_id` the id of the item it is made of.
    """
    whole_word = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)
    if any(whole_word.search(option) for option in item["options"]):
        return None
    wrong = [index for index in range(len(item["options"])) if index != item["answer"]]
    place = rng.choice(wrong)
    options = [text if index == place else option for index, option in enumerate(item["options"])]
    return {**item, "options": options, "class_option": place, "source_id": item["id"]}
