"""`eval-matrix` from the suite to the report, and everything that it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from commandline import mllmtool
from safetensors.torch import load_file, save_file
from suite_factory import change, change_line, colour_suite, text_suite

from mllmtool.checkpoints import Checkpoint
from mllmtool.commands import eval_matrix, fuse
from mllmtool.configs.base import RunConfig
from mllmtool.configs.eval_matrix import EvalMatrixConfig
from mllmtool.configs.fuse import FuseConfig
from mllmtool.context import Context
from mllmtool.errors import ConfigError, DataError, MismatchError, MllmtoolError, NumericError
from mllmtool.evaluation.results import Results
from mllmtool.reports import read_report
from mllmtool.runner import execute


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_suite(tmp_path_factory.mktemp("suite"), number=6)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factories.tiny_llava(tmp_path_factory.mktemp("tuned") / "tuned", seed=1)


@pytest.fixture(scope="module")
def copy(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(llava, tmp_path_factory.mktemp("copy") / "copy"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A suite to spoil."""
    return colour_suite(tmp_path / "own", number=2)


def evaluate(out: Path, suite: Path, base: Path, *checkpoints: Path | str, **keys: Any) -> Path:
    config = EvalMatrixConfig(
        suite=str(suite),
        base=str(base),
        checkpoint=tuple(str(path) for path in checkpoints),
        **{"bootstrap": 500, **keys},
    )
    return execute("eval-matrix", eval_matrix.run, config, RunConfig(out=str(out), quiet=True))


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, suite: Path, llava: Path, tuned: Path, copy: Path
) -> Path:
    return evaluate(tmp_path_factory.mktemp("made") / "out", suite, llava, tuned, copy)


@pytest.fixture(scope="module")
def results(made: Path) -> Results:
    return Results.model_validate(read_report(made / "report.json").results)


def test_what_is_written(made: Path) -> None:
    report = read_report(made / "report.json")
    assert [one.path for one in report.outputs] == [
        "forest.png",
        "letters.png",
        "matrix.png",
        "pareto.png",
        *(
            f"predictions/{label}/{task}.jsonl"
            for label in ("base", "copy", "tuned")
            for task in ("colour-letter", "colour-open", "other-letter", "sums")
        ),
        "report.html",
        "report.md",
        *(
            f"tables/{name}"
            for name in (
                "cells.csv",
                "deltas.csv",
                "original_new.csv",
                "quadrants.csv",
                "tables.tex",
            )
        ),
    ]
    roles = [one.role for one in report.inputs]
    assert roles == ["base", "checkpoint", "checkpoint", "suite", *("task", "items", "images") * 4]
    fingerprints = [one.sha256 for one in report.inputs[:3]]
    assert fingerprints == [row["fingerprint"] for row in report.results["checkpoints"]]
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]


def test_a_copy_of_the_base_is_kept_everywhere(results: Results) -> None:
    assert results.checkpoints[2].same_as_base
    cells = [cell.vs_base for cell in results.cells if cell.checkpoint == "copy"]
    compared = [*results.of("copy"), *(cell for cell in cells if cell)]
    assert len(compared) == 4 + 4
    assert {(one.delta, one.verdict) for one in compared} == {(0.0, "kept")}


def test_every_checkpoint_has_every_cell(results: Results) -> None:
    assert [row.label for row in results.checkpoints] == ["base", "tuned", "copy"]
    assert len(results.cells) == 3 * 4
    assert sorted(results.matrix("tuned")) == [
        "id_text_id_image",
        "id_text_ood_image",
        "ood_text_id_image",
        "ood_text_ood_image",
    ]
    assert all(score.ci.lower <= score.value <= score.ci.upper for score in scores(results))


def scores(results: Results) -> list[Any]:
    return [score for cell in results.cells for score in cell.metrics.values()]


def test_warnings_say_what_the_items_cannot_show(made: Path) -> None:
    assert read_report(made / "report.json").warnings == [
        "too few items to show that nothing beyond 2.0 pp was lost, which takes 149:"
        " colour-letter (6), other-letter (6), colour-open (6) and 1 more"
    ]


def test_the_same_bytes_again(
    made: Path, suite: Path, llava: Path, tuned: Path, copy: Path, tmp_path: Path
) -> None:
    again = evaluate(tmp_path / "again", suite, llava, tuned, copy)
    for path in made.rglob("*"):
        if path.is_file() and path.name != "report.json":
            assert (again / path.relative_to(made)).read_bytes() == path.read_bytes(), path
    first, second = (read_report(out / "report.json") for out in (made, again))
    assert first.model_dump(exclude={"run"}) == second.model_dump(exclude={"run"})


def test_scores_follow_from_the_predictions_alone(made: Path, results: Results) -> None:
    rows = (made / "predictions/tuned/colour-open.jsonl").read_text().splitlines()
    items = [json.loads(row) for row in items_of(results, made, "colour-open")]
    right = [
        max(range(5), key=json.loads(row)["logprobs"].__getitem__) == item["answer"]
        for row, item in zip(rows, items, strict=True)
    ]
    value = results.cell("tuned", "colour-open").metrics["likelihood"].value
    assert value == sum(right) / len(right)


