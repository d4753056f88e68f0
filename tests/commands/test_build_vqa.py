"""`build-vqa`: questions that hold the right answer, distractor sets, clean failures."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from commandline import mllmtool
from PIL import Image

from mllmtool.data.items import Item
from mllmtool.data.samples import images_root, read_samples
from mllmtool.data.suites import read_suite

ANIMALS = {"cat": 4, "dog": 5, "eel": 3, "fly": 6, "gnu": 2}


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """A folder of tiny pictures, one subfolder a class, with other files beside them."""
    for name, count in ANIMALS.items():
        (tmp_path / "animals" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (2, 2)).save(tmp_path / "animals" / name / f"{i}.png")
    (tmp_path / "animals/README.md").touch()
    (tmp_path / "animals/cat/notes.txt").touch()
    (tmp_path / "animals/stray.png").touch()
    (tmp_path / "animals/.thumbnails").mkdir()
    (tmp_path / "animals/.thumbnails/0.png").touch()
    return tmp_path / "animals"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def build(out: Path, *argv: object) -> dict[str, Any]:
    done = mllmtool("build-vqa", *argv, "--out", out, "--quiet")
    assert (done.status, done.out, done.err) == (0, f"{out}\n", "")
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def test_items_and_samples_of_a_folder(tmp_path: Path, animals: Path) -> None:
    report = build(tmp_path / "vqa", "--images", animals, "--question", "Which?")
    items, samples = lines(tmp_path / "vqa/items.jsonl"), lines(tmp_path / "vqa/samples.jsonl")
    assert len(items) == len(samples) == 20
    for item, sample in zip(items, samples, strict=True):
        Item.model_validate(item)
        name = item["id"]
        assert item["images"] == [name]
        assert item["class_name"] == name.split("/")[0] == item["options"][item["answer"]]
        assert len(set(item["options"])) == len(item["options"]) == 4
        assert set(item["options"]) <= set(ANIMALS)
        a, b, c, d = item["options"]
        prompt = f"<image>\nWhich?\nA. {a}\nB. {b}\nC. {c}\nD. {d}"
        assert sample == {
            "id": name,
            "images": [name],
            "messages": [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": "ABCD"[item["answer"]]},
            ],
            "style": "multiple-choice",
        }
    assert report["results"] == {
        "images": 20,
        "classes": ANIMALS,
        "files_passed_over": 4,
        "duplicate_rows": 0,
        "items": 20,
        "styles": {"multiple-choice": 20},
        "answers": dict(sorted(Counter("ABCD"[item["answer"]] for item in items).items())),
    }
    assert report["run"]["images_root"] == "../animals"
    made = tmp_path / "vqa/samples.jsonl"
    for checked in read_samples(made):
        assert (images_root(made) / checked.images[0]).is_file()


def test_another_image_changes_no_question(tmp_path: Path, animals: Path) -> None:
    build(tmp_path / "one", "--images", animals, "--seed", 3)
    Image.new("RGB", (2, 2)).save(animals / "cat/new.png")
    build(tmp_path / "two", "--images", animals, "--seed", 3)
    after = [item for item in lines(tmp_path / "two/items.jsonl") if "new" not in item["id"]]
    assert after == lines(tmp_path / "one/items.jsonl")


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path, animals: Path) -> None:
    one = build(tmp_path / "one", "--images", animals, "--seed", 3)
    two = build(tmp_path / "two", "--recipe", tmp_path / "one/report.json")
    other = build(tmp_path / "three", "--images", animals, "--seed", 4)
    for report in (one, two, other):
        del report["run"]
    assert one == two
    assert one["outputs"] != other["outputs"]


def labels(animals: Path, *rows: dict[str, Any]) -> Path:
    path = animals.parent / "labels.jsonl"
    given = rows or tuple(
        {"image": f"animals/{name}/0.png", "class_name": name, "id": f"id-{name}", "more": 1}
        for name in ANIMALS
    )
    path.write_text("\n".join(map(json.dumps, given)))
    return path


def item(name: str, *options: str, answer: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "images": [],
        "question": "?",
        "options": list(options),
        "answer": answer,
        **more,
    }


def test_one_wrong_option_gives_way_to_the_class_name(tmp_path: Path) -> None:
    source = [
        item(str(i), "one", "two", "three", "four", answer=i % 4, class_name="cat", wiki="x")
        for i in range(40)
    ]
    held = [
        item("h1", "a Cat", "dog", class_name="cat"),
        item("h2", "dog", "cat", class_name="cat"),
    ]
    near = item("n", "category", "concatenate", class_name="cat")
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(map(json.dumps, [*source, *held, near])))
    report = build(tmp_path / "out", "--images", path, "--distract", "class_name")
    found = lines(tmp_path / "out/items.jsonl")
    assert [each["id"] for each in found] == [str(i) for i in range(40)] + ["n"]
    for before, after in zip([*source, near], found, strict=True):
        place = after["class_option"]
        assert place != before["answer"] == after["answer"]
        expected = [*before["options"]]
        expected[place] = "cat"
        assert after == {
            **before,
            "options": expected,
            "class_option": place,
            "source_id": before["id"],
        }
        Item.model_validate(after)
    places = Counter(each["class_option"] for each in found[:40])
    assert len(places) == 4
    assert report["results"] == {"items": 41, "dropped": ["h1", "h2"]}
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        *("items.jsonl", "report.json")
    ]


def test_an_answer_by_letter_is_no_wrong_option(tmp_path: Path) -> None:
    source = [
        item(str(i), "one", "two", class_name="cat") | {"answer": "AB"[i % 2]} for i in range(8)
    ]
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(map(json.dumps, source)))
    build(tmp_path / "out", "--images", path, "--distract", "class_name")
    found = lines(tmp_path / "out/items.jsonl")
    assert [each["options"] for each in found] == [["one", "cat"], ["cat", "two"]] * 4
    assert [each["answer"] for each in found] == [0, 1] * 4


def test_a_chain_of_commands_finds_the_images(tmp_path: Path, animals: Path) -> None:
    """build-vqa, then its distractor set, and a mix of its samples: each knows where images are."""
    build(tmp_path / "vqa", "--images", animals)
    path = tmp_path / "vqa/items.jsonl"
    rows = [{**row, "topic": "water"} for row in lines(path)]
    path.write_text("\n".join(map(json.dumps, rows)))
    report = build(tmp_path / "far/set", "--images", path, "--distract", "topic")
    assert report["run"]["images_root"] == "../../animals"
    argv = ("--source", f"a={tmp_path}/vqa/samples.jsonl:1", "--total", 7)
    assert mllmtool("mix-data", *argv, "--out", tmp_path / "mix", "--quiet").status == 0
    mixed = tmp_path / "mix/samples.jsonl"
    assert all((images_root(mixed) / s.images[0]).is_file() for s in read_samples(mixed))


def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path: Path, animals: Path) -> None:
    before = sorted(tmp_path.iterdir())
    argv = ("build-vqa", "--images", animals, "--out", tmp_path / "vqa", "--dry-run", "--quiet")
    plan = json.loads(mllmtool(*argv).out)
    assert (plan["images"], plan["classes"]) == (20, ANIMALS)
    assert plan["first"]["id"] == "cat/0.png"
    assert sorted(tmp_path.iterdir()) == before


# Failures: status, the whole message, nothing left behind.

GOOD = {"image": "animals/cat/0.png", "class_name": "cat"}
ITEM = item("1", "a", "b", class_name="c")
FAILURES: dict[str, tuple[int, list[dict[str, Any]], list[str], str]] = {
    "fewer classes than options": (
        2,
        [GOOD],
        [],
        "--options: 4 options need as many classes, and FILE has 1 (cat)",
    ),
    "a missing image": (
        3,
        [GOOD, {"image": "no.png", "class_name": "dog"}],
        [],
        "FILE:2: DIR/no.png: no such image",
    ),
    "an image that leads out": (
        3,
        [{"image": "../x.png", "class_name": "dog"}],
        [],
        "FILE:1: ../x.png: leads out of the image folder DIR; set --image-root",
    ),
    "an image twice": (
        3,
        [GOOD, {**GOOD, "class_name": "dog"}],
        [],
        "FILE:2: image 'animals/cat/0.png' is also in FILE:1, with another class or text;"
        " give the rows ids in a column id",
    ),
    "an image that is no picture": (
        3,
        [GOOD, {**GOOD, "image": "animals/cat/notes.txt"}],
        [],
        "FILE:2: DIR/animals/cat/notes.txt: holds no PNG, JPEG, GIF, WebP, BMP or TIFF",
    ),
    "an image by the id of another": (
        3,
        [{**GOOD, "id": "animals/cat/1.png"}, {**GOOD, "image": "animals/cat/1.png"}],
        [],
        "FILE:2: id 'animals/cat/1.png' is also that of FILE:1",
    ),
    "no class": (
        3,
        [{"image": "x"}],
        [],
        "FILE:1: has no column 'class_name'; its columns are image; name one with --label-column",
    ),
    "a class with a mark": (
        3,
        [{**GOOD, "class_name": "<image>"}],
        [],
        "FILE:1: class_name: '<image>' cannot be an option's text",
    ),
    "no rows": (3, [], [], "FILE: holds no images"),
    "too many options": (
        2,
        [GOOD],
        ["--options", "27"],
        "--options: 27: input should be less than or equal to 26",
    ),
    "items without the field": (
        3,
        [ITEM],
        ["--distract", "topic"],
        "FILE:1: topic: must be a text, got None",
    ),
    "items without options": (
        3,
        [{"id": "1", "question": "q", "answers": ["a"], "class_name": "cat"}],
        ["--distract", "class_name"],
        "FILE:1: has no options, one of which is to give way",
    ),
    "no items": (
        3,
        [GOOD],
        ["--distract", "class_name"],
        "FILE:1: id: Field required",
    ),
    "an item twice": (
        3,
        [ITEM, ITEM],
        ["--distract", "class_name"],
        "FILE:2: id '1' is also that of line 1",
    ),
    "nothing left": (
        3,
        [{**ITEM, "class_name": "a"}],
        ["--distract", "class_name"],
        "FILE: every item already holds its class_name in an option",
    ),
    "a class name that is no option": (
        3,
        [{**ITEM, "class_name": "<image>"}],
        ["--distract", "class_name"],
        "FILE:1: class_name: '<image>' cannot be an option's text",
    ),
    "an image twice by its id": (
        3,
        [{**GOOD, "id": "a"}, {**GOOD, "id": "a"}],
        [],
        "FILE:2: id 'a' is also that of FILE:1",
    ),
    "a class that is no text": (
        3,
        [{**GOOD, "class_name": 3}],
        [],
        "FILE:1: class_name: is the number 3, and the file names no classes",
    ),
    "an unknown column in a question": (
        3,
        [GOOD],
        ["--question", "Which {kind}?"],
        "FILE:1: has no column 'kind'; its columns are image, class_name",
    ),
    "a question that gives itself away": (
        2,
        [GOOD],
        ["--question", "Is it {class_name}?"],
        "--question: {class_name}: is no field of this text",
    ),
    "a question with code": (
        2,
        [GOOD],
        ["--question", "{letters.__class__}"],
        "--question: {letters.__class__}: a field is a plain name",
    ),
    "more fixed options than options": (
        2,
        [GOOD],
        ["--fixed-options", "a,b,c,d"],
        "--fixed-options: 4 and the right one are more than --options 4",
    ),
    "a fixed option twice": (
        2,
        [GOOD],
        ["--fixed-options", "a,b,a"],
        "--fixed-options: a occurs twice",
    ),
    "a fixed option with a mark": (
        2,
        [GOOD],
        ["--fixed-options", "<image>"],
        "--fixed-options: '<image>' cannot be an option's text",
    ),
    "an empty question": (2, [GOOD], ["--question", " "], "--question: a question is empty"),
    "too few classes near": (
        2,
        [GOOD],
        ["--distractors", "confusion", "--confusion", "x.json", "--topk", "2"],
        "--topk: 3 wrong options are drawn from 2 classes",
    ),
    "confusion without its matrix": (
        2,
        [GOOD],
        ["--distractors", "confusion"],
        "--confusion: is required by --distractors",
    ),
    "a matrix that is not read": (
        2,
        [GOOD],
        ["--confusion", "x.json"],
        "--confusion: is not read with --distractors random",
    ),
    "a question of no style": (
        2,
        [GOOD],
        ["--style", "short", "--question", "What?"],
        "--question: is not read with --style short",
    ),
    "a flag that is not read": (
        2,
        [ITEM],
        ["--distract", "class_name", "--options", "3"],
        "--options: is not read with --distract",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures(tmp_path: Path, animals: Path, case: str) -> None:
    status, rows, argv, message = FAILURES[case]
    path = labels(animals)
    path.write_text("\n".join(map(json.dumps, rows)))
    before = sorted(tmp_path.iterdir())
    done = mllmtool("build-vqa", "--images", path, *argv, "--out", tmp_path / "vqa", "--quiet")
    assert (done.status, done.out) == (status, "")
    found = done.err.replace(str(path), "FILE").replace(str(tmp_path), "DIR")
    assert found == f"mllmtool: {message}\n"
    assert sorted(tmp_path.iterdir()) == before


def fails(tmp_path: Path, *argv: object) -> tuple[int, str]:
    """Exit status and message of a run that leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    done = mllmtool("build-vqa", *argv, "--out", tmp_path / "vqa", "--quiet")
    assert done.out == ""
    assert sorted(tmp_path.rglob("*")) == before
    return done.status, done.err.replace(str(tmp_path), "DIR")


