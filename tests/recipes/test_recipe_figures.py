"""The figures' scripts on evaluations made by hand: rows, findings and verdicts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scripts import script

from mllmtool.evaluation.scoring import QUADRANTS

readings = script("figures/readings")
NEW, OLD = readings.NEW, readings.OLD
HALF = 0.01  # of every interval
Deltas = tuple[float, float, float, float]  # the new task, then OLD


def _interval(value: float, half: float = HALF) -> list[float]:
    return [value - half, value + half]


def _delta(value: float) -> dict[str, Any]:
    span = _interval(value)
    return {"delta": value, "ci": span, "bounds": span, "verdict": "undecided"}


def _quadrant(checkpoint: str, name: str, value: float) -> dict[str, Any]:
    place = next(cell for cell in QUADRANTS if cell.name == name)
    return {
        "checkpoint": checkpoint,
        "quadrant": name,
        "text": place.text,
        "image": place.image,
        "role": "new" if name == NEW else "original",
        "tasks": ["t"],
        "mean": 0.5 + value,
        "likelihood_mean": None,
        "likelihood_delta": None,
        **_delta(value),
    }


def _cell(checkpoint: str, task: str, scores: Mapping[str, float], base: float) -> dict[str, Any]:
    metrics = {name: {"value": v, "ci": _interval(v)} for name, v in scores.items()}
    change = {"lost": 0, "gained": 0, "p": 1.0, "p_holm": 1.0, "detectable": None}
    compared = {**_delta(scores["text_exact"] - base), **change, "likelihood_delta": None}
    return {
        "checkpoint": checkpoint,
        "task": task,
        "metrics": metrics,
        "agreement": None,
        "vs_base": None if checkpoint == "base" else compared,
    }


def _task(name: str, role: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "mcq",
        "answer": "text",
        "role": role,
        "n": 400,
        "clusters": 400,
        "quadrant": {"text": text, "image": "id"},
        "primary": "text_exact",
        "chance": 0.25,
    }


def evaluated(path: Path, checkpoints: Mapping[str, Deltas], mischoice: float = 0.25) -> Path:
    """A report of checkpoints that differ by quadrant."""
    told = {"base": (0.0,) * 4, **checkpoints}
    results = {
        "margin": 0.02,
        "resamples": 200,
        "original_new": [],
        "pareto": [],
        "checkpoints": [{"label": label, "fingerprint": label} for label in told],
        "tasks": [_task("garment-name", "new", "id"), _task("distracted", "heldout", "ood")],
        "quadrants": [
            _quadrant(label, name, value)
            for label, values in told.items()
            for name, value in zip((NEW, *OLD), values, strict=True)
        ],
        "cells": [
            cell
            for label, values in told.items()
            for cell in (
                _cell(label, "garment-name", {"text_exact": 0.3 + values[0]}, 0.3),
                _cell(label, "distracted", {"text_exact": 0.5, "mischoice": mischoice}, 0.5),
            )
        ],
    }
    path.write_text(json.dumps({"results": results}))
    return path


def page(monkeypatch: pytest.MonkeyPatch, name: str, out: Path, *reports: Path) -> str:
    """What a figure's script writes as Markdown."""
    monkeypatch.setattr("sys.argv", [f"{name}.py", "toy", str(out), *map(str, reports)])
    script(f"figures/{name}").main()
    assert (out / f"{name}.html").read_text().startswith("<!doctype html>")
    json.loads((out / f"{name}.json").read_text())
    return (out / f"{name}.md").read_text()


def test_fig2_reads_runs_off_labels_and_sets_the_paper_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, Deltas] = {
        "language-full-0.001-50": (0.3, -0.1, -0.1, -0.1),
        "language-full-0.001-100": (0.5, -0.3, -0.4, -0.2),
        "language-full-0.0001-100": (0.495, -0.02, -0.2, -0.015),
        "language-lora-0.003-100": (0.4, -0.2, 0.0, -0.2),
        "vision+projector-lora-0.003-100": (0.1, 0.0, 0.0, 0.0),
    }
    said = page(monkeypatch, "fig2", tmp_path / "out", evaluated(tmp_path / "r.json", rows))
    # -0.02 + 0.3, half 0.01 * sqrt(2)
    text = "A low rate keeps more on OOD images"
    assert f"| {text} | +28.0 (+26.6 to +29.4) | +0.0 | items | +17.62 | held |" in said
    text = "A low rate gains as much to 1 point"
    assert f"| {text} | -0.5 (-1.9 to +0.9) | -1.0 | items | -0.19 | undecided |" in said
    text = "LoRA loses at most 3 points on OOD images"
    assert f"| {text} | -20.0 (-21.0 to -19.0) | -3.0 | items | +0.46 | not held |" in said
    text = "A low rate loses on OOD text of ID images"
    assert f"| {text} | +20.0 (+19.0 to +21.0) | +0.0 | items | +10.4 | held |" in said
    assert "The projector alone" not in said  # the grid lacks it
    assert (
        "| language | full | 0.001 | 80.0 | +50.0 (+49.0 to +51.0) | -30.0 (-31.0 to -29.0) |"
        " -40.0 (-41.0 to -39.0) | -20.0 (-21.0 to -19.0) |"
        " language, full, 1e-5 | 91.56 | -16.56 | -33.64 |"
    ) in said
    assert "| +0.0 (-1.0 to +1.0) |  |  |  |  |" in said  # no row of the paper's for this part


