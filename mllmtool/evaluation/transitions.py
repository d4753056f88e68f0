"""Items that checkpoints lost or gained against the base, with their pictures, for the browser."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mllmtool.data.items import Item
from mllmtool.evaluation.results import Results
from mllmtool.evaluation.scoring import TaskAnswers
from mllmtool.metrics.choices import LETTERS
from mllmtool.models.pictures import open_image

SIDE = 128  # pixels of a thumbnail's longer side
SMALL = 64  # pictures up to this size are kept as they are
QUALITY = 70
LONGEST = 1000  # characters shown of a text; a model may repeat itself without end

Kind = Literal["lost", "gained"]
SIGNS: dict[Kind, int] = {"lost": -1, "gained": 1}


class Change(NamedTuple):
    """What a checkpoint said to an item where its score differs from the base's."""

    checkpoint: str
    kind: Kind
    response: str


@dataclass(frozen=True)
class Card:
    """An item with its pictures as data URIs, what the base said, and who differs.

    `options` are shown as the prompt shows them, each with whether it is right.
    """

    task: str
    item: str
    images: tuple[str, ...]
    question: str
    options: tuple[tuple[str, bool], ...]
    before: str
    changes: tuple[Change, ...]


class Place(NamedTuple):
    """A change: of which checkpoint (its column), of which task, in which direction, where."""

    column: int
    task: int
    kind: Kind
    item: int


def cards(results: Results, tasks: Sequence[TaskAnswers], limit: int) -> list[Card]:
    """At most `limit` changes by item, as many of each checkpoint, task and direction.

    Raises:
        DataError: an image is broken.
    """
    by_item: dict[tuple[int, int], list[Place]] = {}
    for place in _chosen(tasks, limit):
        by_item.setdefault((place.task, place.item), []).append(place)
    labels = [row.label for row in results.checkpoints]
    thumbnail = cache(_thumbnail)
    return [_card(tasks[one[0].task], labels, one, thumbnail) for _, one in sorted(by_item.items())]


def num_changes(tasks: Sequence[TaskAnswers]) -> int:
    """Changes of all checkpoints."""
    return sum(int((one.primary != one.primary[:, :1]).sum()) for one in tasks)


def _chosen(tasks: Sequence[TaskAnswers], limit: int) -> Iterator[Place]:
    """The first changes of every group; what small groups leave over goes to the large ones."""
    groups = sorted(_groups(tasks), key=len)
    room = limit
    for done, group in enumerate(groups):
        taken = group[: max(1, room // (len(groups) - done))] if room else []
        room -= len(taken)
        yield from taken


def _groups(tasks: Sequence[TaskAnswers]) -> Iterator[list[Place]]:
    for number, one in enumerate(tasks):
        change = one.primary - one.primary[:, :1]
        for column in range(1, change.shape[1]):
            for kind, sign in SIGNS.items():
                places = np.flatnonzero(sign * change[:, column] > 0).tolist()
                if places:
                    yield [Place(column, number, kind, place) for place in places]


def _card(
    one: TaskAnswers,
    labels: Sequence[str],
    places: Sequence[Place],
    thumbnail: Callable[[Path], str],
) -> Card:
    number, said = places[0].item, list(one.answers.values())
    item = one.task.items[number]
    return Card(
        task=one.task.name,
        item=item.id,
        images=tuple(thumbnail(path) for path in one.task.images(item)),
        question=_short(item.question),
        options=tuple(_options(one, item)),
        before=_short(said[0][number].response),
        changes=tuple(
            Change(labels[place.column], place.kind, _short(said[place.column][number].response))
            for place in sorted(places)
        ),
    )


def _options(one: TaskAnswers, item: Item) -> Iterator[tuple[str, bool]]:
    by_letter = one.task.file.answer == "letter"
    for place, text in enumerate(item.options):
        yield f"{LETTERS[place]}. {text}" if by_letter else text, place == item.answer


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _thumbnail(path: Path) -> str:
    """A data URI: PNG of a small picture as it is, else JPEG of a smaller one."""
    image, out = open_image(path), io.BytesIO()
    if max(image.size) <= SMALL:
        kind = "png"
        image.save(out, kind)
    else:
        kind = "jpeg"
        image.thumbnail((SIDE, SIDE))
        image.save(out, kind, quality=QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