def test_a_folder_that_links_to_itself(tmp_path: Path, animals: Path) -> None:
    (animals / "cat/again").symlink_to(animals)
    assert fails(tmp_path, "--images", animals) == (
        3,
        "mllmtool: DIR/animals/cat/again: is a link to a folder, which is not followed; copy it\n",
    )


def test_an_image_that_links_to_itself(tmp_path: Path, animals: Path) -> None:
    (animals / "cat/loop.png").symlink_to(animals / "cat/loop.png")
    status, message = fails(tmp_path, "--images", animals)
    assert status == 3
    assert message.startswith("mllmtool: DIR/animals: 'cat/loop.png': cannot be an image's name:")


def test_an_image_that_links_out_of_the_folder(tmp_path: Path, animals: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "out.png")
    (animals / "cat/out.png").symlink_to(tmp_path / "out.png")
    assert fails(tmp_path, "--images", animals) == (
        3,
        "mllmtool: DIR/animals: cat/out.png: leads out of the image folder DIR/animals;"
        " set --images\n",
    )


def test_a_picture_that_is_none_is_named(tmp_path: Path, animals: Path) -> None:
    (animals / "dog/1.png").write_text("<html>404</html>")
    assert fails(tmp_path, "--images", animals) == (
        3,
        "mllmtool: DIR/animals/dog/1.png: holds no PNG, JPEG, GIF, WebP, BMP or TIFF\n",
    )


