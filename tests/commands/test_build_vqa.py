"""`build-vqa`: questions that hold the right answer, distractor sets, clean failures."""

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from commandline import mllmtool
from PIL import Image

from mllmtool.data.choices import Labelled, distracted, question
from mllmtool.data.samples import images_root, read_samples
from mllmtool.data.suites import Item, read_suite

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
        }
    assert report["results"] == {
        "items": 20,
        "classes": ANIMALS,
        "files_passed_over": 3,
        "answers": dict(sorted(Counter("ABCD"[item["answer"]] for item in items).items())),
    }
    assert report["run"]["images_root"] == "../animals"
    made = tmp_path / "vqa/samples.jsonl"
    for checked in read_samples(made):
        assert (images_root(made) / checked.images[0]).is_file()


def test_a_question_by_hand() -> None:
    class Script(Random):
        """Draws the first classes and the last place."""

        def sample(self, population: Any, k: int, **_: Any) -> list[Any]:
            return list(population)[:k]

        def randrange(self, *stop: Any) -> int:
            return int(stop[0]) - 1

    item = question(Labelled(image="i", class_name="b"), ["a", "b", "c", "d"], 3, "q", Script())
    # without b the classes are a, c, d; two drawn from the front, b at the end
    assert item == {
        "id": "i",
        "images": ["i"],
        "question": "q",
        "options": ["a", "c", "b"],
        "answer": 2,
        "class_name": "b",
    }


def test_answers_and_distractors_are_drawn_evenly() -> None:
    classes, answers, wrong = ["a", "b", "c", "d", "e"], Counter[int](), Counter[str]()
    for seed in range(4000):
        item = question(Labelled(image="i", class_name="c"), classes, 4, "q", Random(seed))
        answers[item["answer"]] += 1
        wrong.update(set(item["options"]) - {"c"})
    assert all(abs(answers[place] - 1000) < 5 * (4000 * 3 / 16) ** 0.5 for place in range(4))
    assert all(abs(wrong[name] - 3000) < 5 * (4000 * 3 / 16) ** 0.5 for name in "abde")


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


def test_items_of_a_labels_file(tmp_path: Path, animals: Path) -> None:
    report = build(tmp_path / "vqa", "--images", labels(animals), "--options", 5)
    items = lines(tmp_path / "vqa/items.jsonl")
    assert [item["id"] for item in items] == [f"id-{name}" for name in ANIMALS]
    assert [item["images"] for item in items] == [[f"animals/{name}/0.png"] for name in ANIMALS]
    assert all(set(item["options"]) == set(ANIMALS) for item in items)
    assert report["run"]["images_root"] == ".."


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
        assert after == {**before, "options": expected, "class_option": place}
        Item.model_validate(after)
    places = Counter(each["class_option"] for each in found[:40])
    assert len(places) == 4
    assert report["results"] == {"items": 41, "dropped": ["h1", "h2"]}
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        *("items.jsonl", "report.json")
    ]


def test_distractors_take_every_wrong_place_evenly() -> None:
    whole = item("i", "a", "b", "c", "d", answer=1)
    places = Counter[int]()
    for seed in range(3000):
        made = distracted(whole, "cat", Random(seed))
        assert made is not None
        places[made["class_option"]] += 1
    assert set(places) == {0, 2, 3}
    assert all(abs(count - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for count in places.values())


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
    assert (plan["items"], plan["classes"]) == (20, ANIMALS)
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
        "FILE:1: ../x.png: leads out of the image folder DIR; set --images",
    ),
    "an image twice": (
        3,
        [GOOD, {**GOOD, "class_name": "dog"}],
        [],
        "FILE:2: id 'animals/cat/0.png' is also that of line 1",
    ),
    "no class": (3, [{"image": "x"}], [], "FILE:1: class_name: Field required"),
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
