"""Exported suites: their files are read as the harnesses read them, and no text in them is code."""

import ast
import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import factories
import pandas
import pytest
import yaml
from PIL import Image
from suite_factory import change, item, write_suite, write_task

from mllmtool.data.suites import Suite, Task, read_suite
from mllmtool.errors import DataError
from mllmtool.evaluation import exports
from mllmtool.evaluation.exports import export

HOSTILE = (
    "!!python/object/apply:os.system ['x']",
    "${x} {{7*7}} {question}",
    '"\'\n- a: !function utils.x\n\t"',
    "=HYPERLINK(1)",
    "['a'] + __import__('os').listdir()",
    "\u2028\x00\x1b[31m é 中",
)


def hostile_suite(folder: Path) -> Suite:
    """A letter task and a text task whose every text is an attack on some format."""
    folder.mkdir(exist_ok=True)
    factories.colour_samples(folder, len(HOSTILE))
    rows = [
        item(f"{n}.png", f"{text}?", [f"{text} {m}" for m in range(3)], f"{text} {n % 3}")
        for n, text in enumerate(HOSTILE)
    ]
    write_task(folder, "odd.Name", rows, "id", "id", role="new")
    write_task(folder, "open", rows, "ood", "id", answer="text")
    return read_suite(write_suite(folder, ["odd.Name", "open"]))


class Loader(yaml.SafeLoader):
    """Safe, but for `!function utils.NAME`, whose NAME is all that it keeps."""


