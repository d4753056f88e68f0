"""Auxiliary training sets for the demo, which differ from its task in one thing or another.

    python recipes/figures/auxiliary.py recipes/demo/data OUT

OUT/same-text.jsonl  other images, the task's own question: arXiv 2603.14493 takes Flowers102-VQA
OUT/one-task.jsonl   other images and other questions, of one kind: the paper takes OCR-VQA
OUT/fake.jsonl       the task's images, and a question that needs none: the word to find is given,
                     as the control in the authors' repository gives the letter to answer

What is other in everything and of many kinds is the demo's general.jsonl. Image paths are relative
to the folder of recipes/demo/samples.py.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))
from samples import DIGITS, Ask, Data, Draw, draw_lookup, general_sources, split, write_samples

COUNT = 5000


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    data = Data(arguments.data)
    sources = general_sources(data)
    drawn = {
        "same-text": [sources["digit-choice"], sources["emoji-choice"]],
        "one-task": [sources["shapes"]],
        "fake": [fake(data)],
    }
    partial = arguments.out.with_name(f".{arguments.out.name}")
    for folder in (partial, arguments.out):
        shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, draws in drawn.items():
        rng = random.Random(name)
        asked = [draws[index % len(draws)](rng) for index in range(COUNT)]
        write_samples(partial / f"{name}.jsonl", asked)
    partial.rename(arguments.out)  # whole: a target of make


def fake(data: Data) -> Draw:
    """A garment's picture, and a word to find among options."""
    garments = split(data.garments, "train")
    lookup = draw_lookup("Find: ", DIGITS)

    def ask(rng: random.Random) -> Ask:
        image = rng.choice(garments)["id"]
        return lookup(rng)._replace(image=image)

    return ask


if __name__ == "__main__":
    main()