def items_of(results: Results, made: Path, name: str) -> list[str]:
    place = [task.name for task in results.tasks].index(name)
    inputs = [one for one in read_report(made / "report.json").inputs if one.role == "items"]
    return Path(inputs[place].path).read_text().splitlines()


def test_limit_margin_and_seed(suite: Path, llava: Path, tuned: Path, tmp_path: Path) -> None:
    out = evaluate(tmp_path / "out", suite, llava, f"FT={tuned}", limit=4, margin=0.5)
    found = Results.model_validate(read_report(out / "report.json").results)
    assert {row.n for row in found.tasks} == {4}
    assert (found.margin, found.checkpoints[1].label) == (0.5, "FT")


def test_text_only_models(llama: Path, tmp_path: Path) -> None:
    other = factories.tiny_llama(tmp_path / "tuned", seed=2)
    out = evaluate(tmp_path / "out", text_suite(tmp_path / "suite", 5), llama, other)
    found = Results.model_validate(read_report(out / "report.json").results)
    assert [row.clusters for row in found.tasks] == [5, 5]
    assert found.balance("tuned").gain is not None


def test_a_fused_checkpoint_says_what_it_interpolates(
    suite: Path, llava: Path, tuned: Path, tmp_path: Path
) -> None:
    config = FuseConfig(base=str(llava), model=(str(tuned),), method="wise-ft", scale=0.5)
    half = execute("fuse", fuse.run, config, RunConfig(out=str(tmp_path / "half"), quiet=True))
    out = evaluate(tmp_path / "out", suite, llava, tuned, half, limit=2)
    row = Results.model_validate(read_report(out / "report.json").results).checkpoints[2]
    assert (row.made_by, row.weight) == ("fuse wise-ft", 0.5)
    assert row.interpolates == Checkpoint.open(tuned).fingerprint()


def test_a_report_of_another_tool_says_nothing(
    own: Path, llava: Path, copy: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    (other / "report.json").write_text('{"accuracy": 1}')
    out = evaluate(tmp_path / "out", own, llava, other)
    assert read_report(out / "report.json").results["checkpoints"][1]["made_by"] is None


def test_plan(suite: Path, llava: Path, tuned: Path) -> None:
    config = EvalMatrixConfig(suite=str(suite), base=str(llava), checkpoint=(f"ft={tuned}",))
    plan = eval_matrix.plan(config, Context())
    assert plan["items"] == 24
    assert plan["checkpoints"] == [
        {"label": "base", "path": str(llava)},
        {"label": "ft", "path": str(tuned)},
    ]
    assert plan["tasks"][2] == {
        "name": "colour-open",
        "type": "mcq",
        "quadrant": "ood_text_id_image",
        "role": "original",
        "answer": "text",
        "primary": "text_exact",
        "items": 6,
        "images": 6,
    }
    assert len(plan["problems"]) == 1
    weights = sum(path.stat().st_size for path in llava.glob("*.safetensors"))
    assert plan["cost"].pop("weight_bytes") == pytest.approx(2 * weights, rel=0.05)
    assert plan["cost"] == {
        "prompts": 24 * 2,
        "options": (6 * 5 + 6 * 5 + 6 * 5 + 6 * 8) * 2,
        "response_tokens_at_most": 24 * 4 * 2,
        "images": 12,
    }


def test_plan_names_what_the_suite_lacks(own: Path, llava: Path) -> None:
    change(own, tasks=["tasks/other-letter.yaml"], margin=0.5)
    plan = eval_matrix.plan(EvalMatrixConfig(suite=str(own), base=str(llava)), Context())
    assert plan["problems"] == [
        f"{own}: no task in ID text · ID image",
        f"{own}: no task in OOD text · ID image",
        f"{own}: no task in OOD text · OOD image",
        f"{own}: no task has role new: there is no gain to set against losses",
        "too few items to show that nothing beyond 50.0 pp was lost, which takes 5:"
        " other-letter (2)",
    ]


def refused(kind: type[MllmtoolError], out: Path, *arguments: Any, **keys: Any) -> str:
    """The message; nothing may be left behind."""
    with pytest.raises(kind) as caught:
        evaluate(out, *arguments, **keys)
    assert type(caught.value) is kind
    assert not [path for path in out.parent.iterdir() if out.name in path.name]
    return str(caught.value)


def test_two_checkpoints_of_one_label(
    own: Path, llava: Path, tuned: Path, copy: Path, tmp_path: Path
) -> None:
    message = refused(ConfigError, tmp_path / "out", own, llava, tuned, f"tuned={copy}")
    assert message == (
        f"--checkpoint: {copy} and {tuned} are both labelled tuned; write LABEL={copy}"
    )


def test_a_checkpoint_labelled_base(own: Path, llava: Path, tmp_path: Path) -> None:
    message = refused(ConfigError, tmp_path / "out", own, llava, llava)
    assert message == (
        f"--checkpoint: {llava} and {llava} are both labelled base; write LABEL={llava}"
    )


def test_a_label_that_is_no_name(own: Path, llava: Path, tuned: Path, tmp_path: Path) -> None:
    message = refused(ConfigError, tmp_path / "out", own, llava, f"<b>={tuned}")
    assert message == (
        "--checkpoint: '<b>' cannot be a label, which is letters, digits and . _ + -;"
        f" write LABEL={tuned}"
    )


def test_another_architecture(own: Path, llava: Path, llama: Path, tmp_path: Path) -> None:
    message = refused(MismatchError, tmp_path / "out", own, llava, f"text={llama}")
    assert message.startswith(f"{llama}: lacks ")
    assert message.endswith(f"against {llava}; both must come from the same base")


def test_a_missing_picture_is_told_before_any_work(
    own: Path, llava: Path, tuned: Path, tmp_path: Path
) -> None:
    (own.parent / "images/0.png").unlink()
    tasks = own.parent / "tasks"
    message = refused(DataError, tmp_path / "out", own, llava, tuned)
    assert message == (
        f"{tasks}/colour-letter.jsonl: colour-letter-0: {tasks}/../images/0.png: no such image"
    )


def test_a_picture_that_is_none(own: Path, llava: Path, tmp_path: Path) -> None:
    picture = own.parent / "images/0.png"
    picture.write_bytes(picture.read_bytes()[:40])
    message = refused(DataError, tmp_path / "out", own, llava)
    assert message.startswith("sample colour-letter-0: ")
    assert f"{picture.name}: is not a readable image: " in message


def test_pictures_for_a_text_model(own: Path, llama: Path, tmp_path: Path) -> None:
    message = refused(DataError, tmp_path / "out", own, llama)
    assert message == "sample colour-letter-0: has images, but the model is text-only"


def test_weights_that_are_not_finite(own: Path, llava: Path, copy: Path, tmp_path: Path) -> None:
    spoilt = Path(shutil.copytree(copy, tmp_path / "spoilt"))
    tensors = load_file(spoilt / "model.safetensors")
    name = "language_model.model.norm.weight"
    name = name if name in tensors else next(key for key in tensors if key.endswith("norm.weight"))
    tensors[name][0] = torch.nan
    save_file(tensors, spoilt / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericError) as caught:
        evaluate(tmp_path / "out", own, llava, spoilt)
    assert str(caught.value) == f"{name}: holds NaN or Inf in {spoilt}"
    assert not (tmp_path / "out").exists()
    [kept] = (tmp_path / ".out.work/predictions").glob("*.jsonl")
    assert len(kept.read_text().splitlines()) == 8  # the base's


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mllmtool", "eval-matrix", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},  # threads as in here
    )


