"""What follows the predictions: scoring again, comparing, stages, tables, and open tasks."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import factories
import pytest
from commandline import mllmtool
from suite_factory import change, change_line, colour_suite, write_suite, write_task

from mllmtool import __version__
from mllmtool.commands import eval_matrix
from mllmtool.configs.base import RunConfig
from mllmtool.configs.eval_matrix import EvalMatrixConfig
from mllmtool.errors import DataError, MllmtoolError
from mllmtool.evaluation.results import Results
from mllmtool.reports import read_report
from mllmtool.runner import execute

OPEN: dict[str, dict[str, Any]] = {
    "vqa": {"question": "What colour?", "answers": ["red"] * 6 + ["dark red"] * 4},
    "caption": {"references": ["a red picture", "red all over"]},
    "exact": {"question": "Colour?", "answer": "red"},
    "chart": {"question": "How many?", "answer": "12"},
    "doc": {"question": "Title?", "answers": ["red", "a red"]},
    "ocr": {"question": "Text?", "answer": "red"},
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tasks with options, and one of every open type."""
    folder = tmp_path_factory.mktemp("suite")
    path = colour_suite(folder, number=4)
    names = [Path(name).stem for name in ("colour-letter", "other-letter", "colour-open", "sums")]
    for kind, row in OPEN.items():
        rows = [{"images": [f"{n}.png"], **row} for n in range(3)]
        asked = {} if "question" in row else {"prompt": "Describe the picture."}
        write_task(folder, kind, rows, "ood", "ood", type=kind, answer=None, **asked)
        change(folder / f"tasks/{kind}.yaml", answer=None)
    texts = [{"question": f"Say {word}", "answer": word} for word in ("red", "one")]
    write_task(folder, "text", texts, "ood", "id", type="text", role="heldout")
    change(folder / "tasks/text.yaml", answer=None, image_root=None)
    change(folder / "tasks/sums.yaml", role="new")
    return write_suite(path.parent, [*names, *OPEN, "text"])


