"""Suites, tasks and items: what is read, how a prompt looks, and what every mistake is told."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from suite_factory import change, change_line, colour_suite, write_suite

from mllmtool.data.items import Item
from mllmtool.data.suites import Quadrant, Task, TaskFile, read_suite
from mllmtool.errors import DataError


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return colour_suite(tmp_path, number=3)


def task_of(**keys: Any) -> Task:
    described = {
        "schema": "mllmtool.task/1",
        "name": "t",
        "items": "t.jsonl",
        "quadrant": {"text": "id", "image": "ood"},
        "role": "new",
        "type": "mcq",
        "answer": "letter",
    }
    return Task(Path("t.yaml"), TaskFile.model_validate({**described, **keys}), ())


ITEM = Item(id="1", images=("a.png", "b.png"), question="Which?", options=("cat", "dog"), answer=1)


def test_reads_a_suite(suite: Path) -> None:
    read = read_suite(suite)
    assert [task.name for task in read.tasks] == [
        "colour-letter",
        "other-letter",
        "colour-open",
        "sums",
    ]
    assert read.num_items == 12
    assert (read.file.margin, read.file.seed) == (0.02, 0)
    first = read.tasks[0]
    assert first.file.quadrant.name == "id_text_id_image"
    assert first.images(first.items[0]) == (suite.parent / "tasks/../images/0.png",)


def test_letter_prompt() -> None:
    (turn,) = task_of().sample(ITEM).messages
    assert turn.content == "<image>\n<image>\nWhich?\nA. cat\nB. dog"
    assert task_of().answers(ITEM) == ("A", "B")


def test_own_prompt() -> None:
    task = task_of(prompt="{{Q}} {question}\n{options}\nLetter?", options_style="({letter}) {text}")
    (turn,) = task.sample(ITEM).messages
    assert turn.content == "<image>\n<image>\n{Q} Which?\n(A) cat\n(B) dog\nLetter?"


def test_text_prompt_does_not_show_the_options() -> None:
    task = task_of(answer="text")
    (turn,) = task.sample(ITEM).messages
    assert turn.content == "<image>\n<image>\nWhich?"
    assert task.answers(ITEM) == ("cat", "dog")


def test_text_prompt_may_show_the_options() -> None:
    task = task_of(answer="text", prompt="{question} {options}", options_style="{text},")
    (turn,) = task.sample(ITEM).messages
    assert turn.content == "<image>\n<image>\nWhich? cat,\ndog,"
    assert task.answers(ITEM) == ("cat", "dog")


@given(st.text(alphabet="ab{}%$\\ \n", max_size=20))
def test_what_an_item_says_is_no_template(question: str) -> None:
    item = ITEM.model_copy(update={"question": question, "images": ()})
    (turn,) = task_of(answer="text").sample(item).messages
    assert turn.content == question


def test_extra_keys_are_kept() -> None:
    item = Item.model_validate({**ITEM.model_dump(), "group": "n01"})
    assert item.model_extra == {"group": "n01"}


def test_limited_keeps_the_order(suite: Path) -> None:
    task = read_suite(suite).tasks[3]
    limited = task.limited(2, random.Random(1))
    assert len(limited.items) == 2
    assert [item for item in task.items if item in limited.items] == list(limited.items)
    assert task.limited(99, random.Random(1)) is task


def test_quadrant_names() -> None:
    assert Quadrant(text="ood", image="id").name == "ood_text_id_image"


SUITE_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"margins": 0.01}, "margins: unknown key; did you mean margin?"),
    ({"xyz": 1}, "xyz: unknown key"),
    ({"tasks": None}, "tasks: is required"),
    ({"margin": 2}, "margin: Input should be less than 1"),
    ({"schema": "mllmtool.suite/2"}, "schema: Input should be 'mllmtool.suite/1'"),
]


@pytest.mark.parametrize(("keys", "message"), SUITE_MISTAKES)
def test_suite_mistakes(suite: Path, keys: dict[str, Any], message: str) -> None:
    change(suite, **keys)
    with pytest.raises(DataError) as caught:
        read_suite(suite)
    assert str(caught.value) == f"{suite}: {message}"


TASK_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 3}, "max_tokens: unknown key; did you mean max_new_tokens?"),
    (
        {"quadrant": {"txt": "id", "image": "id"}},
        "quadrant.text: is required; quadrant.txt: unknown key; did you mean text?",
    ),
    ({"quadrant": {"text": "in", "image": "id"}}, "quadrant.text: Input should be 'id' or 'ood'"),
    ({"role": None}, "role: is required"),
    ({"name": "../x"}, "name: String should match pattern '^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$'"),
    (
        {"prompt": "{question} {image}\n{options}"},
        "prompt: unknown field {image}; fields are {options}, {question}",
    ),
    (
        {"prompt": "{question.__class__}{options}"},
        "prompt: {question.__class__}: a field is a plain name",
    ),
    (
        {"prompt": "{question!r}{options}"},
        "prompt: {question}: a field is a plain name",
    ),
    (
        {"prompt": "{question"},
        "prompt: expected '}' before end of string; write {{ and }} for braces",
    ),
    ({"answer": None}, "answer: is required for mcq: letter or text"),
    ({"type": "vqa"}, "answer: is for mcq, and type is vqa"),
    (
        {"type": "doc", "answer": None, "metrics": ["cider"]},
        "metrics: cider is not for doc; anls, format_fail, em, em_norm, contains, domain_rs,"
        " domain_med, domain_ad, domain_sci, domain_fin are",
    ),
    ({"primary": "format_fail"}, "primary: format_fail cannot be it, as less of it is better"),
    (
        {"type": "caption", "answer": None, "primary": "bleu_4"},
        "primary: bleu_4 cannot be it, as it is no mean over items",
    ),
    (
        {"type": "vqa", "answer": None, "prompt": "{options}"},
        "prompt: unknown field {options}; fields are {question}",
    ),
    ({"prompt": "{question}"}, "prompt: lacks {options}, and answer is letter"),
    ({"options_style": "{text}"}, "options_style: lacks {letter}, and answer is letter"),
    (
        {"prompt": "<image>{question}{options}"},
        "prompt: holds <image>; images are put in front by the task",
    ),
    (
        {"options_style": "{}. {text}"},
        "options_style: {}: a field is a plain name",
    ),
]


@pytest.mark.parametrize(("keys", "message"), TASK_MISTAKES)
def test_task_mistakes(suite: Path, keys: dict[str, Any], message: str) -> None:
    task = change(suite.parent / "tasks/colour-letter.yaml", **keys)
    with pytest.raises(DataError) as caught:
        read_suite(suite)
    assert str(caught.value) == f"{task}: {message}"


ITEM_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"answer": 5}, "answer 5 is not among 5 options"),
    ({"answer": True}, "answer: Input should be a valid integer"),
    ({"answer": "F"}, "answer 5 is not among 5 options"),
    ({"answer": "red"}, "answer: 'red' is no letter from A to Z; write that, or the index"),
    ({"answer": "b"}, "answer: 'b' is no letter from A to Z; write that, or the index"),
    ({"options": [], "answer": 2}, "answer: 2 is an index, without options; write a text"),
    ({"options": [str(n) for n in range(27)]}, "has 27 options, and there are 26 letters"),
    ({"options": ["red"]}, "options: Tuple should have at least 2 items after validation, not 1"),
    ({"options": ["red", " "], "answer": 0}, "an option is empty"),
    ({"answers": ["red"]}, "has both options and answers"),
    ({"options": [], "answer": "red"}, "has answers, and type is mcq"),
    ({"class_option": 5}, "class_option 5 is not among 5 options"),
    ({"question": " "}, "question: is empty, and the prompt shows it"),
    ({"question": "<image>?"}, "the text holds <image>; images are put in front by the task"),
    ({"id": ""}, "id: String should have at least 1 character"),
    ({"id": "colour-letter-0"}, "id 'colour-letter-0' is also that of line 1"),
]


@pytest.mark.parametrize(("keys", "message"), ITEM_MISTAKES)
def test_item_mistakes(suite: Path, keys: dict[str, Any], message: str) -> None:
    items = change_line(suite.parent / "tasks/colour-letter.jsonl", 2, **keys)
    with pytest.raises(DataError) as caught:
        read_suite(suite)
    assert str(caught.value) == f"{items}:2: {message}"


def test_options_that_read_alike_have_no_right_one(suite: Path) -> None:
    options = ["One", "two", "one "]
    items = change_line(suite.parent / "tasks/sums.jsonl", 2, options=options, answer=2)
    with pytest.raises(DataError) as caught:
        read_suite(suite)
    message = "options 0 and 2 are the same text, and one is the answer"
    assert str(caught.value) == f"{items}:2: {message}"


def test_where_no_letter_is_shown_there_may_be_any_number_of_options(suite: Path) -> None:
    options = [f"number {n}" for n in range(30)]
    change_line(suite.parent / "tasks/sums.jsonl", 2, options=options, answer=29)
    task = read_suite(suite).tasks[-1]
    assert task.answers(task.items[1])[29] == "number 29"
    shown = {"prompt": "{question}\n{options}", "options_style": "- {text}"}
    change(suite.parent / "tasks/sums.yaml", **shown)
    task = read_suite(suite).tasks[-1]
    assert str(task.sample(task.items[1]).messages[0].content).endswith("\n- number 29")
    change(suite.parent / "tasks/sums.yaml", options_style=None)
    with pytest.raises(DataError, match="has 30 options, and there are 26 letters"):
        read_suite(suite)


def test_a_line_that_is_not_json(suite: Path) -> None:
    items = suite.parent / "tasks/sums.jsonl"
    items.write_text("{\n")
    with pytest.raises(DataError) as caught:
        read_suite(suite)
    assert str(caught.value).startswith(f"{items}:1: is not JSON (")


def test_a_task_without_items(suite: Path) -> None:
    items = suite.parent / "tasks/sums.jsonl"
    items.write_text("\n")
    with pytest.raises(DataError) as caught:
        read_suite(suite)
    assert str(caught.value) == f"{items}: holds no items"


def test_two_tasks_of_one_name(suite: Path) -> None:
    write_suite(suite.parent, ["sums", "sums"])
    with pytest.raises(DataError) as caught:
        read_suite(suite)
    task = suite.parent / "tasks/sums.yaml"
    assert str(caught.value) == f"{task}: name: 'sums' is also {task}"


@pytest.mark.parametrize("text", ["- 1", "tasks: [", "when: 2001-99-99", "\x00"])
def test_not_a_suite(tmp_path: Path, text: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_suite(path)
    reason = "is not a mapping of keys to values" if text == "- 1" else "cannot be read: "
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


def test_a_key_that_is_given_twice_is_refused(suite: Path) -> None:
    suite.write_text(f"{suite.read_text()}margin: 0.5\nmargin: 0.1\n")
    line = len(suite.read_text().splitlines())
    with pytest.raises(DataError) as caught:
        read_suite(suite)
    place = f"line {line}, column 1"
    assert str(caught.value) == f"{suite}: cannot be read: {place}: margin is given twice"


def test_no_such_task(suite: Path) -> None:
    write_suite(suite.parent, ["gone"])
    with pytest.raises(DataError, match=r"gone\.yaml: cannot be read: .*No such file"):
        read_suite(suite)


def test_an_image_outside_its_folder(suite: Path) -> None:
    change_line(suite.parent / "tasks/colour-letter.jsonl", 1, images=["../suite.yaml"])
    task = read_suite(suite).tasks[0]
    with pytest.raises(DataError) as caught:
        task.images(task.items[0])
    folder = suite.parent / "tasks"
    assert str(caught.value) == (
        f"{folder}/colour-letter.jsonl: colour-letter-0: ../suite.yaml: leads out of the image"
        f" folder {folder}/../images; set image_root in {folder}/colour-letter.yaml"
    )


def test_a_missing_image(suite: Path) -> None:
    (suite.parent / "images/0.png").unlink()
    task = read_suite(suite).tasks[0]
    with pytest.raises(DataError) as caught:
        task.images(task.items[0])
    folder = suite.parent / "tasks"
    assert str(caught.value) == (
        f"{folder}/colour-letter.jsonl: colour-letter-0: {folder}/../images/0.png: no such image"
    )


def test_spellings_of_an_answer() -> None:
    choice = {"id": "1", "question": "?", "options": ["a", "b"]}
    assert Item.model_validate({**choice, "answer": "B"}).answer == 1
    told = {"id": "1", "question": "?"}
    for values in ({"answer": "red"}, {"answers": ["red"]}, {"references": ["red"]}):
        assert Item.model_validate({**told, **values}).answers == ("red",)


def test_the_option_that_names_the_class() -> None:
    values = {"id": "1", "question": "?", "options": ["boat", "cat", "dog"], "answer": 0}
    assert Item.model_validate(values).distractor is None
    assert Item.model_validate({**values, "class_name": "dog"}).distractor == 2
    assert Item.model_validate({**values, "class_name": "boat"}).distractor is None
    assert Item.model_validate({**values, "class_option": 1}).distractor == 1
