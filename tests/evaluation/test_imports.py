"""Result files of other harnesses: the same predictions as ours, or an error that says where."""

import csv
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from suite_factory import letter_items, write_suite, write_task

from mllmtool.data.suites import Task, read_suite
from mllmtool.errors import DataError
from mllmtool.evaluation.exports import export
from mllmtool.evaluation.imports import import_predictions, result_file

ASKED = "What colour is it?"
SAID = ("A", "The answer is (B).", "", 'x\t"y"\r\n<b>\'=1')
COLUMNS = ("index", "item", "question", "answer", "prediction")
Writer = Callable[[Path, Task, Sequence[str]], Path]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    rows = letter_items([("0.png", name) for name in ("red", "green", "blue", "red")], ASKED)
    write_task_folder = tmp_path / "suite"
    write_task_folder.mkdir()
    write_task(write_task_folder, "colour", rows, "id", "id")
    return read_suite(write_suite(write_task_folder, ["colour"])).tasks[0]


def right(task: Task) -> list[str]:
    return [task.answers(one)[one.answer] for one in task.items]


def lmms_rows(task: Task, said: Sequence[str]) -> list[dict[str, Any]]:
    """As lmms-eval logs samples; it leaves `resps` out where filters changed nothing."""
    return [
        {
            "doc_id": n,
            "input": "...",
            "target": target,
            "filtered_resps": [text],
            "doc_hash": "c0ffee",
            "match": 0.0,
        }
        for n, (target, text) in enumerate(zip(right(task), said, strict=True))
    ]


def factory_rows(task: Task, said: Sequence[str]) -> list[dict[str, Any]]:
    """As LLaMA-Factory predicts, with labels as a training sample has them."""
    return [
        {"prompt": f"USER: <image>{one.question}", "predict": text, "label": f"{letter}. {name}"}
        for one, text, letter in zip(task.items, said, right(task), strict=True)
        for name in [one.options[one.answer]]
    ]


def kit_rows(task: Task, said: Sequence[str]) -> list[dict[str, Any]]:
    """As VLMEvalKit keeps them: the columns of the dataset with `prediction`."""
    return [
        {
            "index": n,
            "item": f"colour/{one.id}",
            "question": one.question,
            "answer": letter,
            "prediction": text,
        }
        for n, (one, text, letter) in enumerate(zip(task.items, said, right(task), strict=True))
    ]


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".xlsx":
        write_sheet(path, rows)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), dialect="excel-tab", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return path


def write_sheet(path: Path, rows: Sequence[dict[str, Any]], formula: str = "") -> None:
    """A minimal .xlsx: numbers in place, texts shared; an empty text is no cell at all."""
    strings: list[str] = []
    lines = []
    for number, row in enumerate([dict(zip(rows[0], rows[0], strict=True)), *rows], start=1):
        cells = []
        for letter, value in zip("ABCDE", row.values(), strict=False):
            name = f"{letter}{number}"
            if isinstance(value, int):
                cells.append(f'<c r="{name}"><v>{value}</v></c>')
            elif value and value == formula:
                cells.append(f'<c r="{name}"><f>1+1</f><v>0</v></c>')
            elif value:
                cells.append(f'<c r="{name}" t="s"><v>{len(strings)}</v></c>')
                strings.append(escape(value).replace("\r", "_x000D_"))
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    shared = "".join(f'<si><t xml:space="preserve">{text}</t></si>' for text in strings)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/sharedStrings.xml", f"<sst {space}>{shared}</sst>")
        sheet = f"<worksheet {space}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        archive.writestr("xl/worksheets/sheet1.xml", sheet)