@pytest.fixture(scope="module")
def made(suite: Path, llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("again")
    tuned = factories.tiny_llava(folder / "tuned", seed=1)
    other = factories.tiny_llava(folder / "other", seed=2)
    config = EvalMatrixConfig(
        suite=str(suite),
        base=str(llava),
        checkpoint=(str(tuned), str(other)),
        bootstrap=200,
        stages=("tuned=colour-letter", "other=sums"),
    )
    run = RunConfig(out=str(folder / "eval"), quiet=True)
    return execute("eval-matrix", eval_matrix.run, config, run)


@pytest.fixture(scope="module")
def results(made: Path) -> Results:
    return Results.model_validate(read_report(made / "report.json").results)


def again(made: Path, out: Path, **keys: Any) -> Path:
    config = EvalMatrixConfig.parse({"only": "score", "evals": str(made), "bootstrap": 200, **keys})
    return execute("eval-matrix", eval_matrix.run, config, RunConfig(out=str(out), quiet=True))


def test_every_type_of_task_is_scored(results: Results) -> None:
    found = {task.name: (task.type, task.primary, task.chance) for task in results.tasks}
    assert {name: found[name] for name in OPEN} == {
        "vqa": ("vqa", "vqa_norm", 0.0),
        "caption": ("caption", "cider", 0.0),
        "exact": ("exact", "em", 0.0),
        "chart": ("chart", "relaxed", 0.0),
        "doc": ("doc", "anls", 0.0),
        "ocr": ("ocr", "ocr_contains", 0.0),
    }
    cell = results.cell("tuned", "caption")
    assert set(cell.metrics) == {
        "cider",
        *(f"bleu_{n}" for n in range(1, 5)),
        "rouge_l",
        "format_fail",
    }
    assert (cell.agreement, cell.letter_hist) == (None, None)
    assert cell.metrics["bleu_4"].ci_method == "cluster_bayesian_bootstrap"
    assert cell.vs_base is not None
    assert (cell.vs_base.p_method, cell.vs_base.likelihood_delta) == ("sign_flip", None)
    assert results.caption_tokenizer == "ptb-lite/1"
    assert results.balance("tuned").heldout is not None


def test_the_stages_are_in_the_report(results: Results, made: Path) -> None:
    stages = results.stages
    assert stages is not None
    assert stages.checkpoints == ("base", "tuned", "other")
    assert stages.tasks == ("colour-letter", "sums")
    assert len(stages.scores) == 3
    last = next(figure for figure in stages.figures if figure.name == "last")
    assert last.value == pytest.approx(sum(stages.scores[2]) / 2)
    assert "| bwt_gem |" in (made / "report.md").read_text()


def test_tables_hold_the_raw_figures(results: Results, made: Path) -> None:
    tables = made / "tables"
    with (tables / "cells.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == sum(len(cell.metrics) for cell in results.cells)
    for row, (cell, name) in zip(
        cells, ((c, name) for c in results.cells for name in c.metrics), strict=True
    ):
        assert (row["checkpoint"], row["task"], row["metric"]) == (cell.checkpoint, cell.task, name)
        assert float(row["value"]) == cell.metrics[name].value
        assert float(row["ci_lower"]) == cell.metrics[name].ci.lower
    with (tables / "stages.csv").open(newline="") as file:
        assert [row["checkpoint"] for row in csv.DictReader(file)] == ["base", "tuned", "other"]
    latex = (tables / "tables.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 5
    assert r"bwt\_gem" in latex


def test_scoring_again_gives_the_same_and_loads_no_torch(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    code = (
        "import sys, mllmtool.cli as c\n"
        "sys.argv = ['mllmtool', *sys.argv[1:]]\n"
        "try:\n    c.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    flags = ["--only", "score", "--evals", str(made), "--bootstrap", "200", "--out", str(out)]
    flags += ["--stages", "tuned=colour-letter", "--stages", "other=sums"]
    done = subprocess.run(
        [sys.executable, "-c", code, "eval-matrix", *flags],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    first, second = (read_report(path / "report.json") for path in (made, out))
    assert second.results == first.results
    for path in made.rglob("*.jsonl"):
        assert (out / path.relative_to(made)).read_bytes() == path.read_bytes()


def test_metrics_and_answers_may_change_afterwards(
    made: Path, suite: Path, results: Results, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(suite.parent, tmp_path / "own")) / "suite.yaml"
    change(own.parent / "tasks/doc.yaml", primary="em", metrics=["em", "anls"])
    change_line(own.parent / "tasks/exact.jsonl", 1, answer="green")
    out = again(made, tmp_path / "out", suite=str(own), margin=0.3)
    found = Results.model_validate(read_report(out / "report.json").results)
    assert found.margin == 0.3
    assert list(found.cell("base", "doc").metrics) == ["em", "anls", "format_fail"]
    assert found.cell("base", "vqa") == results.cell("base", "vqa")


def refused(made: Path, out: Path, **keys: Any) -> str:
    with pytest.raises(MllmtoolError) as caught:
        again(made, out, **keys)
    assert not [path for path in out.parent.iterdir() if out.name in path.name]
    return str(caught.value)


def test_a_suite_that_has_changed_is_refused(made: Path, suite: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(suite.parent, tmp_path / "own")) / "suite.yaml"
    task = own.parent / "tasks/vqa.yaml"
    change_line(own.parent / "tasks/vqa.jsonl", 1, question="Which colour?")
    assert refused(made, tmp_path / "out", suite=str(own)) == (
        f"{task}: items, prompts, options or pictures have changed since {made} was made;"
        " put the suite back, or run eval-matrix again"
    )
    shutil.copy(own.parent / "tasks/sums.jsonl", own.parent / "tasks/more.jsonl")
    change(task, name="more")
    assert refused(made, tmp_path / "out", suite=str(own)) == (
        f"{task}: more was not asked in {made}; put the suite back, or run eval-matrix again"
    )


def test_a_torn_line_of_predictions_is_named(made: Path, tmp_path: Path) -> None:
    torn = Path(shutil.copytree(made, tmp_path / "torn"))
    path = torn / "predictions/tuned/sums.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    message = refused(torn, tmp_path / "out")
    assert ".jsonl:4: is not JSON (" in message
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    assert " lacks sums-3, against " in refused(torn, tmp_path / "out")


def test_flags_that_do_not_go_together(made: Path, tmp_path: Path) -> None:
    for flags, message in (
        (["--only", "score"], "--only: goes with --evals, the directory of the predictions"),
        (
            ["--only", "score", "--evals", made, "--base", "b"],
            "--only: runs no model; leave --base, --checkpoint and --limit away",
        ),
        (
            ["--only", "report", "--evals", made, "--margin", "0.1"],
            "--only: report judges nothing anew; take score for another --margin or --stages",
        ),
        (
            ["--only", "score", "--evals", made, "--stages", "tuned", "--stages", "gone"],
            "--stages: gone is not among the checkpoints tuned, other",
        ),
        (
            ["--only", "score", "--evals", made, "--stages", "tuned"],
            "--stages: 1 stages for 2 tasks; write LABEL=TASK for each",
        ),
    ):
        done = mllmtool("eval-matrix", *flags, "--quiet", "--out", tmp_path / "out")
        assert (done.status, done.err) == (2, f"mllmtool: {message}\n")


def test_the_report_alone_is_written_again(made: Path, tmp_path: Path) -> None:
    out = again(made, tmp_path / "out", only="report")
    assert (out / "report.md").read_bytes() == (made / "report.md").read_bytes()
    assert (out / "report.html").read_bytes() == (made / "report.html").read_bytes()


def test_compare_any_two(made: Path, results: Results) -> None:
    done = mllmtool("eval-matrix", "compare", "tuned", "other", "--evals", made, "--json")
    assert (done.status, done.err) == (0, "")
    found = Results.model_validate_json(done.out)
    assert [row.label for row in found.checkpoints] == ["tuned", "other"]
    for task in results.tasks:
        values = [
            results.cell(label, task.name).metrics[task.primary].value
            for label in ("tuned", "other")
        ]
        compared = found.cell("other", task.name).vs_base
        assert compared is not None
        assert compared.delta == pytest.approx(values[1] - values[0])
    done = mllmtool("eval-matrix", "compare", "other", "tuned", "--evals", made, "--task", "sums")
    assert done.out.splitlines()[0].startswith("A is other, B is tuned; kept: ")
    assert [line for line in done.out.splitlines() if line.startswith("| sums |")]
    done = mllmtool("eval-matrix", "compare", "tuned", "gone", "--evals", made)
    message = "compare: gone is not among the checkpoints base, tuned, other"
    assert (done.status, done.err) == (2, f"mllmtool: {message}\n")
    done = mllmtool("eval-matrix", "compare", "tuned", "tuned", "--evals", made)
    message = "compare: tuned is named twice; name two checkpoints"
    assert (done.status, done.err) == (2, f"mllmtool: {message}\n")


def test_a_label_that_leads_elsewhere_is_refused(made: Path, tmp_path: Path) -> None:
    report = (made / "report.json").read_text()
    (tmp_path / "report.json").write_text(report.replace('"tuned"', '"../../tuned"'))
    done = mllmtool("eval-matrix", "compare", "../../tuned", "base", "--evals", tmp_path)
    message = f"{tmp_path}/report.json: results are not those of eval-matrix {__version__}"
    assert (done.status, done.err) == (3, f"mllmtool: {message}\n")


def test_check_finds_what_was_trained_on(suite: Path, tmp_path: Path) -> None:
    done = mllmtool("eval-matrix", "check", "--suite", suite)
    assert (done.status, done.err) == (0, "")
    checked = json.loads(done.out)
    assert checked["items"] == 4 * 4 + 3 * 6 + 2
    asked = "What colour is the picture?"
    shutil.copy(suite.parent / "images/0.png", tmp_path / "same.png")
    rows = [
        {
            "id": "a",
            "images": ["same.png"],
            "messages": factories.turns(f"<image>\n{asked}", "red"),
        },
        {"id": "b", "images": ["same.png"], "messages": factories.turns("<image>\nNew?", "red")},
        {"id": "c", "images": [], "messages": factories.turns(asked, "red")},
    ]
    samples = factories.write_rows(tmp_path / "train.jsonl", rows)
    done = mllmtool("eval-matrix", "check", "--suite", suite, "--samples", samples)
    message = (
        f"{suite}: is trained on: 1 by text ({samples}:1), 1 by image ({samples}:2);"
        " leave them out by mix-data --exclude"
    )
    assert (done.status, done.out, done.err) == (3, "", f"mllmtool: {message}\n")


def test_check_decodes_every_image(suite: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(suite.parent, tmp_path / "own")) / "suite.yaml"
    (own.parent / "images/3.png").write_bytes(b"no picture")
    done = mllmtool("eval-matrix", "check", "--suite", own)
    assert done.status == DataError.status
    assert "3.png: is not a readable image: " in done.err