Loader.add_constructor("!function", lambda _, node: f"function {node.value}")


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def lmms_task(folder: Path, name: str) -> tuple[dict[str, Any], list[dict[str, Any]], ModuleType]:
    """The description, the items and the functions of a task, as lmms-eval finds them."""
    described = yaml.load((folder / name / f"{name}.yaml").read_text(), Loader)
    (path,) = described["dataset_kwargs"]["data_files"].values()
    items = json_lines(folder / path)
    spec = importlib.util.spec_from_file_location("utils", folder / name / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return described, items, module


def test_lmms_eval_reads_prompts_pictures_and_answers(tmp_path: Path) -> None:
    suite, out = hostile_suite(tmp_path / "suite"), tmp_path / "out"
    out.mkdir()
    command = export(suite, "lmms-eval", out)
    assert command.endswith(
        "--tasks mt_odd_name,mt_open --batch_size 1 --log_samples --output_path RESULTS"
    )
    for task, name in zip(suite.tasks, ("mt_odd_name", "mt_open"), strict=True):
        described, items, utils = lmms_task(out, name)
        assert described["task"] == name
        assert described["generation_kwargs"]["max_new_tokens"] == task.file.max_new_tokens
        assert described["process_results"] == "function utils.process_results"
        for doc, one in zip(items, task.items, strict=True):
            prompt = str(task.sample(one).messages[0].content)
            assert f"<image>\n{utils.doc_to_text(doc, {'pre_prompt': ''})}" == prompt
            assert utils.doc_to_target(doc) == task.answers(one)[one.answer]
            (picture,) = utils.doc_to_visual(doc)
            with Image.open(task.images(one)[0]) as image:
                assert picture.tobytes() == image.convert("RGB").tobytes()


def test_lmms_evals_own_score_is_that_of_the_right_answer(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(hostile_suite(tmp_path / "suite"), "lmms-eval", out)
    _, items, utils = lmms_task(out, "mt_odd_name")
    said = ["a.", " (A) ", "B", "", "A or B"]
    assert [utils.process_results(items[0], [text])["match"] for text in said] == [1, 1, 0, 0, 0]


def test_no_text_of_a_suite_is_in_code_or_yaml(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(hostile_suite(tmp_path / "suite"), "lmms-eval", out)
    template = Path(exports.__file__).parent / "templates" / "lmms_eval.py"
    for path in out.rglob("*.py"):
        assert path.read_bytes() == template.read_bytes()
        ast.parse(path.read_text())
    for path in out.rglob("*.yaml"):
        assert not any(text in path.read_text() for text in HOSTILE)


def test_every_row_has_values_of_one_type(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(hostile_suite(tmp_path / "suite"), "lmms-eval", out)
    rows = json_lines(out / "mt_open/items.jsonl")
    types = {key: type(value) for key, value in rows[0].items()}
    assert types == {"item": str, "paths": list, "prompt": str, "accepted": list, "cluster": str}
    assert all({key: type(value) for key, value in row.items()} == types for row in rows)


def table(path: Path) -> pandas.DataFrame:
    """As VLMEvalKit reads it."""
    return pandas.read_csv(path, sep="\t")


def test_vlmevalkit_reads_options_and_pictures(tmp_path: Path) -> None:
    suite, out = hostile_suite(tmp_path / "suite"), tmp_path / "out"
    out.mkdir()
    command = export(suite, "vlmevalkit", out)
    assert command == (
        'LMUData="$PWD" PRED_FORMAT=tsv python run.py --data mt_odd_name mt_open --mode infer'
    )
    read, task = table(out / "mt_odd_name.tsv"), suite.tasks[0]
    assert list(read.columns) == [
        *("index", "item", "question", "A", "B", "C", "answer", "category", "image_path")
    ]
    for n, one in enumerate(task.items):
        row = read.iloc[n]
        assert (row["index"], row["item"]) == (n, f"odd.Name/{one.id}")
        assert row["question"] == one.question
        assert tuple(row[["A", "B", "C"]]) == one.options
        assert row["answer"] == "ABC"[one.answer]
        assert row["image_path"] == str(task.images(one)[0].resolve())


def test_vlmevalkit_gets_the_whole_prompt_where_the_answer_is_text(tmp_path: Path) -> None:
    suite, out = hostile_suite(tmp_path / "suite"), tmp_path / "out"
    change(suite.tasks[1].path, prompt="{question}\nSay it:")
    out.mkdir()
    export(read_suite(suite.path), "vlmevalkit", out)
    read = table(out / "mt_open.tsv")
    assert "A" not in read.columns
    assert list(read["question"]) == [f"{text}?\nSay it:" for text in HOSTILE]


def simple(folder: Path, options: list[str], pictures: list[str | None]) -> Task:
    """A letter task with the same options everywhere."""
    folder.mkdir()
    factories.colour_samples(folder, 4)
    rows = [item(picture, "Which?", options, options[0]) for picture in pictures]
    write_task(folder, "t", rows, "id", "id")
    return read_suite(write_suite(folder, ["t"])).tasks[0]


@pytest.mark.parametrize("options", [["1.50", "2"], ["None", "cat"], ["NA", "b"], ["x", "1e3"]])
def test_options_that_pandas_would_change_stay_in_the_prompt(
    tmp_path: Path, options: list[str]
) -> None:
    task, out = simple(tmp_path / "suite", options, ["0.png"]), tmp_path / "out"
    out.mkdir()
    export(
        Suite(task.path, read_suite(tmp_path / "suite/suite.yaml").file, (task,)), "vlmevalkit", out
    )
    read = table(out / "mt_t.tsv")
    assert "A" not in read.columns
    assert read["question"][0] == f"Which?\nA. {options[0]}\nB. {options[1]}"


def test_several_pictures_are_a_literal_list(tmp_path: Path) -> None:
    task, out = simple(tmp_path / "suite", ["a", "b"], ["0.png"]), tmp_path / "out"
    odd = "'];__import__('os');['.png"
    shutil.copy(task.root / "0.png", task.root / odd)
    two = task.items[0].model_copy(update={"images": ("0.png", odd)})
    suite = read_suite(tmp_path / "suite/suite.yaml")
    out.mkdir()
    changed = Task(task.path, task.file, (two,))
    export(Suite(suite.path, suite.file, (changed,)), "vlmevalkit", out)
    (cell,) = table(out / "mt_t.tsv")["image_path"]
    assert ast.literal_eval(cell) == [str((task.root / name).resolve()) for name in ("0.png", odd)]


def test_what_vlmevalkit_cannot_hold_is_refused(tmp_path: Path) -> None:
    mixed, out = simple(tmp_path / "mixed", ["a", "b"], ["0.png", None]), tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError) as caught:
        export(read_suite(tmp_path / "mixed/suite.yaml"), "vlmevalkit", out)
    assert str(caught.value) == (
        f"{mixed.items_path}: VLMEvalKit wants a picture in every item or in none"
    )
    simple(tmp_path / "blind", ["a", "b"], [None])
    path = change(tmp_path / "blind/tasks/t.yaml", answer="text")
    with pytest.raises(DataError) as caught:
        export(read_suite(tmp_path / "blind/suite.yaml"), "vlmevalkit", out)
    assert str(caught.value) == f"{path}: VLMEvalKit reads no task without pictures and options"


def test_names_that_collide_are_refused(tmp_path: Path) -> None:
    simple(tmp_path / "s", ["a", "b"], ["0.png"])
    rows = [item("0.png", "Which?", ["a", "b"], "a")]
    path = write_task(tmp_path / "s", "T", rows, "id", "id")
    suite = read_suite(write_suite(tmp_path / "s", ["t", "T"]))
    with pytest.raises(DataError) as caught:
        export(suite, "lmms-eval", tmp_path / "out")
    assert str(caught.value) == f"{path}: name: T and t would both be mt_t"
    assert not (tmp_path / "out").exists()


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    task, out = simple(tmp_path / "s", ["a", "b"], ["0.png"]), tmp_path / "out"
    (task.root / "0.png").unlink()
    out.mkdir()
    for to in exports.EXPORTERS:
        with pytest.raises(DataError, match=r"0\.png: no such image"):
            export(read_suite(tmp_path / "s/suite.yaml"), to, out)
        shutil.rmtree(out)
        out.mkdir()
