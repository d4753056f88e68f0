"""The demo's garments as labelled images, and a suite that asks about them.

    python recipes/hybrid/prepare.py GARMENTS.parquet DATA OUT

DATA is what recipes/demo/samples.py made: its pictures, and its suite of what the base can do.

OUT/train.csv, test.csv   id, image and class of every garment; images are in DATA/images
OUT/suite.yaml            DATA's suite, with the two tasks below in place of its garment-name
OUT/garment-name.yaml     the new task, on the items that build-vqa makes of test.csv
OUT/distracted.yaml       a question about garments, with the garment's name among its options
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

SPLITS = ("train", "test")
NEW = "garment-name"


def main() -> None:
    """Write the whole folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("garments", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        write_labels(arguments.garments, split, arguments.out / f"{split}.csv")
    write_suite(arguments.data, arguments.out)


def write_labels(garments: Path, split: str, path: Path) -> None:
    """Write the labels of one split."""
    table = pq.read_table(garments, columns=["id", "class_name", "split"]).to_pylist()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "class_name"])
        for row in table:
            if row["split"] == split:
                writer.writerow([row["id"], f"{row['id']}.png", row["class_name"]])


def write_suite(data: Path, out: Path) -> None:
    """Write the suite and its two tasks; the others stay where they are."""
    suite = yaml.safe_load((data / "suite.yaml").read_text(encoding="utf-8"))
    base = os.path.relpath(data, out)
    kept = [f"{base}/{task}" for task in suite["tasks"] if Path(task).stem != NEW]
    write_yaml(
        out / f"{NEW}.yaml",
        task(NEW, "test/items.jsonl", "new", {"text": "id", "image": "id"}),
    )
    distracted = task(
        "distracted", "distracted/items.jsonl", "original", {"text": "ood", "image": "id"}
    )
    write_yaml(out / "distracted.yaml", {**distracted, "image_root": f"{base}/images"})
    write_yaml(out / "suite.yaml", {**suite, "tasks": [f"{NEW}.yaml", "distracted.yaml", *kept]})


def task(name: str, items: str, role: str, quadrant: dict[str, str]) -> dict[str, Any]:
    """A multiple choice whose options are shown and whose answer is an option's text."""
    return {
        "schema": "mllmtool.task/1",
        "name": name,
        "items": items,
        "quadrant": quadrant,
        "role": role,
        "type": "mcq",
        "answer": "text",
        "prompt": "{question}\n{options}",
        "max_new_tokens": 4,
    }


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write a mapping, its keys in their order, whole: it may be a target of make."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    partial.rename(path)


if __name__ == "__main__":
    main()
