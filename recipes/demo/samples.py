"""Unpack the demo's Parquet data into pictures, training samples and the evaluation suite.

    python recipes/demo/samples.py recipes/demo/data OUT

OUT/images/*.png        the pictures, named by their id
OUT/garment-name.jsonl  the fine-tuned task: which garment of four, answered by the option's text
OUT/digit-next.jsonl    a second task that the base has not seen, for multi-task fusion
OUT/general.jsonl       what the base was trained on: the other half of a hybrid mix, anchors
OUT/stage-*.jsonl       the base's curriculum, one file a stage
OUT/suite.yaml          the 2x2 suite, its tasks in OUT/tasks
OUT/suite-two.yaml      the same with the second task

Everything is drawn from random streams named by the file that they fill, so that one file does
not depend on another. Training reads train pictures and evaluation test pictures; emoji are the
exception, where two styles are seen in training and the third, Twemoji, never is. No garment's
name is an answer or an option in what the base is trained on: its text alone may name one, as
in "Thing: boot", because a language model that has never met the words would not be one.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import yaml

Row = dict[str, Any]


class Ask(NamedTuple):
    """A question about a picture or about nothing but its text, with its answer."""

    image: str | None
    question: str
    answer: str


Draw = Callable[[random.Random], Ask]

WHAT = "What is this?"  # asked with four options on every kind of picture, answered by text
LETTER = "Which letter is it?"  # the same, answered by the option's letter
NAME = "Name it."
BOTH = "Name it, then its letter."
NEXT = "What digit comes next?"
FEET = "Is it worn on the feet?"
WARM = "Is it for warm weather?"
KIND = "What kind is it?"
EVEN = "Is the digit even or odd?"
ABOVE = "Is the digit greater than 4?"
GROUP = "Which group is it in?"

LETTERS = "ABCD"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
YES_NO = ("no", "yes")
KINDS = {
    "top": ("tee", "shirt", "pullover", "coat"),
    "bottoms": ("trousers",),
    "onepiece": ("dress",),
    "footwear": ("sandal", "sneaker", "boot"),
    "accessory": ("bag",),
}
WARM_WEATHER = {"tee": "yes", "dress": "yes", "sandal": "yes"}
WARM_WEATHER |= {"pullover": "no", "coat": "no", "boot": "no"}  # the other four are left out
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
UNSEEN_STYLE = "twemoji"


def main() -> None:
    """Write the whole folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    data = Data(arguments.data)
    data.unpack(arguments.out / "images")
    write_training(data, arguments.out)
    write_suites(data, arguments.out)


class Data:
    """The rows of the four files, without their pictures."""

    def __init__(self, folder: Path) -> None:
        self.pictures: dict[str, bytes] = {}
        self.garments = self._read(folder / "garments.parquet")
        self.digits = self._read(folder / "digits.parquet")
        self.emoji = self._read(folder / "emoji.parquet")
        self.shapes = self._read(folder / "shapes.parquet")
        self.garment_names = tuple(dict.fromkeys(row["class_name"] for row in self.garments))
        self.emoji_names = tuple(dict.fromkeys(row["class_name"] for row in self.emoji))
        self.groups = tuple(dict.fromkeys(row["group"] for row in self.emoji))
        self.seen_emoji = [row for row in self.emoji if row["style"] != UNSEEN_STYLE]
        self.unseen_emoji = [row for row in self.emoji if row["style"] == UNSEEN_STYLE]

    def _read(self, path: Path) -> list[Row]:
        rows: list[Row] = pq.read_table(path).to_pylist()
        self.pictures |= {row["id"]: row.pop("image") for row in rows}
        return rows

    def unpack(self, folder: Path) -> None:
        """Write every picture, the bytes as they are."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in self.pictures.items():
            (folder / f"{name}.png").write_bytes(picture)


def split(rows: Iterable[Row], name: str) -> list[Row]:
    """The rows of one split."""
    return [row for row in rows if row["split"] == name]


def kind_of(garment: str) -> str:
    """The kind that a garment belongs to."""
    return next(kind for kind, garments in KINDS.items() if garment in garments)


# Questions: a row and a random stream in, a question with its answer out.


def letters(question: str, options: Sequence[str]) -> str:
    """The question, then one line an option."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return "\n".join([question, *lines])


