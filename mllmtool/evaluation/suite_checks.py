"""What a suite holds, what it cannot show, and what of it was trained on."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mllmtool.configs.mix_data import Reason
from mllmtool.data.exclusion import read_exclusion, samples_of
from mllmtool.data.suites import Suite, Task
from mllmtool.errors import DataError, some
from mllmtool.evaluation.scoring import QUADRANTS
from mllmtool.evaluation.wording import points, quadrant
from mllmtool.models.pictures import open_image

LEAKS: tuple[Reason, ...] = ("text", "image")


def tasks_of(suite: Suite) -> list[dict[str, Any]]:
    """What each task is and how much there is of it; every image must be there.

    Raises:
        DataError: an image is missing or leads out of the image folder.
    """
    return [
        {
            "name": task.name,
            "type": task.file.type,
            "quadrant": task.file.quadrant.name,
            "role": task.file.role,
            "answer": task.file.answer,
            "primary": task.file.verdict_metric,
            "items": len(task.items),
            "images": len(set(task.image_digests)),
        }
        for task in suite.tasks
    ]


def problems(suite: Suite, margin: float) -> Iterator[str]:
    """What makes the report say less than its reader may expect."""
    files = [task.file for task in suite.tasks]
    for place in QUADRANTS:
        if place not in [file.quadrant for file in files]:
            yield f"{suite.path}: no task in {quadrant(place.name)}"
    if "new" not in [file.role for file in files]:
        yield f"{suite.path}: no task has role new: there is no gain to set against losses"
    needed = math.ceil(math.log(0.05) / math.log(1 - margin))
    short = [f"{t.name} ({len(t.items)})" for t in suite.tasks if len(t.items) < needed]
    if short:
        yield (
            f"too few items to show that nothing beyond {points(margin).removeprefix('+')} was"
            f" lost, which takes {needed}: {some(short)}"
        )


def cost(tasks: Sequence[Task], weights: Sequence[int]) -> dict[str, int]:
    """How much a run has to do; `weights` are the bytes of each checkpoint."""
    items = [(task, item) for task in tasks for item in task.items]
    return {
        "prompts": len(items) * len(weights),
        "options": sum(len(item.options) for _, item in items) * len(weights),
        "response_tokens_at_most": sum(t.file.max_new_tokens for t, _ in items) * len(weights),
        "images": len({path for task, item in items for path in task.images(item)}),
        "weight_bytes": sum(weights),
    }


def check_images(suite: Suite) -> None:
    """Decode every image once.

    Raises:
        DataError: one is missing, broken or far too large.
    """
    seen = set[Path]()
    for task in suite.tasks:
        for item in task.items:
            for path in task.images(item):
                if path not in seen:
                    seen.add(path)
                    open_image(path)


def check_apart(suite: Suite, samples: Iterable[str]) -> None:
    """Look for the suite's questions and images, by their bytes, in training samples.

    Raises:
        DataError: some are there.
    """
    known = read_exclusion([str(suite.path)], LEAKS)
    leaks: dict[Reason, list[str]] = {reason: [] for reason in LEAKS}
    for path in samples:
        for where, folder, sample in samples_of(Path(path)):
            reason = known.reason(sample, None, folder)
            if reason is not None:
                leaks[reason].append(where)
    found = [
        f"{len(places)} by {reason} ({some(places)})" for reason, places in leaks.items() if places
    ]
    if found:
        raise DataError(
            f"{suite.path}: is trained on: {', '.join(found)}; leave them out by mix-data --exclude"
        )
