"""Small suites for the tiny models: all four quadrants, shared pictures, long options."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import factories
import yaml

COLOURS = ("red", "green", "blue", "dark red", "light green")
WORDS = ("zero", "one", "two", "three", "four", "five", "six")


def colour_suite(folder: Path, number: int = 8) -> Path:
    """Four tasks of `number` items; three ask about the same kind of pictures, one about none."""
    factories.colour_samples(folder, 2 * number)
    names = list(factories.COLOURS)
    seen = [(f"{n}.png", names[n % len(names)]) for n in range(number)]
    unseen = [(f"{n}.png", names[n % len(names)]) for n in range(number, 2 * number)]
    asked = "What colour is the picture?"
    write_task(folder, "colour-letter", letter_items(seen, asked), "id", "id", role="new")
    write_task(folder, "other-letter", letter_items(unseen, asked), "id", "ood")
    opened = [item(picture, "Name a colour.", COLOURS, name) for picture, name in seen]
    write_task(folder, "colour-open", opened, "ood", "id", answer="text")
    write_task(folder, "sums", sums(number), "ood", "ood", answer="text")
    return write_suite(folder, ["colour-letter", "other-letter", "colour-open", "sums"])


def text_suite(folder: Path, number: int = 8) -> Path:
    """Two tasks without pictures, one by letter."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [{**row, "question": f"{row['question']} Say the letter."} for row in sums(number)]
    write_task(folder, "sums-letter", letters, "id", "id", role="new")
    write_task(folder, "sums", sums(number), "ood", "id", answer="text")
    return write_suite(folder, ["sums-letter", "sums"])


def letter_items(rows: Sequence[tuple[str, str]], question: str) -> list[dict[str, Any]]:
    """Items with their options in a random order."""
    rng = random.Random(question)
    return [
        item(picture, question, rng.sample(COLOURS, len(COLOURS)), name) for picture, name in rows
    ]


def sums(number: int) -> list[dict[str, Any]]:
    """Items without a picture."""
    pairs = [(n % 3, n // 3 % 4) for n in range(number)]
    options = (*WORDS, "twenty one")
    return [
        item(None, f"What is {WORDS[a]} plus {WORDS[b]}?", options, WORDS[a + b]) for a, b in pairs
    ]


def item(picture: str | None, question: str, options: Sequence[str], answer: str) -> dict[str, Any]:
    """An item without its id."""
    return {
        "images": [picture] if picture else [],
        "question": question,
        "options": list(options),
        "answer": list(options).index(answer),
    }


def write_task(
    folder: Path, name: str, items: Sequence[dict[str, Any]], text: str, image: str, **keys: Any
) -> Path:
    """Write `tasks/NAME.yaml` and its items; `keys` are put over the usual ones."""
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    rows = [{"id": f"{name}-{n}", **values} for n, values in enumerate(items)]
    factories.write_rows(tasks / f"{name}.jsonl", rows)
    described = {
        "schema": "mllmtool.task/1",
        "name": name,
        "items": f"{name}.jsonl",
        "image_root": "../images",
        "quadrant": {"text": text, "image": image},
        "role": "original",
        "type": "mcq",
        "answer": "letter",
        "max_new_tokens": 4,
        **keys,
    }
    path = tasks / f"{name}.yaml"
    path.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    return path


def write_suite(folder: Path, names: Sequence[str], **keys: Any) -> Path:
    """Write `suite.yaml`."""
    tasks = [f"tasks/{name}.yaml" for name in names]
    suite = {"schema": "mllmtool.suite/1", "tasks": tasks, **keys}
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite, sort_keys=False), encoding="utf-8")
    return path


def change(path: Path, **keys: Any) -> Path:
    """Change keys of a YAML file; None takes one away."""
    values = {**yaml.safe_load(path.read_text(encoding="utf-8")), **keys}
    kept = {key: value for key, value in values.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return path


def change_line(path: Path, line: int, **keys: Any) -> Path:
    """Change keys of the object on a line, counted from 1."""
    rows = path.read_text(encoding="utf-8").splitlines()
    rows[line - 1] = json.dumps({**json.loads(rows[line - 1]), **keys})
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