def test_from_the_shell(own: Path, llava: Path, tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ["--suite", str(own), "--base", str(llava), "--checkpoint", str(tuned)]
    done = command(*flags, "--bootstrap", "100", "--seed", "3", "--quiet", "--out", str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", "")
    first = read_report(out / "report.json")
    run = RunConfig(out=f"{out}2", seed=first.seed, quiet=True)
    config = EvalMatrixConfig.parse(first.config)
    second = read_report(execute("eval-matrix", eval_matrix.run, config, run) / "report.json")
    assert (first.seed, config.bootstrap) == (3, 100)
    assert first.model_dump(exclude={"run"}) == second.model_dump(exclude={"run"})


def test_exit_statuses_from_the_shell(own: Path, llava: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    items = change_line(own.parent / "tasks/sums.jsonl", 2, answer=9)
    done = command("--suite", str(own), "--base", str(llava), "--out", out)
    message = f"mllmtool: {items}:2: answer 9 is not among 8 options\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", message)
    done = command("--suite", str(own), "--base", str(llava), "--margin", "0", "--out", out)
    message = "mllmtool: --margin: 0.0: input should be greater than 0\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)
    assert not Path(out).exists()


def test_best_reads_a_report(made: Path, tmp_path: Path) -> None:
    done = mllmtool("eval-matrix", "best", "--evals", made, "--max-loss", "50pp")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0] in {"base", "tuned"}
    assert len(done.out.splitlines()) >= 2
    done = mllmtool("eval-matrix", "best", "--evals", tmp_path, "--max-loss", "1pp")
    assert (done.status, done.out) == (3, "")
    assert done.err == f"mllmtool: {tmp_path}/report.json: no such report\n"
    (tmp_path / "report.json").write_text(
        (made / "report.json").read_text().replace('"eval-matrix"', '"fuse"')
    )
    done = mllmtool("eval-matrix", "best", "--evals", tmp_path, "--max-loss", "1pp")
    message = f"{tmp_path}/report.json: is a report of fuse, not of eval-matrix"
    assert (done.status, done.err) == (3, f"mllmtool: {message}\n")