def shuffled(answer: str, pool: Sequence[str], rng: random.Random) -> list[str]:
    """The answer among three others of the pool, in a random order."""
    options = [answer, *rng.sample([name for name in pool if name != answer], 3)]
    rng.shuffle(options)
    return options


def by_text(
    image: str | None, question: str, answer: str, pool: Sequence[str], rng: random.Random
) -> Ask:
    """A question answered by the text of one of four options."""
    return Ask(image, letters(question, shuffled(answer, pool, rng)), answer)


def by_letter(
    image: str | None, question: str, answer: str, pool: Sequence[str], rng: random.Random
) -> Ask:
    """A question answered by the letter of one of four options."""
    options = shuffled(answer, pool, rng)
    return Ask(image, letters(question, options), LETTERS[options.index(answer)])


def garment_facts(row: Row) -> list[Ask]:
    """What is asked about a garment beside its name."""
    garment = row["class_name"]
    kind = kind_of(garment)
    asked = [
        Ask(row["id"], FEET, YES_NO[kind == "footwear"]),
        Ask(row["id"], KIND, kind),
    ]
    if garment in WARM_WEATHER:
        asked.append(Ask(row["id"], WARM, WARM_WEATHER[garment]))
    return asked


def digit_facts(row: Row) -> list[Ask]:
    """What is asked about a digit beside its name."""
    value = DIGITS.index(row["class_name"])
    return [
        Ask(row["id"], EVEN, ("even", "odd")[value % 2]),
        Ask(row["id"], ABOVE, YES_NO[value > 4]),
    ]


def thing_facts(data: Data) -> list[Ask]:
    """The same facts about a word instead of a picture."""
    garments = [{"id": None, "class_name": name} for name in data.garment_names]
    digits = [{"id": None, "class_name": name} for name in DIGITS]
    groups = {row["class_name"]: row["group"] for row in data.emoji}
    asked = [(row, ask) for row in garments for ask in garment_facts(row)]
    asked += [(row, ask) for row in digits for ask in digit_facts(row)]
    told = [(row["class_name"], ask.question, ask.answer) for row, ask in asked]
    told += [(name, GROUP, group) for name, group in groups.items()]
    return [Ask(None, f"Thing: {name}\n{question}", answer) for name, question, answer in told]


# Training files.


def write_training(data: Data, out: Path) -> None:
    """Write the two tasks, the general mix and the curriculum."""
    rng = random.Random("garment-name")
    rows = split(data.garments, "train")
    asked = [ask for _ in range(2) for ask in garment_names(rows, data, rng)]
    write_samples(out / "garment-name.jsonl", shuffle(asked, rng))

    rng = random.Random("digit-next")
    rows = [row for row in split(data.digits, "train") if row["class_name"] != DIGITS[-1]]
    write_samples(out / "digit-next.jsonl", shuffle([next_digit(row, rng) for row in rows], rng))

    sources = general_sources(data)
    for name, (total, shares) in MIXES.items():
        rng = random.Random(name)
        write_samples(out / f"{name}.jsonl", mix(sources, shares, total, rng))


def garment_names(rows: Sequence[Row], data: Data, rng: random.Random) -> list[Ask]:
    """The fine-tuned task, once for every picture."""
    return [by_text(r["id"], WHAT, r["class_name"], data.garment_names, rng) for r in rows]


def next_digit(row: Row, rng: random.Random) -> Ask:
    """The second task."""
    answer = DIGITS[DIGITS.index(row["class_name"]) + 1]
    return by_text(row["id"], NEXT, answer, DIGITS, rng)


