"""`fuse --select`: one command line from tuned models to the checkpoint to ship."""

import json
from pathlib import Path
from typing import Any

import factories
import pytest
from commandline import mllmtool
from safetensors.torch import load_file
from suite_factory import write_suite, write_task
from weights import same_bits

NUMBERS = range(24)


def questions(kind: str, answers: list[str]) -> list[dict[str, Any]]:
    return [
        {"images": [], "question": f"{kind} {number}?", "answers": [answer]}
        for number, answer in enumerate(answers)
    ]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factories.tiny_llama(tmp_path_factory.mktemp("select") / "tuned", seed=1)


@pytest.fixture(scope="module")
def suite(llama: Path, tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new task whose answers are the tuned model's, and an original one with the base's."""
    folder, out = tmp_path_factory.mktemp("suite"), tmp_path_factory.mktemp("eval") / "out"

    def write(new: list[str], old: list[str]) -> Path:
        exact = {"type": "exact", "answer": None}
        write_task(folder, "new", questions("Now", new), "id", "id", role="new", **exact)
        write_task(folder, "old", questions("Once", old), "ood", "ood", **exact)
        return write_suite(folder, ["new", "old"])

    path = write(["?"] * len(NUMBERS), ["?"] * len(NUMBERS))
    argv = ("--suite", path, "--base", llama, "--checkpoint", f"tuned={tuned}", "--out", out)
    assert mllmtool("eval-matrix", *argv, "--quiet").status == 0

    def said(label: str, task: str) -> list[str]:
        lines = (out / f"predictions/{label}/{task}.jsonl").read_text().splitlines()
        return [json.loads(line)["response"].strip() or "?" for line in lines]

    return write(said("tuned", "new"), said("base", "old"))


def select(llama: Path, tuned: Path, suite: Path, out: Path, *flags: object) -> Any:
    argv = ("--base", llama, "--model", tuned, "--method", "wise-ft", "--out", out, "--quiet")
    return mllmtool("fuse", *argv, "--sweep", "scale=0,1", "--select", suite, *flags)


def test_a_sweep_ends_with_the_checkpoint_that_gains_most(
    llama: Path, tuned: Path, suite: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = select(llama, tuned, suite, out, "--max-loss", "100pp")
    assert (done.status, done.out) == (0, f"{out}\n")
    fused, expected = (load_file(path / "model.safetensors") for path in (out, tuned))
    assert all(same_bits(fused[name], tensor) for name, tensor in expected.items())
    assert {path.name for path in llama.iterdir()} | {"report.json", "drift.png"} == {
        path.name for path in out.iterdir()
    }
    report = json.loads((out / "report.json").read_text())
    assert {made["path"] for made in report["outputs"]} == {
        path.name for path in out.iterdir() if path.name != "report.json"
    }
    assert [made["role"] for made in report["inputs"]][:3] == ["base", "model", "suite"]
    found = report["results"]["select"]
    assert (found["checkpoint"], report["results"]["method"]["scale"]) == ("scale-1", 1)
    gains = {row["checkpoint"]: row["gain"] for row in found["points"]}
    assert gains["scale-0"] == 0 < gains["scale-1"]
    assert min(found["points"][2]["new"], found["scored"]["new"]) > 0.5
    again = tmp_path / "again"
    argv = ("--recipe", out / "report.json", "--out", again, "--quiet")
    assert mllmtool("fuse", *argv).status == 0
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_no_item_chooses_and_scores(llama: Path, tuned: Path, suite: Path, tmp_path: Path) -> None:
    scored = {}
    for seed in (0, 1):
        out = tmp_path / str(seed)
        assert select(llama, tuned, suite, out, "--max-loss", "100pp", "--seed", seed).status == 0
        found = json.loads((out / "report.json").read_text())["results"]["select"]
        for task, chosen_on in found["chosen_on"].items():
            assert len(set(chosen_on)) == len(chosen_on) == len(NUMBERS) - found["scored_on"][task]
        scored[seed] = found["chosen_on"]
    assert scored[0] != scored[1]


def test_where_no_point_is_fit_nothing_is_made(
    llama: Path, tuned: Path, suite: Path, tmp_path: Path
) -> None:
    done = select(llama, tuned, suite, tmp_path / "out", "--max-loss", "0pp")
    assert (done.status, done.out) == (3, "")
    start = f"mllmtool: {suite}: no checkpoint that gains on the new tasks loses at most 0.0 pp: "
    assert done.err.startswith(start), done.err
    assert done.err.endswith("; sweep other values, or allow more\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--select", "suite.yaml"),
            "--select: chooses among the points of a --sweep, and there is none",
        ),
        (("--max-loss", "2pp"), "--max-loss: goes with --select"),
        (
            ("--sweep", "scale=0,1", "--select", "s", "--max-loss", "2"),
            "--max-loss: '2': is not in percentage points; write 1pp for a loss of 0.01",
        ),
    ],
)
def test_flags_that_do_not_fit(
    llama: Path, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    argv = ("--base", llama, "--model", llama, "--method", "wise-ft", "--out", tmp_path / "out")
    done = mllmtool("fuse", *argv, *flags)
    assert (done.status, done.err) == (2, f"mllmtool: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_too_few_pictures_for_two_halves_are_refused_before_any_work(
    llama: Path, tuned: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "suite"
    folder.mkdir()
    exact = {"type": "exact", "answer": None}
    write_task(folder, "new", questions("Now", ["?"]), "id", "id", role="new", **exact)
    write_task(folder, "old", questions("Once", ["?"] * 24), "ood", "ood", **exact)
    done = select(llama, tuned, write_suite(folder, ["new", "old"]), tmp_path / "out")
    assert done.status == 3
    assert done.err == (
        f"mllmtool: {folder}/tasks/new.jsonl: all 1 items fall into one half; more pictures are"
        " needed to choose on some and to score on others\n"
    )


@pytest.mark.parametrize(("role", "missing"), [("new", "original"), ("original", "new")])
def test_a_suite_of_one_kind_of_tasks_is_refused_before_any_work(
    llama: Path, tuned: Path, tmp_path: Path, role: str, missing: str
) -> None:
    folder = tmp_path / "suite"
    folder.mkdir()
    kind = {"type": "exact", "answer": None, "role": role}
    write_task(folder, "only", questions("Now", ["?"] * 24), "id", "id", **kind)
    suite = write_suite(folder, ["only"])
    done = select(llama, tuned, suite, tmp_path / "out", "--dry-run")
    assert (done.status, done.out) == (3, "")
    reason = f"no task has role {missing}; give original and new ones"
    assert done.err == f"mllmtool: {suite}: {reason}\n"
    assert list(tmp_path.iterdir()) == [folder]
