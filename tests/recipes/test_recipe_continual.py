"""The sequence's script and its third task, on evaluations made by hand and on the demo's data."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts import RECIPES, script

from mllmtool.metrics.stages import stage_figures

continual = script("continual/continual")
tasks = script("continual/tasks")
Matrix = Sequence[Sequence[float]]
NAMES = ("a", "b")


def _task(name: str) -> dict[str, Any]:
    place = {"text": "ood", "image": "ood"}
    sizes = {"n": 300, "clusters": 300, "primary": "text_exact", "chance": 0.25}
    return {
        "name": name,
        "type": "mcq",
        "answer": "text",
        "role": "new",
        "quadrant": place,
        **sizes,
    }


def _balance(checkpoint: str, kept: float) -> dict[str, Any]:
    names = ("original", "new", "h_score", "retention", "gain", "worst_delta", "worst_quadrant")
    return {"checkpoint": checkpoint, **dict.fromkeys(names), "mean_delta": kept}


def report(path: Path, order: Sequence[str], matrix: Matrix, kept: float = 0.0) -> Path:
    """A report of a checkpoint for each row of `matrix` but the base's, which is the first.

    With one for each task of `order` it has stages; with one in all, as of the joint one, none.
    """
    labels = ["base", *("-".join(order[: stage + 1]) for stage in range(len(matrix) - 1))]
    told = None
    if len(labels) > len(order):
        figures = [one._asdict() for one in stage_figures(matrix[0], matrix[1:])]
        told = {"checkpoints": labels, "tasks": order, "scores": matrix, "figures": figures}
    cells = [
        {
            "checkpoint": label,
            "task": task,
            "metrics": {"text_exact": {"value": score, "ci": [score, score]}},
            "agreement": None,
        }
        for label, row in zip(labels, matrix, strict=True)
        for task, score in zip(order, row, strict=True)
    ]
    results = {
        "margin": 0.02,
        "resamples": 200,
        "checkpoints": [{"label": label, "fingerprint": label} for label in labels],
        "tasks": [_task(name) for name in NAMES],
        "cells": cells,
        "quadrants": [],
        "original_new": [_balance(label, kept) for label in labels],
        "pareto": [],
        "stages": told,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"results": results}))
    return path


def page(monkeypatch: pytest.MonkeyPatch, out: Path, reports: Sequence[Path]) -> str:
    """What the script writes as Markdown."""
    monkeypatch.setattr("sys.argv", ["continual.py", "toy", str(out), *map(str, reports)])
    continual.main()
    assert (out / "continual.html").read_text().startswith("<!doctype html>")
    return (out / "continual.md").read_text()


FULL: Mapping[str, Matrix] = {
    "a-b": [(0.2, 0.2), (0.8, 0.3), (0.7, 0.9)],
    "b-a": [(0.2, 0.2), (0.8, 0.3), (0.78, 0.9)],
}
HIGH: Mapping[str, Matrix] = {
    "a-b": [(0.2, 0.2), (0.8, 0.3), (0.4, 0.9)],
    "b-a": [(0.2, 0.2), (0.8, 0.3), (0.48, 0.9)],
}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    reports = [report(tmp_path / "joint" / "report.json", NAMES, [(0.2, 0.2), (0.9, 0.9)])]
    for method, chains, kept in (("high", HIGH, -0.3), ("full", FULL, -0.1)):
        for order, matrix in chains.items():
            path = tmp_path / method / order / "report.json"
            reports.append(report(path, order.split("-"), matrix, kept))
    return page(monkeypatch, tmp_path / "out", reports)


def test_findings_are_over_orders_and_only_of_methods_that_are_there(said: str) -> None:
    # forgetting 40 and 32 against 10 and 2
    text = "A low rate forgets less than a high one"
    assert f"| {text} | +30.0 (+30.0 to +30.0) | +0.0 | 2 order(s) |  | held |" in said
    text = "A low rate learns as much to 2 points"
    assert f"| {text} | +0.0 (+0.0 to +0.0) | -2.0 | 2 order(s) |  | held |" in said
    text = "A low rate keeps more of the original tasks"
    assert f"| {text} | +20.0 (+20.0 to +20.0) | +0.0 | 2 order(s) |  | held |" in said
    # last 80 and 84, joint 90: sd sqrt(8), t of one degree 12.7062, half 12.7062 * 2 = 25.4
    text = "SeqFull ends as high as joint to 2 points"
    assert f"| {text} | -8.0 (-33.4 to +17.4) | -2.0 | 2 order(s) |  | undecided |" in said
    assert "replay |" not in said


def test_figures_and_formulas_are_those_of_the_report(said: str) -> None:
    low = "| 82.0 (80.0 to 84.0) | 85.0 (85.0 to 85.0) | 81.0 (80.0 to 82.0) | -6.0 (-10.0 to -2.0)"
    assert low in said
    one = "| full | a-b | 80.0 | 85.0 | 80.0 | -10.0 | -5.0 | 10.0 | +10.0 | -10.0 |"
    assert one in said
    assert "| joint: all tasks at once | 90.0 |" in said
    assert "| bwt_gem | 1/(T-1) sum_{j<T} (A[T][j] - A[j][j]) |" in said


def test_stages_are_by_task_whatever_the_order(said: str) -> None:
    assert "| order | after | a | b |" in said
    assert "| a-b | a | 80.0 | 30.0 |" in said
    assert "| b-a | b | 30.0 | 80.0 |" in said


def test_one_order_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [report(tmp_path / "joint" / "report.json", NAMES, [(0.2, 0.2), (0.9, 0.9)])]
    for method, chains in (("full", FULL), ("high", HIGH)):
        reports.append(report(tmp_path / method / "a-b" / "report.json", NAMES, chains["a-b"]))
    text = "| A low rate forgets less than a high one | +30.0 (no interval) |"
    assert text in page(monkeypatch, tmp_path / "out", reports)


def test_a_report_without_stages_is_refused(tmp_path: Path) -> None:
    path = report(tmp_path / "full" / "a-b" / "report.json", NAMES, FULL["a-b"])
    told = json.loads(path.read_text())
    del told["results"]["stages"]
    path.write_text(json.dumps(told))
    with pytest.raises(SystemExit, match="a report has no stages; give eval-matrix --stages"):
        continual.stages(continual.read(path))


def test_third_task_asks_for_corners_among_the_four_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "suite.yaml").write_text("schema: mllmtool.suite/1\ntasks: [x.yaml]\nmargin: 0.02\n")
    out = tmp_path / "tasks"
    argv = ["tasks.py", str(RECIPES / "demo" / "data"), str(data), str(out)]
    monkeypatch.setattr("sys.argv", argv)
    tasks.main()
    shapes = {row["id"]: row for row in tasks.Data(RECIPES / "demo" / "data").shapes}
    lines = (out / "shape-corners-test.jsonl").read_text().splitlines()
    items = [json.loads(line) for line in lines]
    assert len(items) == 305  # of 400 pictures those whose shape easy-VQA asks for
    for item in items:
        row = shapes[item["images"][0].removesuffix(".png")]
        assert sorted(item["options"]) == ["five", "four", "three", "zero"]
        corners = {"circle": "zero", "rectangle": "four", "triangle": "three"}
        shape = next(answer for answer in row["answers"] if answer in corners)
        assert item["options"][item["answer"]] == corners[shape]
        assert row["split"] == "test"
    suite = yaml.safe_load((out / "suite.yaml").read_text())
    assert suite["tasks"][0] == "../data/tasks/garment-name.yaml"
    assert suite["tasks"][-1] == "shape-corners.yaml"
