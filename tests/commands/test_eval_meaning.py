"""What the report means: a copy keeps everything, and who was taught letters only has forgotten."""

import random
import shutil
from pathlib import Path
from typing import Any

import factories
import pytest
from suite_factory import item, sums, write_suite, write_task

from mllmtool.commands import eval_matrix, finetune
from mllmtool.configs.base import RunConfig
from mllmtool.configs.eval_matrix import EvalMatrixConfig
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.evaluation.results import Results
from mllmtool.reports import read_report
from mllmtool.runner import execute

ANSWERS = ("red", "green", "blue", "one", "two")


def taught(path: Path, base: Path, samples: Path, steps: int) -> Path:
    """The base, trained in full."""
    config = FinetuneConfig.parse(
        {
            "model": str(base),
            "samples": str(samples),
            "train": ["language=full"],
            "lr": 5e-3,
            "steps": steps,
            "batch": 12,
        }
    )
    return execute("finetune", finetune.run, config, RunConfig(out=str(path), quiet=True))


def samples_of(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Questions and answers as training samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return factories.write_rows(
        path,
        [{"id": str(n), "messages": factories.turns(*row)} for n, row in enumerate(rows)],
    )


@pytest.fixture(scope="module")
def results(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A base that does sums in words, a copy of it, and one taught nothing but letters."""
    folder = tmp_path_factory.mktemp("meaning")
    old, new = sums(12), letters(random.Random(0))
    write_task(folder, "sums", old, "ood", "id", answer="text", image_root=None)
    write_task(folder, "sums-again", old, "ood", "ood", answer="text", image_root=None)
    write_task(folder, "letters", new, "id", "id", role="new", image_root=None)
    suite = write_suite(folder, ["sums", "sums-again", "letters"])
    said = [(row["question"], row["options"][row["answer"]]) for row in old]
    asked = [(prompt(row), "ABCD"[row["answer"]]) for row in new]
    base = taught(folder / "base", llama, samples_of(folder / "a/said.jsonl", said), 100)
    collapsed = taught(folder / "collapsed", base, samples_of(folder / "b/asked.jsonl", asked), 40)
    copy = shutil.copytree(base, folder / "copy")
    config = EvalMatrixConfig(
        suite=str(suite), base=str(base), checkpoint=(str(collapsed), str(copy)), bootstrap=1000
    )
    out = execute(
        "eval-matrix", eval_matrix.run, config, RunConfig(out=str(folder / "eval"), quiet=True)
    )
    return Results.model_validate(read_report(out / "report.json").results)


def letters(rng: random.Random) -> list[dict[str, Any]]:
    """Questions answered by a letter."""
    rows = []
    for number in range(12):
        options = rng.sample(ANSWERS, 4)
        rows.append(item(None, f"Which is {options[number % 4]}?", options, options[number % 4]))
    return rows


def prompt(row: dict[str, Any]) -> str:
    """As the task shows it."""
    lines = [f"{letter}. {text}" for letter, text in zip("ABCD", row["options"], strict=True)]
    return "\n".join([row["question"], *lines])


def test_a_copy_of_the_base_is_kept_in_every_quadrant(results: Results) -> None:
    rows = results.of("copy")
    assert len(rows) == 3
    assert {(row.verdict, row.delta) for row in rows} == {("kept", 0.0)}
    assert all(row.micro is not None and row.micro.verdict == "kept" for row in rows)


def test_a_checkpoint_taught_letters_has_forgotten_and_lost_the_format(results: Results) -> None:
    base, cell = results.cell("base", "sums"), results.cell("collapsed", "sums")
    assert base.metrics["text_exact"].value > 0.8
    assert base.metrics["format_fail"].value < 0.2
    assert cell.metrics["text_exact"].value < 0.2
    assert cell.metrics["format_fail"].value > 0.8
    assert cell.vs_base is not None
    assert cell.vs_base.verdict == "forgot"
    assert cell.vs_base.p < 0.01
    verdicts = {row.quadrant: row.verdict for row in results.of("collapsed", "original")}
    assert verdicts == {"ood_text_id_image": "forgot", "ood_text_ood_image": "forgot"}
