"""What a row holds, and whether it is right.

Nearly every row is right. A quick look sees that of many rows at once, in a twentieth of the time
of the other, which says what is wrong with one.
"""

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

from msgspec import UNSET

from mllmtool.configs.mix_data import Format
from mllmtool.data.formats import IMAGE_MARK
from mllmtool.data.plain import Row, names
from mllmtool.data.samples import Sample, check_sample
from mllmtool.data.texts import spoken
from mllmtool.errors import DataError

DUE: dict[Format, tuple[str, str]] = {
    "messages": ("user", "assistant"),
    "llava": ("human", "gpt"),
    "sharegpt": ("human", "gpt"),
}


class Looks(NamedTuple):
    """Of some rows; `ours`: it can be written as it is."""

    turns: list[int]
    chars: list[int]
    images: list[list[str]]
    ours: list[bool]


def quick_looks(rows: Sequence[Row], form: Format) -> Looks | None:
    """Rows of speakers that alternate, with their images; None when one is any other or wrong."""
    numbers = [len(row.turns) for row in rows]
    said = ["\n".join([turn.text for turn in row.turns]) for row in rows]
    images = list(map(names, rows))
    if (
        min(numbers) < 2
        or not _alternate(rows, numbers, DUE[form])
        or list(map(len, images)) != [text.count(IMAGE_MARK) for text in said]
        or ":" in "".join(chain.from_iterable(images))  # it may be an address
        or (form != "messages" and any(row.system is not UNSET for row in rows))
    ):
        return None
    chars = [len(text) - number + 1 for text, number in zip(said, numbers, strict=True)]
    ours = list(map(is_ours, rows)) if form == "messages" else [False] * len(rows)
    return Looks(numbers, chars, images, ours)


def is_ours(row: Row) -> bool:
    """Whether a right row of messages can be written as it is."""
    return type(row.id) is str and row.image is UNSET and row.mix is UNSET


def _alternate(rows: Sequence[Row], numbers: Sequence[int], due: tuple[str, str]) -> bool:
    """Whether speakers do, after a system's turn in rows of an odd number of turns."""
    roles = [turn.speaker for row in rows for turn in row.turns]
    starts = accumulate(numbers, initial=0)
    odd = [start for start, number in zip(starts, numbers, strict=False) if number % 2]
    systems = [roles.pop(start) for start in reversed(odd)]
    return systems == ["system"] * len(systems) and roles == [*due] * (len(roles) // 2)


def slow_look(sample: dict[str, Any]) -> tuple[int, int, list[str]]:
    """Turns, characters and images of a sample of our shape.

    Raises:
        DataError: what is wrong, without the place.
    """
    checked = check_sample(sample)
    check_turns(checked)
    chars = sum(len(text) for _, text in spoken(sample))
    return len(checked.messages), chars, list(checked.images)


def check_turns(sample: Sample) -> None:
    """See that user and assistant take turns, after a system's at most, and an answer ends it.

    Raises:
        DataError: they do not, without the place.
    """
    roles = [message.role for message in sample.messages]
    begin = 1 if roles[0] == "system" else 0
    for number, role in enumerate(roles[begin:]):
        due = DUE["messages"][number % 2]
        if role != due:
            raise DataError(f"messages.{number + begin}.role: is {role} where {due} is due")
    if roles[-1] != "assistant":
        raise DataError(f"messages: the last turn is the {roles[-1]}'s, not the assistant's")