def test_classes_of_one_image_are_told(tmp_path: Path, animals: Path) -> None:
    rows = [GOOD, *({"image": f"animals/{n}/0.png", "class_name": n} for n in ("dog", "eel"))]
    rows += [{"image": "animals/cat/1.png", "class_name": "cat"}]
    path = labels(animals)
    path.write_text("\n".join(map(json.dumps, rows)))
    argv = ("build-vqa", "--images", path, "--options", "3", "--quiet")
    message = (
        f"{path}:2: class 'dog' has one image (2 of 3 classes have);"
        " add images, or leave such classes out"
    )
    done = mllmtool(*argv, "--out", tmp_path / "vqa")
    report = json.loads((tmp_path / "vqa/report.json").read_text())
    assert (done.status, report["warnings"]) == (0, [message])
    loud = mllmtool(*argv[:-1], "--out", tmp_path / "loud")
    assert loud.err.count(message) == 1


def test_a_template_that_wants_a_column_of_a_folder(tmp_path: Path, animals: Path) -> None:
    assert fails(tmp_path, "--images", animals, "--question", "Which {kind}?") == (
        2,
        "mllmtool: --question: {kind} is a column, and DIR/animals is a folder of classes,"
        " which has none\n",
    )


def test_a_column_of_a_folder(tmp_path: Path, animals: Path) -> None:
    assert fails(tmp_path, "--images", animals, "--label-column", "kind") == (
        2,
        "mllmtool: --label-column: is not read, as DIR/animals is a folder of classes\n",
    )


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = mllmtool("build-vqa", "--images", tmp_path / "empty", "--out", tmp_path / "vqa")
    assert (done.status, done.err) == (
        3,
        f"mllmtool: {tmp_path}/empty: holds no images in a subfolder named after their class\n",
    )


