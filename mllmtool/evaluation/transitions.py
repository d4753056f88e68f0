"""The items that a checkpoint lost, with their pictures, for the page's browser."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mllmtool.data.suites import Item
from mllmtool.evaluation.results import Results
from mllmtool.evaluation.scoring import TaskAnswers
from mllmtool.metrics.scores import Answered
from mllmtool.models.pictures import open_image

SIDE = 96  # pixels of a thumbnail's longer side
SMALL = 64  # pictures up to this size are kept as they are


@dataclass(frozen=True)
class Lost:
    """An item that the base answered right and a checkpoint wrong."""

    checkpoint: str
    task: str
    item: Item
    images: tuple[str, ...]  # data URIs
    before: Answered
    after: Answered


def lost(results: Results, tasks: Sequence[TaskAnswers], limit: int) -> list[Lost]:
    """At most `limit` lost items, as many of each checkpoint and task as its fellows have.

    Raises:
        DataError: an image is broken.
    """
    rows: dict[tuple[str, str], list[int]] = {}
    for column, row in enumerate(results.checkpoints):
        for one in tasks:
            places = np.flatnonzero(one.primary[:, 0] > one.primary[:, column]).tolist()
            if places:
                rows[row.label, one.task.name] = places
    quota = max(1, limit // max(1, len(rows)))
    chosen = [
        (label, name, place)
        for (label, name), places in list(rows.items())[:limit]
        for place in places[:quota]
    ]
    by_name = {one.task.name: one for one in tasks}
    thumbnail = cache(_thumbnail)
    return [_lost(label, by_name[name], place, thumbnail) for label, name, place in chosen]


def _lost(label: str, one: TaskAnswers, place: int, thumbnail: Callable[[Path], str]) -> Lost:
    item, answers = one.task.items[place], one.answers
    return Lost(
        checkpoint=label,
        task=one.task.name,
        item=item,
        images=tuple(thumbnail(path) for path in one.task.images(item)),
        before=next(iter(answers.values()))[place],
        after=answers[label][place],
    )


def _thumbnail(path: Path) -> str:
    """A data URI: PNG of a small picture as it is, else JPEG of a smaller one."""
    image, out = open_image(path), io.BytesIO()
    kind = "png" if max(image.size) <= SMALL else "jpeg"
    image.thumbnail((SIDE, SIDE))
    image.save(out, kind)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
