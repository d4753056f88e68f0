"""What a checkpoint made of a task, one JSON line an item: all that scoring needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mllmtool.data.samples import parse_line, read_jsonl, write_jsonl
from mllmtool.data.suites import Task
from mllmtool.errors import DataError, some

PREDICTIONS = "predictions"  # the folder of them in an output


class Prediction(BaseModel):
    """The greedy response to an item, and the log-probability of each option.

    `finish` is `end` where the model ended its response, `length` where it was cut. `logprobs` are
    natural logarithms, summed over the tokens that tell the options apart; none without options.
    `read` tells whether what questions share was read once, or each prompt and option whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    item: str
    response: str
    finish: Literal["end", "length"]
    logprobs: tuple[float, ...] = ()
    read: Literal["shared", "whole"] = "shared"


def predictions_path(folder: Path, label: str, task: Task) -> Path:
    """`folder/predictions/LABEL/TASK.jsonl`."""
    return folder / PREDICTIONS / label / f"{task.name}.jsonl"


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write a task's predictions, in the order of its items."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, (prediction.model_dump() for prediction in predictions))


def read_predictions(path: Path, task: Task) -> list[Prediction]:
    """Read a task's predictions in the order of its items.

    Raises:
        DataError: a line is wrong, or the items are not those of the task.
    """
    found: dict[str, Prediction] = {}
    for line, values in read_jsonl(path):
        prediction: Prediction = parse_line(Prediction, values, f"{path}:{line}")
        found[prediction.item] = prediction
    wanted = [item.id for item in task.items]
    missing = [name for name in wanted if name not in found]
    extra = sorted(set(found) - set(wanted))
    if missing or extra:
        what = [f"lacks {some(missing)}"] if missing else []
        what += [f"has {some(extra)} besides"] if extra else []
        raise DataError(f"{path}: {' and '.join(what)}, against {task.items_path}")
    return [found[name] for name in wanted]