def test_a_distractor_set_of_a_folder(tmp_path: Path, animals: Path) -> None:
    argv = ("--images", animals, "--distract", "class_name", "--out", tmp_path / "vqa")
    done = mllmtool("build-vqa", *argv)
    message = f"--distract: needs --images ITEMS.jsonl, and {animals} is a folder"
    assert (done.status, done.err) == (2, f"mllmtool: {message}\n")


def test_a_task_finds_the_images_of_items_that_were_built(tmp_path: Path, animals: Path) -> None:
    build(tmp_path / "vqa", "--images", animals)
    (tmp_path / "vqa/task.yaml").write_text(
        "schema: mllmtool.task/1\nname: animals\nitems: items.jsonl\nrole: new\ntype: mcq\n"
        "answer: letter\nquadrant: {text: id, image: id}\n"
    )
    (tmp_path / "suite.yaml").write_text("schema: mllmtool.suite/1\ntasks: [vqa/task.yaml]\n")
    (task,) = read_suite(tmp_path / "suite.yaml").tasks
    assert all(task.images(item)[0].is_file() for item in task.items)


def test_versions_of_a_question_all_differ_and_all_are_right(tmp_path: Path, animals: Path) -> None:
    build(tmp_path / "vqa", "--images", animals, "--per-epoch", 8, "--options", 3)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in lines(tmp_path / "vqa/items.jsonl"):
        image, _, number = row["id"].rpartition("#")
        found.setdefault(image, []).append(row)
        assert int(number) == len(found[image])
        assert row["options"][row["answer"]] == row["class_name"] == image.split("/")[0]
    assert {len(rows) for rows in found.values()} == {8}
    for rows in found.values():
        assert len({tuple(row["options"]) for row in rows}) == 8


