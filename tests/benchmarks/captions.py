"""Tokenise and score captions by CIDEr-D: ours against pycocoevalcap, the same texts, in one run.

pycocoevalcap's tokenizer needs Java; `--peer` is the folder of packages that holds it, where it is
not installed. Its scorer is pure Python and is timed alone as well.

    python tests/benchmarks/captions.py --images 40000 --references 5 --peer SITE_PACKAGES
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from mllmtool.metrics.caption_tokens import caption_tokens
from mllmtool.metrics.captions import cider_d

T = TypeVar("T")
WHO = [
    "a man",
    "two children",
    "the woman's dog",
    "an old man with a t-shirt",
    "a brown horse",
    "people",
]
DOES = [
    "is riding",
    "isn't holding",
    "looks at",
    "sits next to",
    "walks past",
    "plays with",
    "can't see",
]
WHAT = [
    "a red bike",
    "the street",
    "10% of a cake",
    "a kite, near the sea",
    "5 boats",
    "a mother-in-law",
]
WHERE = [
    "in the park",
    "on a sunny day",
    "at 3:00 p.m.",
    "by the lake",
    "in front of a house",
    "outside",
]


def caption(rng: random.Random, words: list[str]) -> str:
    """About eleven words, some of them rare."""
    rare = words[min(int(rng.paretovariate(0.6)), len(words) - 1)]
    parts = [rng.choice(part) for part in (WHO, DOES, WHAT, WHERE)]
    return f"{' '.join(parts)} {rare}.".capitalize()


def timed(label: str, function: Callable[[], T]) -> tuple[float, T]:
    """Wall seconds and what was made."""
    start, cpu = time.perf_counter(), time.process_time()
    made = function()
    seconds = time.perf_counter() - start
    sys.stdout.write(f"{label}: {seconds:.2f} s, {time.process_time() - cpu:.2f} s of CPU here\n")
    return seconds, made


def main() -> None:
    """Print seconds, ratios and the greatest difference."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=40000)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--peer", default="")
    arguments = parser.parse_args()
    if arguments.peer:
        sys.path.append(arguments.peer)
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(20000)]
    made = [caption(rng, words) for _ in range(arguments.images)]
    references = [
        [caption(rng, words) for _ in range(arguments.references)] for _ in range(arguments.images)
    ]
    ours, scores = timed("ours, tokens and CIDEr", lambda: cider_d(made, references))
    tokenizer = PTBTokenizer()
    gts = {n: [{"caption": text} for text in row] for n, row in enumerate(references)}
    res = {n: [{"caption": text}] for n, text in enumerate(made)}
    java, tokens = timed(
        "theirs, tokens by Java", lambda: (tokenizer.tokenize(gts), tokenizer.tokenize(res))
    )
    python, (_, theirs) = timed("theirs, CIDEr", lambda: Cider().compute_score(*tokens))
    alike = sum(
        " ".join(caption_tokens(text)) == tokens[0][n][place]
        for n, row in enumerate(references)
        for place, text in enumerate(row)
    )
    sys.stdout.write(
        f"theirs / ours: {(java + python) / ours:.1f} with Java's tokens,"
        f" {python / ours:.1f} without\n"
        f"greatest difference {np.abs(scores - theirs).max():.1e},"
        f" captions of the same tokens {alike} of {len(made) * arguments.references}\n"
    )


if __name__ == "__main__":
    main()
