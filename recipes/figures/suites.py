"""The demo's suite with the class-name distractor test.

    python recipes/figures/suites.py DATA OUT

DATA is what recipes/demo/samples.py made, OUT/distracted what build-vqa made of its question about
a garment's kind, with the garment's name in the place of a wrong option.

OUT/suite.yaml       every task of DATA, and the test, held out of the quadrants' means
OUT/distractor.yaml  the question as it was, and the test
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "hybrid"))
from prepare import task, write_yaml

PLAIN, DISTRACTED = "garment-kind-choice", "distracted"


def main() -> None:
    """Write the suites and the test's task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    base = os.path.relpath(arguments.data, arguments.out)
    suite = yaml.safe_load((arguments.data / "suite.yaml").read_text(encoding="utf-8"))
    told = task(DISTRACTED, "distracted/items.jsonl", "heldout", {"text": "ood", "image": "id"})
    write_yaml(arguments.out / f"{DISTRACTED}.yaml", {**told, "image_root": f"{base}/images"})
    tasks = [f"{base}/{name}" for name in suite["tasks"]]
    plain = [name for name in tasks if Path(name).stem == PLAIN]
    for name, chosen in (("distractor", plain), ("suite", tasks)):
        values = {**suite, "tasks": [*chosen, f"{DISTRACTED}.yaml"]}
        write_yaml(arguments.out / f"{name}.yaml", values)


if __name__ == "__main__":
    main()
