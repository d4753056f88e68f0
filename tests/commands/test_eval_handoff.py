"""`eval-matrix export` and `import`: a suite to another harness, and its results back."""

import json
from pathlib import Path

import pytest
from commandline import mllmtool
from suite_factory import colour_suite

from mllmtool.reports import read_report


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_suite(tmp_path_factory.mktemp("suite"), 4)


def test_export_writes_tasks_and_tells_the_command(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = mllmtool("eval-matrix", "export", "--suite", suite, "--to", "lmms-eval", "--out", out)
    assert (done.status, done.out) == (0, f"{out}\n")
    report = read_report(out / "report.json")
    names = ["mt_colour_letter", "mt_other_letter", "mt_colour_open", "mt_sums"]
    assert list(report.results["tasks"].values()) == names
    assert report.results["command"] in done.err
    assert f"--tasks {','.join(names)}" in report.results["command"]
    assert [one.path for one in report.outputs] == sorted(
        f"{name}/{file}" for name in names for file in ("items.jsonl", f"{name}.yaml", "utils.py")
    )
    assert [one.role for one in report.inputs] == ["suite", *("task", "items") * 4]


def test_export_again_gives_the_same_bytes(suite: Path, tmp_path: Path) -> None:
    reports = []
    for name in ("a", "b"):
        mllmtool(
            *("eval-matrix", "export", "--suite", suite, "--to", "lmms-eval"),
            *("--out", tmp_path / name),
        )
        reports.append(json.loads((tmp_path / name / "report.json").read_text()))
        del reports[-1]["run"]
    assert reports[0] == reports[1]


def test_export_plans(suite: Path, tmp_path: Path) -> None:
    done = mllmtool("eval-matrix", "export", "--suite", suite, "--to", "lmms-eval", "--dry-run")
    assert (done.status, json.loads(done.out)["items"]) == (0, 16)
    assert not (tmp_path / "out").exists()


def test_what_a_harness_cannot_hold_leaves_nothing(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = mllmtool("eval-matrix", "export", "--suite", suite, "--to", "vlmevalkit", "--out", out)
    sums = suite.parent / "tasks/sums.yaml"
    message = f"{sums}: VLMEvalKit reads no task without pictures and options"
    assert (done.status, done.err) == (3, f"mllmtool: {message}\n")
    assert list(tmp_path.iterdir()) == []
