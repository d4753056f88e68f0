"""A third task for the demo's base, how many corners a shape has, and the suite of the sequence.

    python recipes/continual/tasks.py recipes/demo/data DATA OUT

DATA is what recipes/demo/samples.py made. Image paths are relative to it.

OUT/shape-corners.jsonl  training samples: the answer is one of four words for digits
OUT/suite.yaml           the three new tasks, and some of what the base can do, one of each kind
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))
sys.path.insert(0, str(Path(__file__).parents[1] / "hybrid"))
from prepare import task, write_yaml
from samples import SHAPES, Data, Row, by_text, item, shuffled, split, write_samples

CORNERS = "How many corners does it have?"
COUNTS = dict(zip(SHAPES, ("zero", "four", "three"), strict=True))
POOL = (*COUNTS.values(), "five")
TASK = "shape-corners"
NEW = ("garment-name", "digit-next")
OLD = ("digit-name", "emoji-seen", "garment-kind", "digit-parity", "easy-vqa")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parquet", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    shapes = [row for row in Data(arguments.parquet).shapes if named(row)]
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    rng = random.Random(TASK)
    asked = [by_text(row["id"], CORNERS, corners(row), POOL, rng) for row in split(shapes, "train")]
    write_samples(arguments.out / f"{TASK}.jsonl", asked)
    write_items(split(shapes, "test"), arguments.out / f"{TASK}-test.jsonl")
    write_suite(arguments.data, arguments.out)


def named(row: Row) -> str | None:
    """The shape, where one of easy-VQA's own answers about the picture names it."""
    return next((answer for answer in row["answers"] if answer in SHAPES), None)


def corners(row: Row) -> str:
    """The number of corners."""
    return COUNTS[named(row) or ""]


def write_items(rows: Sequence[Row], path: Path) -> None:
    """Write the task's test."""
    rng = random.Random(path.stem)
    with path.open("w", encoding="utf-8") as file:
        for index, row in enumerate(rows):
            right = corners(row)
            found = item(row, CORNERS, shuffled(right, POOL, rng), right)
            file.write(json.dumps({"id": f"{TASK}-{index:04d}", **found}) + "\n")


def write_suite(data: Path, out: Path) -> None:
    """Write the third task and, last and whole, the suite."""
    base = os.path.relpath(data, out)
    told = task(TASK, f"{TASK}-test.jsonl", "new", {"text": "ood", "image": "ood"})
    write_yaml(out / f"{TASK}.yaml", {**told, "image_root": f"{base}/images"})
    suite = yaml.safe_load((data / "suite.yaml").read_text(encoding="utf-8"))
    there = [f"{base}/tasks/{name}.yaml" for name in (*NEW, *OLD)]
    write_yaml(out / "suite.yaml", {**suite, "tasks": [*there, f"{TASK}.yaml"]})


if __name__ == "__main__":
    main()