def test_more_versions_than_there_are(tmp_path: Path, animals: Path) -> None:
    argv = ("--images", animals, "--per-epoch", 9, "--options", 2)
    # one of four other classes, in one of two orders
    assert fails(tmp_path, *argv) == (
        2,
        "mllmtool: --per-epoch: cat can be asked in 8 ways, fewer than 9\n",
    )


def test_fixed_options_are_always_shown(tmp_path: Path, animals: Path) -> None:
    argv = ("--images", animals, "--options", 5, "--fixed-options", "none, cat")
    build(tmp_path / "vqa", *argv)
    for row in lines(tmp_path / "vqa/items.jsonl"):
        assert {"none", "cat", row["class_name"]} <= set(row["options"])
        assert len(set(row["options"])) == 5
        assert set(row["options"]) <= {*ANIMALS, "none"}


def test_another_style_changes_no_question(tmp_path: Path, animals: Path) -> None:
    """And every style's item says what its sample teaches."""
    styles = ("multiple-choice", "yes-no", "short", "brief", "detailed")
    build(tmp_path / "one", "--images", animals)
    argv = [word for style in styles for word in ("--style", style)]
    report = build(tmp_path / "five", "--images", animals, *argv)
    assert report["results"]["styles"] == dict.fromkeys(sorted(styles), 20)
    items, samples = lines(tmp_path / "five/items.jsonl"), lines(tmp_path / "five/samples.jsonl")
    assert items[::5] == lines(tmp_path / "one/items.jsonl")
    build(tmp_path / "brief", "--images", animals, "--style", "brief")
    assert items[3::5] == lines(tmp_path / "brief/items.jsonl")
    for row, sample in zip(items, samples, strict=True):
        Item.model_validate(row)
        assert (row["id"], row["style"]) == (sample["id"], sample["style"])
        user, assistant = (turn["content"] for turn in sample["messages"])
        if row["style"] != "multiple-choice":
            assert user == f"<image>\n{row['question']}"
            assert assistant == row["options"][row["answer"]]
    assert len({tuple(row["options"]) for row in items if row["style"] == "yes-no"}) == 1