# Samples in all, and the share of each source, of every mixed file.
#
# Reading options is learned last and hardest: at 1 million parameters it stays at chance for a
# thousand steps when it is asked of 240 words at once. So in stage 0 a text-only lookup among ten
# words makes the circuit, stage 1 keeps it while names are learned, and stage 2 asks for the letter
# of digits, and for the option's text of everything.
MIXES: dict[str, tuple[int, dict[str, float]]] = {
    "stage-0": (20_000, {"find-digit": 0.5, "copy-digit": 0.5}),
    "stage-1": (
        40_000,
        {
            "digit-open": 0.12,
            "digit-facts": 0.09,
            "emoji-open": 0.24,
            "emoji-group": 0.06,
            "garment-facts": 0.10,
            "shapes": 0.13,
            "thing-facts": 0.04,
            "find-digit": 0.09,
            "copy-digit": 0.09,
            "both-digit": 0.04,
        },
    ),
    "stage-2": (
        40_000,
        {
            "digit-open": 0.04,
            "digit-facts": 0.07,
            "emoji-open": 0.06,
            "emoji-group": 0.04,
            "garment-facts": 0.09,
            "shapes": 0.13,
            "thing-facts": 0.02,
            "find-digit": 0.06,
            "both-digit": 0.06,
            "digit-letter": 0.15,
            "digit-choice": 0.12,
            "emoji-choice": 0.13,
            "kind-choice": 0.03,
        },
    ),
    "general": (
        12_000,
        {
            "digit-open": 0.06,
            "digit-facts": 0.10,
            "emoji-open": 0.10,
            "emoji-group": 0.06,
            "garment-facts": 0.14,
            "shapes": 0.16,
            "thing-facts": 0.02,
            "digit-letter": 0.08,
            "digit-choice": 0.12,
            "emoji-choice": 0.12,
            "kind-choice": 0.04,
        },
    ),
}


def general_sources(data: Data) -> dict[str, Draw]:
    """One draw of each source that the base is trained on."""
    garments, digits = split(data.garments, "train"), split(data.digits, "train")
    shapes = split(data.shapes, "train")
    words = (*data.emoji_names, *DIGITS, *SHAPES, *COLOURS, *KINDS, *data.groups)
    return {
        "digit-open": draw(opened(digits)),
        "digit-facts": draw([ask for row in digits for ask in digit_facts(row)]),
        "digit-choice": draw_choice(digits, DIGITS, words),
        "digit-letter": draw_letter(digits, DIGITS, LETTER),
        "both-digit": with_name(draw_letter(digits, DIGITS, BOTH)),
        "emoji-open": draw(opened(data.seen_emoji)),
        "emoji-group": draw([Ask(row["id"], GROUP, row["group"]) for row in data.seen_emoji]),
        "emoji-choice": draw_choice(data.seen_emoji, data.emoji_names, words),
        "garment-facts": draw([ask for row in garments for ask in garment_facts(row)]),
        "kind-choice": draw_kind(garments),
        "shapes": draw([ask for row in shapes for ask in shape_questions(row)]),
        "thing-facts": draw(thing_facts(data)),
        "find-digit": draw_lookup("Find: ", DIGITS),
        "copy-digit": with_name(draw_lookup("Copy, then letter: ", DIGITS)),
    }


def opened(rows: Sequence[Row]) -> list[Ask]:
    """Ask for the name without options."""
    return [Ask(row["id"], NAME, row["class_name"]) for row in rows]


def draw(asked: Sequence[Ask]) -> Draw:
    """One of these questions."""
    return lambda rng: rng.choice(asked)


def draw_choice(rows: Sequence[Row], pool: Sequence[str], words: Sequence[str]) -> Draw:
    """What it is, with three options of the same sort or, one time in four, of any."""

    def ask(rng: random.Random) -> Ask:
        row = rng.choice(rows)
        options = pool if rng.random() < 0.75 else words
        return by_text(row["id"], WHAT, row["class_name"], options, rng)

    return ask


def draw_letter(rows: Sequence[Row], pool: Sequence[str], question: str) -> Draw:
    """The letter form, with three options of the same sort."""

    def ask(rng: random.Random) -> Ask:
        row = rng.choice(rows)
        return by_letter(row["id"], question, row["class_name"], pool, rng)

    return ask


def draw_kind(rows: Sequence[Row]) -> Draw:
    """A garment's kind, one of four."""

    def ask(rng: random.Random) -> Ask:
        row = rng.choice(rows)
        return by_text(row["id"], KIND, kind_of(row["class_name"]), list(KINDS), rng)

    return ask


def draw_lookup(question: str, words: Sequence[str]) -> Draw:
    """The letter form without a picture: the option that is this word."""

    def ask(rng: random.Random) -> Ask:
        word = rng.choice(words)
        return by_letter(None, question + word, word, words, rng)

    return ask


def with_name(letter_form: Draw) -> Draw:
    """The option's text in front of its letter, so that the name can be looked up once said."""

    def ask(rng: random.Random) -> Ask:
        found = letter_form(rng)
        _, *options = found.question.rsplit("\n", len(LETTERS))
        name = options[LETTERS.index(found.answer)].removeprefix(f"{found.answer}. ")
        return found._replace(answer=f"{name}, {found.answer}")

    return ask


