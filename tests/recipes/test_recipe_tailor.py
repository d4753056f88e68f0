"""Model Tailor's tables on evaluations made by hand, and the graph that leads to them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scripts import script
from test_recipe_graph import make

tables = script("tailor/tables")
TASKS = {"garment-name": "new", "digit-name": "original", "easy-vqa": "original"}
HALF = 0.03  # of every interval
Scores = tuple[float, float, float]  # of TASKS


def _task(name: str, role: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "mcq",
        "answer": "text",
        "role": role,
        "n": 400,
        "clusters": 400,
        "quadrant": {"text": "id", "image": "ood" if role == "original" else "id"},
        "primary": "text_exact",
        "chance": 0.25,
    }


def _cell(checkpoint: str, task: str, value: float) -> dict[str, Any]:
    metrics = {"text_exact": {"value": value, "ci": [value - HALF, value + HALF]}}
    return {"checkpoint": checkpoint, "task": task, "metrics": metrics, "agreement": None}


def evaluated(path: Path, told: Mapping[str, Scores]) -> Path:
    """A report of checkpoints by their scores."""
    results = {
        "margin": 0.02,
        "resamples": 200,
        **{name: [] for name in ("quadrants", "original_new", "pareto")},
        "checkpoints": [{"label": label, "fingerprint": label} for label in told],
        "tasks": [_task(*task) for task in TASKS.items()],
        "cells": [
            _cell(label, task, value)
            for label, scores in told.items()
            for task, value in zip(TASKS, scores, strict=True)
        ],
    }
    path.write_text(json.dumps({"results": results}))
    return path


def page(monkeypatch: pytest.MonkeyPatch, name: str, out: Path, *reports: Path) -> str:
    """What the script writes as Markdown."""
    monkeypatch.setattr("sys.argv", ["tables.py", name, "toy", str(out), *map(str, reports)])
    tables.main()
    assert (out / f"{name}.html").read_text().startswith("<!doctype html>")
    json.loads((out / f"{name}.json").read_text())
    return (out / f"{name}.md").read_text()


def test_h_score_is_the_harmonic_mean_and_its_interval_combines_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Scores] = {"base": (0.0, 0.9, 0.7), "unsafe": (0.6, 0.5, 0.3)}
    told |= {"paper-0.1": (0.6, 0.7, 0.5), "grafting-0.1": (0.2, 0.9, 0.7)}
    told |= {f"anchored-{strength}": (0.5, 0.7, 0.6) for strength in ("0.1-1", "1-0.3", "1-1")}
    said = page(monkeypatch, "tailor-main", tmp_path / "out", evaluated(tmp_path / "r", told))
    # original 0.4, half 0.03 * sqrt(2) / 2 = 0.0212; all three 0.4667, half 0.03 / sqrt(3) = 0.0173
    # H = 2 * 0.6 * 0.4 / 1.0 = 0.48; 0.57 gives 0.4701 and 0.3788 gives 0.4644: below by 0.0185
    row = "| unsafe | 60.0 (57.0 to 63.0) | 40.0 (37.9 to 42.1) | 46.7 (44.9 to 48.4) |"
    assert f"{row} 48.0 (46.2 to 49.8) | 56.42 | 63.40 |" in said
    assert "| paper-0.1 | 60.0 (57.0 to 63.0) | 60.0 (57.9 to 62.1) |" in said
    assert "| Tailor beats fine-tuning | +12.0 (" in said  # 0.60 against 0.48
    text = "A tenth keeps 97 % of the tuned checkpoint on the new task"
    # 0.6 - 0.97 * 0.6, half 0.03 * sqrt(1 + 0.97^2)
    assert f"| {text} | +1.8 (-2.4 to +6.0) | +0.0 | items | about 97 % | undecided |" in said
    text = "A tenth keeps 99 % of the base on the original tasks"
    assert f"| {text} | -19.2 (-22.2 to -16.2) | +0.0 | items | about 99 % | not held |" in said
    assert "shares.png" not in said  # anchored has two strengths
    assert "DARE |" not in said  # that checkpoint is not there
    assert "| paper-0.1 | 60.0 | 70.0 | 50.0 |" in said


def test_findings_of_several_seeds_are_paired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = [
        evaluated(
            tmp_path / f"{seed}",
            {
                "base": (0.0, 0.8, 0.8),
                "unsafe": (0.6 + 0.1 * seed, 0.4, 0.4),
                "paper-0.1": (0.5 + 0.1 * seed, 0.8, 0.8),
            },
        )
        for seed in range(3)
    ]
    said = page(monkeypatch, "tailor-main", tmp_path / "out", *reports)
    # 0.5 - 0.97 * 0.6 and on: -8.2, -7.9, -7.6; t 4.3027 times 0.3 / sqrt(3) is 0.745
    text = "A tenth keeps 97 % of the tuned checkpoint on the new task"
    assert f"| {text} | -7.9 (-8.6 to -7.2) | +0.0 | 3 seeds | about 97 % | not held |" in said
    assert "| unsafe | 70.0 (60.0 to 80.0) | 40.0 (40.0 to 40.0) |" in said


def test_sweep_is_drawn_against_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Scores] = {"base": (0.0, 0.8, 0.8), "unsafe": (0.7, 0.4, 0.4)}
    told |= {f"decorated-{kept}": (kept, 0.8 - kept, 0.8) for kept in (0.1, 0.2, 0.5)}
    said = page(monkeypatch, "tailor-sparsity", tmp_path / "out", evaluated(tmp_path / "r", told))
    assert "![Both by what is kept](shares.png)" in said
    assert (tmp_path / "out" / "shares.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("topic", "checkpoints", "tailored"),
    [("main", 11, 6), ("sparsity", 19, 3), ("mask", 21, 20), ("multitask", 11, 5), ("lora", 14, 3)],
)
def test_table_ends_with_its_script_on_an_evaluation(
    topic: str, checkpoints: int, tailored: int
) -> None:
    planned = make("-n", f"tailor-{topic}", "SEED=77", "SEEDS=77", "JOBS=1")
    assert planned.returncode == 0, planned.stderr
    assert "mixed implicit" not in planned.stderr
    lines = planned.stdout.replace("\\\n", "").splitlines()
    assert any(f"tables.py tailor-{topic} toy build/tailor/" in line for line in lines)
    evaluation = next(line for line in lines if "eval-matrix --suite" in line)
    assert evaluation.count("--checkpoint ") == checkpoints
    assert sum("mllmtool tailor " in line for line in lines) == tailored


def test_every_claim_is_about_checkpoints_that_are_made() -> None:
    for name, topic in script("tailor/claims").TOPICS.items():
        planned = make("-n", name, "SEED=77", "SEEDS=77", "JOBS=1")
        lines = planned.stdout.replace("\\\n", "").splitlines()
        line = next(line for line in lines if "eval-matrix --suite" in line)
        made = {Path(word.partition("=")[0]).name for word in line.split()}
        asked = {label for claim in topic.claims for label in (claim.first, claim.second)}
        assert asked <= made
