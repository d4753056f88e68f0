"""`build-vqa`: labelled images as questions, for training and for evaluation.

Images stay where they are, but embedded ones, which are written out. The report names their folder,
as `run.images_root`, relative to the output, and whatever reads the samples finds it there.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mllmtool.configs.base import flag
from mllmtool.configs.build_vqa import BuildVqaConfig, Style
from mllmtool.context import Context
from mllmtool.data.choices import Questions, sample
from mllmtool.data.class_distractor import distracted, read_items
from mllmtool.data.distractors import Near, Pool, read_confusion
from mllmtool.data.items import LETTERS
from mllmtool.data.labelled import Columns, Labelled, LabelledImages, option_text, read_labelled
from mllmtool.data.samples import images_root, write_jsonl
from mllmtool.data.styles import (
    CHOICE,
    DEFAULTS,
    Template,
    Templates,
    columns_of,
    make_templates,
    read_templates,
)
from mllmtool.data.tables import is_table
from mllmtool.errors import ConfigError, DataError, some
from mllmtool.reports import Artifact, file_sha256
from mllmtool.runner import Made

ITEMS, SAMPLES = "items.jsonl", "samples.jsonl"
CACHE = Path("~/.cache/mllmtool/embeddings")
Row = dict[str, Any]


def run(config: BuildVqaConfig, context: Context, into: Path) -> Made:
    """Write `items.jsonl` and, unless it is a distractor set, `samples.jsonl`."""
    if config.distract is not None:
        return _distractor_set(config.distract, Path(config.images), context, into)
    templates = _templates(config)
    labelled = _labelled(config, templates, context, into)
    near, inputs, facts = _near(config, labelled, context)
    questions = _questions(config, templates, labelled, near, context)
    found = _write(config, questions, context.track(labelled.images, "questions"), into)
    if config.templates is not None:
        inputs.append(_file("templates", config.templates))
    return Made(
        inputs=[Artifact(role="images", path=config.images, sha256=labelled.sha256), *inputs],
        results=_counts(labelled) | found,
        run={"images_root": os.path.relpath(labelled.root.resolve(), into.resolve())} | facts,
    )


def plan(config: BuildVqaConfig, context: Context) -> Row:
    """Check every label, and say what would be asked; with `--clip` nothing is embedded."""
    if config.distract is not None:
        items, dropped = _distracted(config.distract, Path(config.images), context)
        return {"items": len(items), "dropped": dropped, "first": items[0]}
    templates = _templates(config)
    labelled = _labelled(config, templates, context)
    if config.clip is not None:
        from mllmtool.models.similarity import open_similarity

        open_similarity(config.clip)
        return _counts(labelled)
    near, _, _ = _near(config, labelled, context)
    questions = _questions(config, templates, labelled, near, context)
    return _counts(labelled) | {"first": next(questions.items(labelled.images[0]))}


def _templates(config: BuildVqaConfig) -> Templates:
    label = config.label_column
    path = config.templates
    given: dict[Any, Any] = {} if path is None else read_templates(Path(path), label)
    try:
        found = {
            style: given.get(style) or make_templates(style, _default(config, style), label)
            for style in config.style
        }
    except ValueError as error:
        raise ConfigError(f"--question: {error}") from error
    columns = columns_of(found)
    if columns and not is_table(Path(config.images)):
        raise ConfigError(
            f"{'--question' if path is None else path}: {some([f'{{{name}}}' for name in columns])}"
            f" is a column, and {config.images} is a folder of classes, which has none"
        )
    return found


def _default(config: BuildVqaConfig, style: Style) -> Sequence[str | Template]:
    return config.question if style == CHOICE else [DEFAULTS[style]]


def _labelled(
    config: BuildVqaConfig, templates: Templates, context: Context, into: Path | None = None
) -> LabelledImages:
    path = Path(config.images)
    try:
        fixed = [option_text(text) for text in config.fixed_options]
    except ValueError as error:
        raise ConfigError(f"--fixed-options: {error}") from error
    _check_read(config)
    columns = Columns(
        config.image_column,
        config.label_column,
        columns_of(templates),
        None if config.image_root is None else Path(config.image_root),
    )
    labelled = read_labelled(path, columns, into)
    texts = {*labelled.classes, *fixed}
    if len(texts) < config.options:
        has = f"{config.images} has {len(labelled.classes)} ({some(labelled.classes)})"
        raise ConfigError(f"--options: {config.options} options need as many classes, and {has}")
    _warn_of_single(labelled, context)
    return labelled


def _warn_of_single(labelled: LabelledImages, context: Context) -> None:
    """Tell of classes that cannot be both learnt and evaluated."""
    counts = Counter(image.class_name for image in labelled.images)
    single = [image for image in labelled.images if counts[image.class_name] == 1]
    if single:
        context.warn(
            f"{single[0].where}: class {single[0].class_name!r} has one image ({len(single)} of"
            f" {len(counts)} classes have); add images, or leave such classes out"
        )


def _check_read(config: BuildVqaConfig) -> None:
    """Refuse what only a table has where there is a folder of classes."""
    for name in ("image_column", "label_column", "image_root"):
        default = BuildVqaConfig.model_fields[name].default
        if getattr(config, name) != default and not is_table(Path(config.images)):
            raise ConfigError(
                f"{flag(name)}: is not read, as {config.images} is a folder of classes"
            )


def _near(
    config: BuildVqaConfig, labelled: LabelledImages, context: Context
) -> tuple[Near | None, list[Artifact], Row]:
    """Which classes are near to an image, what was read for it, and what may differ by run."""
    if config.confusion is not None:
        confused = read_confusion(Path(config.confusion), labelled.classes)
        inputs = [_file("confusion", config.confusion)]
        drawn = config.options - 1 - len(config.fixed_options)
        few = [
            name for name in confused if len({*confused[name]} - {*config.fixed_options}) < drawn
        ]
        if few:
            context.warn(
                f"{config.confusion}: {some(few)}: taken for fewer than {drawn} other classes;"
                " the rest of the options are drawn from all"
            )
        return lambda image: confused[image.class_name], inputs, {}
    if config.clip is None:
        return None, [], {}
    from mllmtool.models.similarity import Picture, Similarity

    folder = CACHE.expanduser() if config.cache is None else Path(config.cache)
    similarity = Similarity.open(config.clip, folder)
    pictures = [Picture(labelled.root / image.image, image.where) for image in labelled.images]
    number = config.topk + len(config.fixed_options) + 1
    classes = labelled.classes
    nearest = similarity.nearest(pictures, classes, number, context)
    rows = {image.key: row for image, row in zip(labelled.images, nearest, strict=True)}
    return (
        lambda image: [classes[index] for index in rows[image.key]],
        [Artifact(role="clip", path=config.clip, sha256=similarity.fingerprint)],
        {"cache": str(similarity.cache.folder), "embedded": similarity.cache.added},
    )


def _questions(
    config: BuildVqaConfig,
    templates: Templates,
    labelled: LabelledImages,
    near: Near | None,
    context: Context,
) -> Questions:
    pool = Pool(labelled.classes, config.options, config.fixed_options, near, config.topk)
    return Questions(templates, pool, config.per_epoch, context.rng)


def _write(
    config: BuildVqaConfig, questions: Questions, images: Iterable[Labelled], into: Path
) -> Row:
    """Write items and samples side by side, and count the questions and the right letters."""
    styles, answers = Counter[str](), Counter[str]()
    with (
        (into / ITEMS).open("w", encoding="utf-8") as items,
        (into / SAMPLES).open("w", encoding="utf-8") as samples,
    ):
        for item in (item for image in images for item in questions.items(image)):
            items.write(json.dumps(item, ensure_ascii=False) + "\n")
            samples.write(json.dumps(sample(item, config.answer), ensure_ascii=False) + "\n")
            styles[item["style"]] += 1
            answers[LETTERS[item["answer"]]] += item["style"] == CHOICE
    return {
        "items": styles.total(),
        "styles": dict(sorted(styles.items())),
        "answers": dict(sorted(answers.items())),
    }


def _distractor_set(field: str, source: Path, context: Context, into: Path) -> Made:
    items, dropped = _distracted(field, source, context)
    write_jsonl(into / ITEMS, items)
    return Made(
        inputs=[_file("images", str(source))],
        results={"items": len(items), "dropped": dropped},
        run={"images_root": os.path.relpath(images_root(source).resolve(), into.resolve())},
    )


def _distracted(field: str, source: Path, context: Context) -> tuple[list[Row], list[str]]:
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


def _file(role: str, path: str) -> Artifact:
    return Artifact(role=role, path=path, sha256=file_sha256(Path(path)))


def _counts(labelled: LabelledImages) -> Row:
    counts = Counter(image.class_name for image in labelled.images)
    return {
        "images": len(labelled.images),
        "classes": dict(sorted(counts.items())),
        "files_passed_over": labelled.passed_over,
        "duplicate_rows": labelled.duplicates,
    }
