"""Caption tokens and scores: golden values, laws, and pycocoevalcap where it is installed."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmtool.metrics.caption_tokens import caption_tokens
from mllmtool.metrics.captions import bleu, bleu_statistics, cider_d, rouge_l
from mllmtool.metrics.scores import METRICS, Answered

GOLDEN = json.loads((Path(__file__).parents[1] / "cases" / "metrics/golden.json").read_text())
ITEMS: list[dict[str, Any]] = GOLDEN["items"]
MADE = [item["candidate"] for item in ITEMS]
REFERENCES = [item["references"] for item in ITEMS]
WORDS = st.lists(st.sampled_from("a dog cat runs red".split(" ")), max_size=8).map(" ".join)  # noqa: SIM905
ROWS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=6)


def test_tokens_of_the_golden_file() -> None:
    for item in ITEMS:
        assert " ".join(caption_tokens(item["candidate"])) == item["cand_tokens"]
        tokens = [" ".join(caption_tokens(text)) for text in item["references"]]
        assert tokens == item["ref_tokens"]


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("He can’t — won't!", "he ca n't wo n't"),
        ("I'm gonna, cannot", "i 'm gon na can not"),
        ("A 7-inch [red] {old} box", "a 7-inch -lsb- red -rsb- -lcb- old -rcb- box"),
        ("at 3:00 p.m. on 5th Ave.", "at 3:00 p.m. on 5th ave."),
        ("the boys' $5.50, 10%...", "the boys $ 5.50 10 %"),
        ("one\u2028two\u0085three\r\nfour", "one two three four"),  # no caption's end
        ("rock 'n' roll", "rock 'n' roll"),
        ("", ""),
    ],
)
def test_tokens_by_hand(caption: str, tokens: str) -> None:
    assert " ".join(caption_tokens(caption)) == tokens


def test_scores_of_the_golden_file() -> None:
    cider, counts = cider_d(MADE, REFERENCES), bleu_statistics(MADE, REFERENCES)
    corpus = GOLDEN["corpus"]
    np.testing.assert_allclose(cider, [item["cider_d"] for item in ITEMS], rtol=0, atol=1e-9)
    assert cider.mean() == pytest.approx(corpus["cider_d"], abs=1e-9)
    for order in range(1, 5):
        each = [item["bleu"][order - 1] for item in ITEMS]
        np.testing.assert_allclose(bleu(counts, order), each, rtol=0, atol=1e-9)
        whole = float(bleu(counts.sum(0), order))
        assert whole == pytest.approx(corpus["bleu"][order - 1], abs=1e-9)
    rouge = [rouge_l(one, others) for one, others in zip(MADE, REFERENCES, strict=True)]
    assert rouge == pytest.approx([item["rouge_l"] for item in ITEMS], abs=1e-9)
    assert np.mean(rouge) == pytest.approx(corpus["rouge_l"], abs=1e-9)


def test_metrics_of_the_golden_file() -> None:
    rows = [
        Answered("open", (), -1, one, (), tuple(others))
        for one, others in zip(MADE, REFERENCES, strict=True)
    ]
    assert METRICS["cider"].of(rows) == pytest.approx(GOLDEN["corpus"]["cider_d"], abs=1e-9)
    assert METRICS["bleu_4"].of(rows) == pytest.approx(GOLDEN["corpus"]["bleu"][3], abs=1e-9)
    assert METRICS["rouge_l"].of(rows) == pytest.approx(GOLDEN["corpus"]["rouge_l"], abs=1e-9)


def test_cider_by_hand() -> None:
    """Two images; every n-gram is of one, so all idf are ln 2, and the same caption is perfect."""
    perfect = cider_d(["a b c d", "x"], [["a b c d"], ["e f g h"]])
    assert perfect == pytest.approx([10.0, 0.0])
    three = cider_d(["a b c", "x"], [["a b c"], ["e f g h"]])
    assert three == pytest.approx([7.5, 0.0])  # no 4-gram
    assert cider_d(["a b c d"], [["a b c d"]]) == pytest.approx([0.0])  # one image: idf 0


@settings(max_examples=40)
@given(ROWS, st.randoms())
def test_the_order_of_images_and_references_says_nothing(
    rows: list[tuple[str, list[str]]], rng: random.Random
) -> None:
    order = rng.sample(range(len(rows)), len(rows))
    shuffled = [(rows[n][0], rng.sample(rows[n][1], len(rows[n][1]))) for n in order]
    for scores in (cider_d, bleu_statistics):
        first = scores(*map(list, zip(*rows, strict=True)))
        second = scores(*map(list, zip(*shuffled, strict=True)))
        np.testing.assert_allclose(second, first[order], atol=1e-12)


@pytest.mark.skipif(not shutil.which("java"), reason="its tokenizer is Java")
def test_as_pycocoevalcap() -> None:
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    scorers = pytest.importorskip("pycocoevalcap.bleu.bleu")
    tokenizer = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()
    rng = random.Random(0)
    pool = [text for item in ITEMS for text in (*item["references"], item["candidate"])]
    words = " ".join(pool).split()
    made = [" ".join(rng.choices(words, k=rng.randrange(1, 12))) for _ in range(60)]
    others = [[" ".join(rng.choices(words, k=9)) for _ in range(3)] for _ in range(60)]
    gts = tokenizer.tokenize({n: [{"caption": t} for t in row] for n, row in enumerate(others)})
    res = tokenizer.tokenize({n: [{"caption": text}] for n, text in enumerate(made)})
    assert [" ".join(caption_tokens(text)) for text in made] == [row[0] for row in res.values()]
    np.testing.assert_allclose(
        cider_d(made, others), cider.Cider().compute_score(gts, res)[1], rtol=0, atol=1e-9
    )
    theirs = scorers.Bleu(4).compute_score(gts, res, verbose=0)[0]
    sums = bleu_statistics(made, others).sum(0)
    assert [float(bleu(sums, order)) for order in range(1, 5)] == pytest.approx(theirs, abs=1e-9)