def shape_questions(row: Row) -> list[Ask]:
    """easy-VQA's own questions about a picture, begun with a capital as the others are."""
    pairs = zip(row["questions"], row["answers"], strict=True)
    return [
        Ask(row["id"], question[0].upper() + question[1:], answer) for question, answer in pairs
    ]


def mix(
    sources: dict[str, Draw], shares: dict[str, float], total: int, rng: random.Random
) -> list[Ask]:
    """Samples of every source in its exact share, shuffled."""
    asked = [
        sources[name](rng) for name, share in shares.items() for _ in range(round(total * share))
    ]
    return shuffle(asked, rng)


def shuffle(asked: Sequence[Ask], rng: random.Random) -> list[Ask]:
    """The same questions in a random order."""
    return rng.sample(asked, len(asked))


def write_samples(path: Path, asked: Sequence[Ask]) -> None:
    """Write training samples, an id of file and place each."""
    with path.open("w", encoding="utf-8") as file:
        for index, ask in enumerate(asked):
            mark = "<image>\n" if ask.image else ""
            sample = {
                "id": f"{path.stem}-{index:05d}",
                "images": [f"images/{ask.image}.png"] if ask.image else [],
                "messages": [
                    {"role": "user", "content": mark + ask.question},
                    {"role": "assistant", "content": ask.answer},
                ],
            }
            file.write(json.dumps(sample) + "\n")


# The suite.


class Task(NamedTuple):
    """A task of the suite: where it stands in the matrix, and its items."""

    name: str
    quadrant: str  # text then image
    form: str  # letter, choice (the options are shown, their text is the answer) or text
    items: list[Row]
    role: str = "original"


def write_suites(data: Data, out: Path) -> None:
    """Write the tasks and the two suites."""
    tasks = [*name_tasks(data), *garment_tasks(data), *other_tasks(data)]
    (out / "tasks").mkdir(parents=True, exist_ok=True)
    second = digit_next_task(data)
    for task in [*tasks, second]:
        write_task(task, out / "tasks")
    write_suite(out / "suite.yaml", tasks)
    write_suite(out / "suite-two.yaml", [*tasks, second])


def write_suite(path: Path, tasks: Sequence[Task]) -> None:
    """Write a suite file. The margin is a share of the items."""
    suite = {
        "schema": "mllmtool.suite/1",
        "tasks": [f"tasks/{task.name}.yaml" for task in tasks],
        "margin": 0.02,
        "seed": 0,
    }
    path.write_text(yaml.safe_dump(suite, sort_keys=False), encoding="utf-8")


def write_task(task: Task, folder: Path) -> None:
    """Write a task's YAML and its items."""
    text, image = task.quadrant.split("/")
    described = {
        "schema": "mllmtool.task/1",
        "name": task.name,
        "items": f"{task.name}.jsonl",
        "image_root": "../images",
        "quadrant": {"text": text, "image": image},
        "role": task.role,
        "type": "mcq",
        "answer": "letter" if task.form == "letter" else "text",
        "prompt": "{question}" if task.form == "text" else "{question}\n{options}",
        "options_style": "{letter}. {text}",
        "max_new_tokens": 4,
    }
    path = folder / f"{task.name}.yaml"
    path.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    with (folder / f"{task.name}.jsonl").open("w", encoding="utf-8") as file:
        for index, found in enumerate(task.items):
            file.write(json.dumps({"id": f"{task.name}-{index:04d}", **found}) + "\n")


def item(row: Row, question: str, options: Sequence[str], answer: str) -> Row:
    """An evaluation item about a picture."""
    found = {
        "images": [f"{row['id']}.png"],
        "question": question,
        "options": list(options),
        "answer": list(options).index(answer),
    }
    return found | ({"class_name": row["class_name"]} if "class_name" in row else {})


def names(name: str, rows: Sequence[Row], pool: Sequence[str], question: str = WHAT) -> list[Row]:
    """Items that ask which of four names a picture's is."""
    rng = random.Random(name)
    return [
        item(row, question, shuffled(row["class_name"], pool, rng), row["class_name"])
        for row in rows
    ]