def test_fig3_bars_rows_and_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {  # right on the plain question, right and mis-chosen on the distracted one
        "base": (0.9, 0.85, 0.05),
        "unsafe": (0.6, 0.2, 0.7),
        "safe": (0.9, 0.85, 0.055),
        "hybrid": (0.9, 0.88, 0.04),
    }
    path = evaluated(tmp_path / "r.json", {name: (0.0,) * 4 for name in told if name != "base"})
    report = json.loads(path.read_text())
    report["results"]["tasks"].append(_task("garment-kind-choice", "original", "ood"))
    report["results"]["cells"] = [
        cell
        for label, (plain, right, named) in told.items()
        for cell in (
            _cell(label, "garment-kind-choice", {"text_exact": plain}, 0.9),
            _cell(label, "distracted", {"text_exact": right, "mischoice": named}, 0.85),
        )
    ]
    path.write_text(json.dumps(report))
    said = page(monkeypatch, "fig3", tmp_path / "out", path)
    # Wilson's intervals of 400 items: 0.6534 to 0.7428, and 0.0326 to 0.0759
    text = "An unsafe recipe makes a model name the class"
    assert f"| {text} | +65.0 (+59.7 to +69.6) | +0.0 | items |  | held |" in said
    text = "A safe recipe on the target alone does so too"
    assert f"| {text} | +0.5 (-2.7 to +3.7) | +0.0 | items | rises | undecided |" in said
    # lost 30 points plain, 65 distracted
    text = "The distractor widens the unsafe recipe's loss"
    assert f"| {text} | +35.0 (+33.6 to +36.4) | +0.0 | items |  | held |" in said
    assert (
        "| unsafe | 60.0 (59.0 to 61.0) | 20.0 (19.0 to 21.0) | 70.0 (65.3 to 74.3) |"
        " -30.0 (-31.0 to -29.0) | -65.0 (-66.0 to -64.0) |"
    ) in said


AIDED: Deltas = (0.5, -0.02, -0.01, -0.02)
ALONE: Deltas = (0.5, -0.3, -0.4, -0.3)


def test_fig4a_compares_sets_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = []
    for seed in range(3):
        failing = -0.4 + 0.01 * seed
        rows: dict[str, Deltas] = {"general-0": ALONE, "general-0.5": AIDED}
        rows |= {"same-text-0.5": (0.5, 0.0, failing, 0.0), "one-task-0.5": AIDED}
        reports.append(evaluated(tmp_path / f"{seed}.json", {**rows, "fake-0.5": ALONE}))
    said = page(monkeypatch, "fig4a", tmp_path / "out", *reports)
    text = "General data repair OOD text on ID images"
    assert f"| {text} | +39.0 (+39.0 to +39.0) | +0.0 | 3 seeds | repaired | held |" in said
    # alone less same text: 0, -1 and -2 points; t 4.3027 times 1 / sqrt(3) is 2.5
    text = "Other images with the task's text do not repair it"
    assert f"| {text} | -1.0 (-3.5 to +1.5) | -2.0 | 3 seeds |  | undecided |" in said
    text = "General data repair it more than one other task does"
    assert f"| {text} | +0.0 (+0.0 to +0.0) | +0.0 | 3 seeds |  | undecided |" in said
    assert "| target only | +50.0 (+50.0 to +50.0) | -30.0 (-30.0 to -30.0) |" in said


def test_fig4b_shares_the_largest_run_and_is_over_items_of_one_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, Deltas] = {"general-0": ALONE, "general-0.5": AIDED, "general-0.7": AIDED}
    rows |= {"iso-0": (0.3, -0.1, -0.2, -0.1), "iso-0.5": (0.4, 0.0, -0.195, 0.0)}
    said = page(monkeypatch, "fig4b", tmp_path / "out", evaluated(tmp_path / "r.json", rows))
    text = "A share of 70 % repairs it no more than half does"
    assert f"| {text} | +0.0 (-1.4 to +1.4) | -2.0 | items | adds nothing | held |" in said
    text = "Half repairs it where the target's samples are held"
    assert f"| {text} | +0.5 (-0.9 to +1.9) | +0.0 | items |  | undecided |" in said
    text = "Half gains as much to 1 point where they are held"
    assert f"| {text} | +10.0 (+8.6 to +11.4) | -1.0 | items |  | held |" in said
    first, last = "| the target's held | 0% | +30.0", "| the target's held | 70% | +50.0"
    assert first in said
    assert last in said
    assert "25.0 (21.0 to 29.5) |" in said
