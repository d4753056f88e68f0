"""`build-vqa`: labelled images as multiple-choice questions, for training and for evaluation.

Images stay where they are; the report names their folder, as `run.images_root`, relative to the
output, and whatever reads the samples finds it there.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from mllmtool.configs.build_vqa import BuildVqaConfig
from mllmtool.context import Context
from mllmtool.data.choices import (
    LabelledImages,
    answer_counts,
    distracted,
    question,
    read_items,
    read_labelled,
    sample,
)
from mllmtool.data.samples import images_root, write_jsonl
from mllmtool.errors import ConfigError, DataError, some
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made

ITEMS, SAMPLES = "items.jsonl", "samples.jsonl"


def run(config: BuildVqaConfig, context: Context, into: Path) -> Made:
    """Write `items.jsonl` and, unless it is a distractor set, `samples.jsonl`."""
    source = Path(config.images)
    if config.distract is not None:
        items, dropped = _distracted(config.distract, source, context)
        write_jsonl(into / ITEMS, items)
        root, sha256 = images_root(source), file_sha256(source)
        results: dict[str, Any] = {"items": len(items), "dropped": dropped}
    else:
        labelled = _labelled(config)
        items = _questions(config, labelled, context)
        write_jsonl(into / ITEMS, items)
        write_jsonl(into / SAMPLES, map(sample, items))
        root, sha256 = labelled.root, labelled.sha256
        results = _counts(labelled) | {"answers": answer_counts(items)}
    return Made(
        inputs=[Artifact(role="images", path=config.images, sha256=sha256)],
        results=results,
        run={"images_root": os.path.relpath(root.resolve(), into.resolve())},
    )


def plan(config: BuildVqaConfig, context: Context) -> dict[str, Any]:
    """Check every label, and say what would be asked."""
    if config.distract is not None:
        items, dropped = _distracted(config.distract, Path(config.images), context)
        return {"items": len(items), "dropped": dropped, "first": items[0]}
    labelled = _labelled(config)
    return _counts(labelled) | {"first": _questions(config, labelled, context)[0]}


def _labelled(config: BuildVqaConfig) -> LabelledImages:
    labelled = read_labelled(Path(config.images))
    classes = labelled.classes
    if len(classes) < config.options:
        raise ConfigError(
            f"--options: {config.options} options need as many classes, and {config.images} has"
            f" {len(classes)} ({some(classes)})"
        )
    return labelled


def _questions(
    config: BuildVqaConfig, labelled: LabelledImages, context: Context
) -> list[dict[str, Any]]:
    classes = labelled.classes
    return [
        question(
            image, classes, config.options, config.question, context.rng(f"build-vqa/{image.key}")
        )
        for image in context.track(labelled.images, "questions")
    ]


def _distracted(
    field: str, source: Path, context: Context
) -> tuple[list[dict[str, Any]], list[str]]:
    """The distractor set, and the ids of the items that hold the text already."""
    if source.is_dir():
        raise ConfigError(f"--distract: needs --images ITEMS.jsonl, and {source} is a folder")
    items, dropped = [], []
    for item in read_items(source, field):
        made = distracted(item, item[field].strip(), context.rng(f"distract/{item['id']}"))
        if made is None:
            dropped.append(item["id"])
        else:
            items.append(made)
    if not items:
        raise DataError(f"{source}: every item already holds its {field} in an option")
    return items, dropped


def _counts(labelled: LabelledImages) -> dict[str, Any]:
    counts = Counter(image.class_name for image in labelled.images)
    return {
        "items": len(labelled.images),
        "classes": dict(sorted(counts.items())),
        "files_passed_over": labelled.passed_over,
    }