def name_tasks(data: Data) -> list[Task]:
    """The question of the fine-tuned task, on its own pictures and on others."""
    garments, digits = split(data.garments, "test"), split(data.digits, "test")
    scanned = [row for row in digits if row["source"] == "sklearn-digits"]
    drawn = [row for row in digits if row["source"] == "dejavu-fonts"]
    emoji = data.emoji_names
    return [
        Task(
            name="garment-name",
            quadrant="id/id",
            form="choice",
            items=names("garment-name", garments, data.garment_names),
            role="new",
        ),
        Task("digit-name", "id/ood", "choice", names("digit-name", scanned, DIGITS)),
        Task("digit-font", "id/ood", "choice", names("digit-font", drawn, DIGITS)),
        Task("emoji-seen", "id/ood", "choice", names("emoji-seen", data.seen_emoji, emoji)),
        Task("emoji-unseen", "id/ood", "choice", names("emoji-unseen", data.unseen_emoji, emoji)),
    ]


def garment_tasks(data: Data) -> list[Task]:
    """Knowledge about a garment that is not its name."""
    rows = split(data.garments, "test")
    kinds = list(KINDS)
    feet = [row for row in rows if kind_of(row["class_name"]) == "footwear"]
    others = [row for row in rows if kind_of(row["class_name"]) != "footwear"]
    others = random.Random("garment-feet").sample(others, len(feet))
    warm = [row for row in rows if row["class_name"] in WARM_WEATHER]
    rng = random.Random("garment-kind-choice")
    return [
        Task(
            "garment-feet",
            "ood/id",
            "text",
            [item(row, FEET, YES_NO, YES_NO[row in feet]) for row in [*feet, *others]],
        ),
        Task(
            "garment-kind",
            "ood/id",
            "text",
            [item(row, KIND, kinds, kind_of(row["class_name"])) for row in rows],
        ),
        Task(
            "garment-warm",
            "ood/id",
            "text",
            [item(row, WARM, YES_NO, WARM_WEATHER[row["class_name"]]) for row in warm],
        ),
        Task(
            "garment-kind-choice",
            "ood/id",
            "choice",
            [
                item(row, KIND, shuffled(kind_of(row["class_name"]), kinds, rng), kind)
                for row in rows
                for kind in [kind_of(row["class_name"])]
            ],
        ),
    ]


def other_tasks(data: Data) -> list[Task]:
    """Other questions on other pictures."""
    digits = [row for row in split(data.digits, "test") if row["source"] == "sklearn-digits"]
    parity, above = zip(*(digit_facts(row) for row in digits), strict=True)
    emoji = random.Random("emoji-group").sample(data.seen_emoji, 300)
    return [
        Task(
            "digit-open",
            "ood/ood",
            "text",
            [item(row, NAME, DIGITS, row["class_name"]) for row in digits],
        ),
        Task("digit-letter", "ood/ood", "letter", names("digit-letter", digits, DIGITS, LETTER)),
        Task(
            "digit-parity",
            "ood/ood",
            "text",
            [
                item(row, EVEN, ("even", "odd"), ask.answer)
                for row, ask in zip(digits, parity, strict=True)
            ],
        ),
        Task(
            "digit-compare",
            "ood/ood",
            "text",
            [item(row, ABOVE, YES_NO, ask.answer) for row, ask in zip(digits, above, strict=True)],
        ),
        Task(
            "emoji-group",
            "ood/ood",
            "text",
            [item(row, GROUP, data.groups, row["group"]) for row in emoji],
        ),
        Task("easy-vqa", "ood/ood", "text", shape_items(data)),
    ]


def shape_items(data: Data) -> list[Row]:
    """Some of easy-VQA's test questions, the options those that the question leaves open."""
    rows = split(data.shapes, "test")
    asked = [(row, ask) for row in rows for ask in shape_questions(row)]
    chosen = random.Random("easy-vqa").sample(asked, 500)
    sets: tuple[Sequence[str], ...] = (YES_NO, SHAPES, COLOURS)
    return [
        item(row, ask.question, next(s for s in sets if ask.answer in s), ask.answer)
        for row, ask in chosen
    ]


def digit_next_task(data: Data) -> Task:
    """The second task's test."""
    rng = random.Random("digit-next/test")
    digits = [row for row in split(data.digits, "test") if row["source"] == "sklearn-digits"]
    items = []
    for row in digits:
        if row["class_name"] != DIGITS[-1]:
            answer = DIGITS[DIGITS.index(row["class_name"]) + 1]
            items.append(item(row, NEXT, shuffled(answer, DIGITS, rng), answer))
    return Task("digit-next", "ood/ood", "choice", items, role="new")


if __name__ == "__main__":
    main()