FORMS: dict[str, tuple[str, Writer]] = {
    "samples_mt_colour.jsonl": (
        "lmms-eval",
        lambda path, task, said: write_lines(path, lmms_rows(task, said)),
    ),
    "generated_predictions.jsonl": (
        "llama-factory",
        lambda path, task, said: write_lines(path, factory_rows(task, said)),
    ),
    "model_mt_colour.tsv": (
        "vlmevalkit",
        lambda path, task, said: write_table(path, kit_rows(task, said)),
    ),
    "model_mt_colour.json": (
        "vlmevalkit",
        lambda path, task, said: write_table(path, kit_rows(task, said)),
    ),
    "model_mt_colour.xlsx": (
        "vlmevalkit",
        lambda path, task, said: write_table(path, kit_rows(task, said)),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_responses_come_back_as_they_were_said(tmp_path: Path, task: Task, name: str) -> None:
    source, write = FORMS[name]
    found = import_predictions(write(tmp_path / name, task, SAID), source, task)
    assert [(one.item, one.response, one.logprobs) for one in found] == [
        (f"colour-{n}", text, ()) for n, text in enumerate(SAID)
    ]


def test_rows_may_come_in_any_order(tmp_path: Path, task: Task) -> None:
    for source, name, rows in (
        ("lmms-eval", "s.jsonl", lmms_rows(task, SAID)),
        ("vlmevalkit", "s.tsv", kit_rows(task, SAID)),
    ):
        write = write_lines if name == "s.jsonl" else write_table
        found = import_predictions(write(tmp_path / name, rows[::-1]), source, task)
        assert [one.response for one in found] == list(SAID)


def test_what_was_exported_is_found_again(tmp_path: Path, task: Task) -> None:
    """A harness that answers each item of our export with a text of its own."""
    (tmp_path / "suite/images").mkdir()
    (tmp_path / "suite/images/0.png").touch()
    suite = read_suite(tmp_path / "suite/suite.yaml")
    out = tmp_path / "out"
    out.mkdir()
    export(suite, "vlmevalkit", out)
    with (out / "mt_colour.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, dialect="excel-tab"))
    answered = [row | {"prediction": f"{row['answer']}!"} for row in rows]
    found = import_predictions(write_table(tmp_path / "r.tsv", answered), "vlmevalkit", task)
    assert [one.response for one in found] == [f"{letter}!" for letter in right(task)]
    export(suite, "lmms-eval", out)
    lines = (out / "mt_colour/items.jsonl").read_text().split("\n")[:-1]
    logged = [
        {"doc_id": n, "target": doc["accepted"][0], "resps": [[doc["item"]]]}
        for n, doc in enumerate(map(json.loads, lines))
    ]
    found = import_predictions(write_lines(tmp_path / "r.jsonl", logged), "lmms-eval", task)
    assert [one.response for one in found] == [f"colour/colour-{n}" for n in range(4)]


def changed(rows: list[dict[str, Any]], place: int, **keys: Any) -> list[dict[str, Any]]:
    return [{**row, **keys} if n == place else row for n, row in enumerate(rows)]


def lmms_failures(task: Task) -> dict[str, list[dict[str, Any]]]:
    rows = lmms_rows(task, SAID)
    wrong = "B" if rows[2]["target"] == "A" else "A"
    return {
        "PATH:3: is the item of PATH:2 again": changed(rows, 2, doc_id=1, target=rows[1]["target"]),
        "PATH: lacks colour-1, colour-3, against ITEMS": rows[::2],
        "PATH:4: is of item 4, and ITEMS has 4, counted from 0": changed(rows, 3, doc_id=4),
        "PATH:1: doc_id '-1' is not the number of an item": changed(rows, 0, doc_id=-1),
        "PATH:2: holds no response in filtered_resps or resps": changed(
            rows, 1, filtered_resps=[[]]
        ),
        f"PATH:3: its right answer is {wrong!r}; that of colour-2, which has its place in ITEMS,"
        f" is {rows[2]['target']!r}": changed(rows, 2, target=wrong),
    }


@pytest.mark.parametrize("number", range(6))
def test_rows_that_do_not_fit_are_named(tmp_path: Path, task: Task, number: int) -> None:
    message, rows = list(lmms_failures(task).items())[number]
    path = write_lines(tmp_path / "s.jsonl", rows)
    with pytest.raises(DataError) as caught:
        import_predictions(path, "lmms-eval", task)
    expected = message.replace("PATH", str(path)).replace("ITEMS", str(task.items_path))
    assert str(caught.value) == expected


def test_a_table_of_another_task_is_refused(tmp_path: Path, task: Task) -> None:
    path = write_table(tmp_path / "r.tsv", changed(kit_rows(task, SAID), 1, item="other/7"))
    with pytest.raises(DataError) as caught:
        import_predictions(path, "vlmevalkit", task)
    assert str(caught.value) == f"{path} (row 1): is of other/7; colour/colour-1 has its place"
    rows = [{"index": 0, "prediction": "A"}]
    with pytest.raises(DataError) as caught:
        import_predictions(write_table(tmp_path / "r.json", rows), "vlmevalkit", task)
    assert str(caught.value) == f"{tmp_path / 'r.json'} (row 0): lacks item"


def test_pickles_and_broken_files_are_refused(tmp_path: Path, task: Task) -> None:
    for name, content, message in (
        ("r.pkl", b"\x80\x04.", "is not one of .tsv, .json, .xlsx; set PRED_FORMAT=tsv"),
        ("r.json", b"{}", "is not a list of rows"),
        ("r.xlsx", b"PK", "cannot be read as .xlsx: File is not a zip file"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            import_predictions(path, "vlmevalkit", task)
        assert str(caught.value) == f"{path}: {message}"


def test_texts_that_a_spreadsheet_lost_are_refused(tmp_path: Path, task: Task) -> None:
    path = tmp_path / "r.xlsx"
    write_sheet(path, kit_rows(task, ("=1+1", "B", "C", "D")), formula="=1+1")
    with pytest.raises(DataError) as caught:
        import_predictions(path, "vlmevalkit", task)
    assert str(caught.value) == (
        f"{path}: cannot be read as .xlsx: cell E2 is a formula, for its text began with =;"
        " run VLMEvalKit with PRED_FORMAT=tsv"
    )
    write_sheet(path, kit_rows(task, ("A", "B" * 32_767, "C", "D")))
    with pytest.raises(DataError) as caught:
        import_predictions(path, "vlmevalkit", task)
    assert str(caught.value) == (
        f"{path}: prediction is cut at 32767 characters; run VLMEvalKit with PRED_FORMAT=tsv"
    )


def test_a_spreadsheet_that_unpacks_to_anything_is_refused(tmp_path: Path, task: Task) -> None:
    path = tmp_path / "r.xlsx"
    entities = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 30}">'
        for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", f"{entities}]><a>&h;</a>")
    with pytest.raises(DataError, match=r"r\.xlsx: cannot be read as \.xlsx"):
        import_predictions(path, "vlmevalkit", task)


def test_a_folder_is_searched_for_the_results_of_a_task(tmp_path: Path, task: Task) -> None:
    for source, name in (
        ("lmms-eval", "model/20260101_000000_samples_mt_colour.jsonl"),
        ("vlmevalkit", "model/T1/model_mt_colour.xlsx"),
        ("llama-factory", "colour/generated_predictions.jsonl"),
    ):
        folder = tmp_path / source
        path = folder / name
        path.parent.mkdir(parents=True)
        with pytest.raises(DataError, match=r"the results of colour$"):
            result_file(folder, source, task)
        path.touch()
        (path.parent / f"other_{path.name}.bak").touch()
        assert result_file(folder, source, task) == path
        assert result_file(path, source, task) == path
    again = tmp_path / "lmms-eval/20260202_000000_samples_mt_colour.jsonl"
    again.touch()
    with pytest.raises(DataError) as caught:
        result_file(tmp_path / "lmms-eval", "lmms-eval", task)
    assert str(caught.value) == (
        f"{tmp_path}/lmms-eval: has {again.name}, model/20260101_000000_samples_mt_colour.jsonl"
        " of colour; name the folder of one of them"
    )


def test_verdicts_by_likelihood_cannot_be_imported(tmp_path: Path, task: Task) -> None:
    file = task.file.model_copy(update={"primary": "likelihood"})
    asked = Task(task.path, file, task.items)
    with pytest.raises(DataError) as caught:
        import_predictions(tmp_path / "none.jsonl", "lmms-eval", asked)
    assert str(caught.value) == (
        f"{task.path}: primary: likelihood needs likelihoods, and results of lmms-eval have none;"
        " choose another"
    )
