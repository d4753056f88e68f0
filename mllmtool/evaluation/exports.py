"""Suites as files of other harnesses, so that they can run what they run well.

Every text of a suite is data here: it goes through a YAML, JSON or TSV writer, never into code.
The items keep their order, by which `imports` finds them again.
"""

import csv
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from mllmtool.data.items import LETTERS, Item
from mllmtool.data.samples import IMAGE_MARK, write_jsonl
from mllmtool.data.suites import Suite, Task
from mllmtool.errors import DataError

UTILS = Path(__file__).parent / "templates" / "lmms_eval.py"
PREFIX = "mt_"
TASK_FUNCTIONS = ("doc_to_visual", "doc_to_text", "doc_to_target", "process_results")
MISSING = {"", "#n/a", "n/a", "na", "nan", "<na>", "null", "none"}  # what pandas reads as no value


def export(suite: Suite, to: str, into: Path) -> str:
    """Write the suite's tasks for a harness, and return the command that runs them there.

    Raises:
        DataError: an image is missing, two names collide, or the harness cannot hold a task.
    """
    names = names_of(suite.tasks)
    for task in suite.tasks:
        EXPORTERS[to](task, names[task.name], into)
    return COMMANDS[to](list(names.values()))


def slug(name: str) -> str:
    """A task's name in another harness, which choose code by parts of names: `mt_image_wiki`."""
    return PREFIX + re.sub(r"[^a-z0-9]+", "_", name.lower())


def accepted(task: Task, item: Item) -> tuple[str, ...]:
    """Responses that are right as they stand."""
    return (task.answers(item)[item.answer],) if item.options else item.answers


def label(task: Task, item: Item) -> str:
    """The item's id with its task's, which no reader of tables takes for a number."""
    return f"{task.name}/{item.id}"


def names_of(tasks: Iterable[Task]) -> dict[str, str]:
    """What tasks are called in the other harness.

    Raises:
        DataError: two names collide.
    """
    found: dict[str, str] = {}
    for task in tasks:
        name = slug(task.name)
        if name in found.values():
            other = next(key for key, value in found.items() if value == name)
            raise DataError(f"{task.path}: name: {task.name} and {other} would both be {name}")
        found[task.name] = name
    return found


def _lmms_eval(task: Task, name: str, into: Path) -> None:
    """`NAME/NAME.yaml`, its functions in `utils.py`, and `items.jsonl`."""
    folder = into / name
    folder.mkdir()
    shutil.copyfile(UTILS, folder / "utils.py")
    write_jsonl(folder / "items.jsonl", (_document(task, item) for item in task.items))
    text = yaml.dump(_description(task, name), Dumper=_Dumper, sort_keys=False)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def _document(task: Task, item: Item) -> dict[str, Any]:
    """Values of one type in every row, as `datasets` wants; no key says image, or it is dropped."""
    return {
        "item": label(task, item),
        "paths": [str(path.resolve()) for path in task.images(item)],
        "prompt": _prompt(task, item),
        "accepted": list(accepted(task, item)),
        "cluster": "\n".join(item.images) or item.id,
    }


def _description(task: Task, name: str) -> dict[str, Any]:
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}/items.jsonl"}},
        "test_split": "test",
        "output_type": "generate_until",
        **{function: _Function(f"utils.{function}") for function in TASK_FUNCTIONS},
        "generation_kwargs": {
            "max_new_tokens": task.file.max_new_tokens,
            "do_sample": False,
            "temperature": 0,
            "num_beams": 1,
        },
        "metric_list": [{"metric": "match", "aggregation": "mean", "higher_is_better": True}],
        "score_key": "match",
        "cluster_key": "cluster",
        "metadata": [{"version": 1.0}],
    }


class _Function(str):
    """A function of the `utils.py` beside the YAML."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes `!function utils.NAME`."""


def _represent(dumper: yaml.SafeDumper, function: _Function) -> yaml.ScalarNode:
    return dumper.represent_scalar("!function", str(function))


_Dumper.add_representer(_Function, _represent)


def _vlmevalkit(task: Task, name: str, into: Path) -> None:
    """`NAME.tsv`, which is read as multiple choice where it has columns of options.

    There VLMEvalKit puts the question in its own words, so that scores are to be compared with
    others from there; elsewhere, and in lmms-eval, the prompt is ours.
    """
    pictured = {bool(item.images) for item in task.items}
    if len(pictured) > 1:
        raise DataError(f"{task.items_path}: VLMEvalKit wants a picture in every item or in none")
    shown = _shows_options(task)
    if not shown and not all(pictured):
        raise DataError(f"{task.path}: VLMEvalKit reads no task without pictures and options")
    width = max(len(item.options) for item in task.items) if shown else 0
    columns = ["index", "item", "question", *LETTERS[:width], "answer", "category"]
    columns += ["image_path"] if all(pictured) else []
    with (into / f"{name}.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, dialect="excel-tab", lineterminator="\n")
        writer.writeheader()
        for index, item in enumerate(task.items):
            writer.writerow({"index": index} | _row(task, item, shown))


def _row(task: Task, item: Item, shown: bool) -> dict[str, str]:
    paths = [str(path.resolve()) for path in task.images(item)]
    row = {
        "item": label(task, item),
        "question": item.question if shown else _prompt(task, item),
        "answer": accepted(task, item)[0],
        "category": task.file.quadrant.name,
    }
    row |= dict(zip(LETTERS, item.options, strict=False)) if shown else {}
    return row | ({"image_path": paths[0] if len(paths) == 1 else repr(paths)} if paths else {})


def _shows_options(task: Task) -> bool:
    """Whether options can be columns; a cell that pandas reads as a number or none changes."""
    if task.file.answer != "letter":
        return False
    return all(_is_text(option) for item in task.items for option in item.options)


def _is_text(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() not in MISSING
    return False


def _prompt(task: Task, item: Item) -> str:
    (turn,) = task.sample(item).messages
    return str(turn.content).replace(f"{IMAGE_MARK}\n", "", len(item.images))


def _lmms_eval_command(names: Sequence[str]) -> str:
    return (
        "python -m lmms_eval --model qwen2_5_vl --model_args pretrained=CHECKPOINT"
        f" --include_path . --tasks {','.join(names)} --batch_size 1 --log_samples"
        " --output_path RESULTS"
    )


def _vlmevalkit_command(names: Sequence[str]) -> str:
    return f'LMUData="$PWD" PRED_FORMAT=tsv python run.py --data {shlex.join(names)} --mode infer'


EXPORTERS: dict[str, Callable[[Task, str, Path], None]] = {
    "lmms-eval": _lmms_eval,
    "vlmevalkit": _vlmevalkit,
}
COMMANDS: dict[str, Callable[[Sequence[str]], str]] = {
    "lmms-eval": _lmms_eval_command,
    "vlmevalkit": _vlmevalkit_command,
}
