"""How fast `mix-data` is, beside `datasets` doing the same. Not part of the suite.

    OMP_NUM_THREADS=1 python tests/benchmarks/mix_data.py [--scale 0.1]

Two files are made in a temporary folder, of the sizes of LLaVA-1.5's mixture (665,000 rows, a JSON
array, as on the hub) and of ImageNet-VQA (1,280,000 rows, JSON lines), times the scale; a thousand
small image files stand for all images. They are mixed half and half. `interleave_datasets` stops
when it has gone through one of the two, and `mix-data` is asked for as many rows. A row: wall and
CPU seconds, rows written a CPU second, and peaks of memory in MB, all processes of the run
together: what is resident, and what is anonymous, that is, not pages of files. Workers are children
of a server, so their CPU seconds are what they had used when last seen. `datasets` is for
development only: pip install -c recipes/constraints.txt datasets
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LLAVA, IMAGENET, IMAGES = 665_000, 1_280_000, 1000
WORDS = "a the cat dog person street holding red what is in this image".split()  # noqa: SIM905
DATASETS = """
import sys
from datasets import interleave_datasets, load_dataset
folder = sys.argv[1]
read = lambda name: load_dataset("json", data_files=f"{folder}/{name}", split="train",
                                 cache_dir=f"{folder}/cache")
both = [read("llava.json"), read("imagenet.jsonl")]
mixed = interleave_datasets(both, probabilities=[0.5, 0.5], seed=0)
mixed.to_json(f"{folder}/interleaved.jsonl")
"""


def main() -> None:
    """Build, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0)
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, scale)
        sizes = [f"{file.stat().st_size / 1e6:.0f} MB" for file in sorted(folder.glob("*.json*"))]
        sys.stdout.write(f"{' and '.join(sizes)}, load {os.getloadavg()[0]:.1f}\n\n")
        sys.stdout.write(f"{'':20} {'rows':>9} {'wall s':>7} {'CPU s':>7} {'rows/CPU s':>10} "
                         f"{'MB':>6} MB anon\n")  # fmt: skip
        row("datasets", [sys.executable, "-c", DATASETS, name], folder / "interleaved.jsonl")
        total = count(folder / "interleaved.jsonl")
        for workers in (1, 2):
            argv = mix(folder, total, workers)
            row(f"mix-data, {workers} worker(s)", argv, folder / f"mix{workers}/samples.jsonl")


def build(folder: Path, scale: float) -> None:
    """Rows of one to four turns of words drawn at random, and questions with four options."""
    rng = random.Random(0)
    (folder / "images").mkdir()
    for number in range(IMAGES):
        (folder / f"images/{number}.jpg").write_bytes(b"\xff\xd8\xff")
    with (folder / "llava.json").open("w") as out:
        for number in range(int(LLAVA * scale)):
            turns = []
            for turn in range(rng.randint(1, 4)):
                asked = ("" if turn else "<image>\n") + words(rng, 10)
                turns.append({"from": "human", "value": asked})
                turns.append({"from": "gpt", "value": words(rng, 25)})
            image = f"images/{rng.randrange(IMAGES)}.jpg"
            values = {"id": f"{number:012d}", "image": image, "conversations": turns}
            out.write(("[" if not number else ", ") + json.dumps(values))
        out.write("]")
    with (folder / "imagenet.jsonl").open("w") as out:
        for number in range(int(IMAGENET * scale)):
            options = "\n".join(f"{letter}. {words(rng, 2)}" for letter in "ABCD")
            asked = f"<image>\nWhat is the class of this image?\n{options}"
            turns = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": rng.choice("ABCD")},
            ]
            image = f"images/{rng.randrange(IMAGES)}.jpg"
            values = {"id": f"train-{number}", "images": [image], "messages": turns}
            out.write(json.dumps(values) + "\n")


def words(rng: random.Random, number: int) -> str:
    """A text."""
    return " ".join(rng.choices(WORDS, k=number))


def mix(folder: Path, total: int, workers: int) -> list[str]:
    """The command line."""
    return [
        *(sys.executable, "-m", "mllmtool", "mix-data", "--workers", str(workers), "--quiet"),
        *("--source", f"llava={folder}/llava.json:0.5", "--max-repeat", "2"),
        *("--source", f"imagenet={folder}/imagenet.jsonl:0.5", "--total", str(total)),
        *("--out", f"{folder}/mix{workers}"),
    ]


def row(name: str, argv: Sequence[str], made: Path) -> None:
    """Run and print."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peaks, used = [0.0, 0.0], dict[int, float]()
    while process.poll() is None:
        peaks = list(map(max, peaks, memory(process.pid)))
        used |= cpu_seconds(process.pid)
        time.sleep(0.02)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        text = process.stderr.read().decode() if process.stderr else ""
        raise SystemExit(f"{name}: exit status {process.returncode}: {text}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cpu = max(cpu, sum(used.values()))
    rows = count(made)
    sys.stdout.write(
        f"{name:20} {rows:9} {wall:7.1f} {cpu:7.1f} {rows / cpu:10.0f} {peaks[0]:6.0f}"
        f" {peaks[1]:7.0f}\n"
    )
    sys.stdout.flush()


def count(path: Path) -> int:
    """Lines."""
    with path.open("rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))


def memory(process: int) -> tuple[float, float]:
    """Megabytes, resident and anonymous, of a live process and of those that it started."""
    total = [0.0, 0.0]
    for number in [process, *children(process)]:
        try:
            status = Path(f"/proc/{number}/status").read_text()
        except OSError:
            continue
        for at, key in enumerate(("VmRSS", "RssAnon")):
            line = next((line for line in status.splitlines() if line.startswith(key)), None)
            total[at] += int(line.split()[1]) / 1000 if line else 0
    return total[0], total[1]


def cpu_seconds(process: int) -> dict[int, float]:
    """Used so far by a live process and by each of those that it started."""
    found = {}
    for number in [process, *children(process)]:
        try:
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def children(process: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    try:
        found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [each for number in map(int, found) for each in (number, *children(number))]


if __name__ == "__main__":
    main()