def test_templates_of_a_file(tmp_path: Path, animals: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "multiple-choice: ['Which one ({letters})?', 'What?']\n"
        "short: [{question: Name it., answer: 'the {class_name}'}]\n"
    )
    argv = ("--templates", tmp_path / "t.yaml", "--style", "multiple-choice", "--style", "short")
    report = build(tmp_path / "vqa", "--images", animals, *argv, "--answer", "text")
    items, samples = lines(tmp_path / "vqa/items.jsonl"), lines(tmp_path / "vqa/samples.jsonl")
    assert {row["question"] for row in items[::2]} == {"Which one (A, B, C or D)?", "What?"}
    for row, sample in zip(items, samples, strict=True):
        the = "the " if row["style"] == "short" else ""
        assert sample["messages"][1]["content"] == the + row["class_name"]
    assert [read["role"] for read in report["inputs"]] == ["images", "templates"]


def test_a_task_asks_as_the_sample_does(tmp_path: Path, animals: Path) -> None:
    build(tmp_path / "vqa", "--images", animals)
    (tmp_path / "vqa/task.yaml").write_text(
        "schema: mllmtool.task/1\nname: animals\nitems: items.jsonl\nrole: new\ntype: mcq\n"
        "answer: letter\nquadrant: {text: id, image: id}\n"
    )
    (tmp_path / "suite.yaml").write_text("schema: mllmtool.suite/1\ntasks: [vqa/task.yaml]\n")
    (task,) = read_suite(tmp_path / "suite.yaml").tasks
    for item, sample in zip(task.items, read_samples(tmp_path / "vqa/samples.jsonl"), strict=True):
        assert task.sample(item).messages[0] == sample.messages[0]
        assert task.answers(item)[item.answer] == sample.messages[1].content


CONFUSED = [[9, 1, 0, 5, 0], [0, 9, 0, 0, 0], [3, 2, 1, 0, 0], [0, 0, 0, 9, 1], [1, 1, 1, 1, 9]]


def confusion(tmp_path: Path, **changed: Any) -> Path:
    path = tmp_path / "confusion.json"
    path.write_text(json.dumps({"classes": list(ANIMALS), "matrix": CONFUSED} | changed))
    return path


