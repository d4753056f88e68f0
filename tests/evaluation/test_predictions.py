"""Predictions on disk."""

import json
from pathlib import Path

import pytest
from suite_factory import text_suite

from mllmtool.data.suites import Task, read_suite
from mllmtool.errors import DataError
from mllmtool.evaluation.predictions import (
    Prediction,
    predictions_path,
    read_predictions,
    write_predictions,
)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return read_suite(text_suite(tmp_path, number=3)).tasks[0]


def predictions(task: Task) -> list[Prediction]:
    return [
        Prediction(item=item.id, response='é "\n\u2028', finish="end", logprobs=(-0.125, -1e-6))
        for item in task.items
    ]


def test_round_trip(task: Task, tmp_path: Path) -> None:
    path = predictions_path(tmp_path, "tuned", task)
    write_predictions(path, predictions(task))
    assert path == tmp_path / "predictions/tuned/sums-letter.jsonl"
    assert len(path.read_bytes().splitlines()) == 3
    assert read_predictions(path, task) == predictions(task)


def test_order_in_the_file_does_not_matter(task: Task, tmp_path: Path) -> None:
    path = predictions_path(tmp_path, "tuned", task)
    write_predictions(path, predictions(task)[::-1])
    assert read_predictions(path, task) == predictions(task)


def test_items_of_another_task(task: Task, tmp_path: Path) -> None:
    path = predictions_path(tmp_path, "tuned", task)
    stranger = predictions(task)[0].model_copy(update={"item": "x-1"})
    write_predictions(path, [*predictions(task)[1:], stranger])
    with pytest.raises(DataError) as caught:
        read_predictions(path, task)
    assert str(caught.value) == (
        f"{path}: lacks sums-letter-0 and has x-1 besides, against {task.items_path}"
    )


def test_a_line_that_is_no_prediction(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    row = {**predictions(task)[0].model_dump(), "finish": "?"}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        read_predictions(path, task)
    assert str(caught.value) == f"{path}:1: finish: Input should be 'end' or 'length'"
