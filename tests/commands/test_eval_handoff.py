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


def answer(exported: Path, folder: Path, wrong: int) -> Path:
    """As lmms-eval leaves results: every task's items answered, the first `wrong` of them not."""
    for path in exported.glob("*/items.jsonl"):
        folder.mkdir(parents=True, exist_ok=True)
        docs = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [
            {
                "doc_id": n,
                "target": doc["accepted"][0],
                "filtered_resps": ["nothing" if n < wrong else doc["accepted"][0]],
            }
            for n, doc in enumerate(docs)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"20260101_samples_{path.parent.name}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def imported(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    mllmtool(
        *("eval-matrix", "export", "--suite", suite, "--to", "lmms-eval"),
        *("--out", folder / "exported"),
    )
    done = mllmtool(
        *("eval-matrix", "import", "--from", "lmms-eval", "--suite", suite),
        *("--base", answer(folder / "exported", folder / "of-base", 1)),
        *("--checkpoint", f"tuned={answer(folder / 'exported', folder / 'of-tuned', 3)}"),
        *("--out", folder / "evals"),
    )
    assert done.status == 0, done.err
    return folder / "evals"


def test_import_judges_as_the_command_itself_does(imported: Path) -> None:
    results = read_report(imported / "report.json").results
    cells = {(cell["checkpoint"], cell["task"]): cell for cell in results["cells"]}
    assert len(cells) == 8
    assert {cell["vs_base"]["delta"] for cell in cells.values() if cell["vs_base"]} == {-0.5}
    cell = cells["tuned", "sums"]
    assert cell["metrics"]["text_exact"]["value"] == 0.25
    assert cell["metrics"]["format_fail"]["value"] == 0.75
    assert "likelihood" not in cell["metrics"]
    assert (imported / "report.html").is_file()
    assert (imported / "predictions/tuned/sums.jsonl").is_file()


def test_what_was_imported_is_scored_again_and_compared(imported: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    done = mllmtool("eval-matrix", "--only", "score", "--evals", imported, "--out", out)
    assert done.status == 0, done.err
    before, after = read_report(imported / "report.json"), read_report(out / "report.json")
    assert before.results == after.results
    assert (out / "report.html").read_bytes() == (imported / "report.html").read_bytes()
    done = mllmtool("eval-matrix", "compare", "base", "tuned", "--evals", imported)
    assert (done.status, done.err) == (0, "")
    assert "−50.0" in done.out


def test_import_plans(suite: Path, imported: Path, tmp_path: Path) -> None:
    folder = imported.parent
    done = mllmtool(
        *("eval-matrix", "import", "--from", "lmms-eval", "--suite", suite, "--dry-run"),
        *("--base", folder / "of-base", "--checkpoint", folder / "of-tuned"),
        *("--out", tmp_path / "out"),
    )
    files = json.loads(done.out)["files"]
    assert files["of-tuned"]["sums"] == str(folder / "of-tuned/20260101_samples_mt_sums.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_results_that_do_not_fit_leave_nothing(suite: Path, imported: Path, tmp_path: Path) -> None:
    folder = imported.parent
    flags = ("eval-matrix", "import", "--suite", suite, "--out", tmp_path / "out")
    one = folder / "of-base/20260101_samples_mt_sums.jsonl"
    for source, base, status, message in (
        ("x", one, 2, "--from: 'x': input should be 'lmms-eval', 'vlmevalkit' or 'llama-factory'"),
        (
            *("lmms-eval", one, 3),
            f"{one}: holds results of one task, and {suite} has 4; name the folder of all results",
        ),
        (
            *("vlmevalkit", folder / "of-base", 3),
            f"{folder}/of-base: has no *_mt_colour_letter.tsv or *_mt_colour_letter.json or"
            " *_mt_colour_letter.xlsx, the results of colour-letter",
        ),
    ):
        done = mllmtool(*flags, "--from", source, "--base", base)
        assert (done.status, done.err) == (status, f"mllmtool: {message}\n")
        assert list(tmp_path.iterdir()) == []