def test_wrong_options_are_the_classes_most_confused(tmp_path: Path, animals: Path) -> None:
    argv = ("--confusion", confusion(tmp_path), "--distractors", "confusion", "--topk", 2)
    report = build(tmp_path / "vqa", "--images", animals, *argv, "--options", 3)
    assert report["warnings"] == [
        f"{tmp_path}/confusion.json: dog, fly: taken for fewer than 2 other classes;"
        " the rest of the options are drawn from all"
    ]
    for row in lines(tmp_path / "vqa/items.jsonl"):
        wrong = set(row["options"]) - {row["class_name"]}
        match row["class_name"]:
            case "cat":
                assert wrong == {"dog", "fly"}
            case "eel":
                assert wrong == {"cat", "dog"}
            case "fly":  # taken for a gnu alone; the other is any
                assert "gnu" in wrong
            case "gnu":  # all alike: the first two
                assert wrong == {"cat", "dog"}


WRONG_CONFUSION: dict[str, tuple[dict[str, Any], str]] = {
    "a row too few": ({"matrix": CONFUSED[1:]}, "matrix: 4 rows for 5 classes"),
    "a column too many": (
        {"matrix": [[1] * 6, *CONFUSED[1:]]},
        "matrix: row of cat: 6 columns for 5 classes",
    ),
    "no number": (
        {"matrix": [*CONFUSED[:4], [0, 0, 0, 0, float("nan")]]},
        "matrix: row of gnu: nan is not a count or a share",
    ),
    "no share": (
        {"matrix": [*CONFUSED[:4], [0, 0, 0, 0, -1]]},
        "matrix: row of gnu: -1 is not a count or a share",
    ),
    "an unknown class": (
        {"classes": ["cat", "dog", "eel", "fly", "gnat"]},
        "classes: the images have no gnat",
    ),
    "a missing class": (
        {"classes": ["cat", "dog"], "matrix": [[1, 1], [1, 1]]},
        "classes: has no eel, fly, gnu, as the images have",
    ),
    "a class twice": ({"classes": ["cat"] * 5}, "classes: are not texts, each once"),
    "no matrix": ({"matrix": None}, "is not a mapping with the lists classes and matrix"),
}


@pytest.mark.parametrize("case", WRONG_CONFUSION)
def test_a_confusion_that_cannot_be(tmp_path: Path, animals: Path, case: str) -> None:
    changed, message = WRONG_CONFUSION[case]
    path = confusion(tmp_path, **changed)
    found = fails(tmp_path, "--images", animals, "--distractors", "confusion", "--confusion", path)
    assert found == (3, f"mllmtool: DIR/confusion.json: {message}\n")


WRONG_TEMPLATES = {
    "multi: [What]": (
        "multi: unknown style; styles are multiple-choice, yes-no, short, brief, detailed"
    ),
    "short: [a]\nshort: [b]": "cannot be read: line 2, column 1: short is given twice",
    "short: What?": "short: is not a list of templates",
    "short: []": "short: is not a list of templates",
    "short: [{question: a, answer: b}]": "short: lacks {class_name}",
    "short: [{question: a, anser: b}]": "short: anser: Extra inputs are not permitted",
    "short: [7]": "short: Input should be a valid dictionary or instance of Template",
    "yes-no: [Is it]": "yes-no: lacks {class_name}",
    "yes-no: [{question: a, answer: b}]": "yes-no: 'b': no answer is written in this style",
    "multiple-choice: ['{0}']": "multiple-choice: {0}: a field is a plain name",
    "multiple-choice: ['{letters!r}']": "multiple-choice: {letters}: a field is a plain name",
    "multiple-choice: ['<image>']": "multiple-choice: holds <image>; images are put in front",
    "multiple-choice: ['{']": (
        "multiple-choice: Single '{' encountered in format string; write {{ and }} for braces"
    ),
    "[What]": "is not a mapping of styles to lists",
}


@pytest.mark.parametrize("text", WRONG_TEMPLATES)
def test_templates_that_cannot_be(tmp_path: Path, animals: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    found = fails(tmp_path, "--images", animals, "--templates", tmp_path / "t.yaml")
    assert found == (3, f"mllmtool: DIR/t.yaml: {WRONG_TEMPLATES[text]}\n")
