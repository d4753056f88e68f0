"""Scores of open answers and of the class's name: every metric has cases, worked by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmtool.data.task_types import CHOICES, NO_PRIMARY, OPEN, MetricName, allowed_metrics
from mllmtool.metrics.edits import common_subsequence, levenshtein
from mllmtool.metrics.scores import METRICS, Answered
from mllmtool.metrics.vqa import normalised, normalised_m4c, official_accuracy, vqa_accuracy

GOLDEN = json.loads((Path(__file__).parents[1] / "cases" / "metrics/golden.json").read_text())
BY_CHOICE = {"mcq_lenient", "mcq_paper", "text_exact", "likelihood", "format_fail"}
CAPTIONS = {"cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"}  # in test_captions
CASES: dict[MetricName, list[tuple[str, list[str], float]]] = {
    "vqa_norm": [
        ("Two", ["2"] * 10, 1.0),
        ("red", ["red"] * 2 + ["blue"] * 8, 0.6),
        ("the", ["a"] * 10, 1.0),  # articles vanish
        ("", ["a"] * 10, 0.0),  # but not what is blank
        ("dog.", ["A dog"], 1.0),  # one reference must be matched
        ("dont", ["don't"] * 3 + ["x"] * 7, 0.9),
    ],
    "vqa_official": [("Yes", ["yes"] * 10, 0.0), ("Yes", ["yes"] * 9 + ["no"], 1.0)],
    "textvqa_m4c": [("john 's", ["john's"] * 10, 1.0), ("a,b?", ["ab"] * 10, 1.0)],
    "vqa_simple": [("red", ["red"] * 3 + ["blue"] * 7, 1.0), ("red", ["red", "blue"], 1 / 3)],
    "em": [("  A  cat. ", ["a cat"], 1.0), ("cat", ["a cat"], 0.0), ("", ["."], 0.0)],
    "em_norm": [("the cat", ["a cat", "dog"], 1.0), ("two", ["2"], 1.0), ("three", ["2"], 0.0)],
    "contains": [
        ("so", ["."], 0.0),
        ("It is a cat, I think", ["cat"], 1.0),
        ("concatenate", ["cat"], 0.0),
        ("", ["cat"], 0.0),
        ("peacock", ["cock"], 0.0),
        ("c++ code", ["C++"], 1.0),
    ],
    "relaxed": [
        ("10.4", ["10"], 1.0),
        ("10.6", ["10"], 0.0),
        ("2010", ["2011"], 1.0),  # as the benchmark has it
        ("50%", ["0.5"], 1.0),
        ("50%", ["50"], 0.0),
        ("0.0", ["0"], 0.0),
        ("1,000", ["1000"], 0.0),
        ("nan", ["nan"], 1.0),
        ("Yes", ["yes"], 1.0),
    ],
    "relaxed_clean": [("$1,000", ["1010"], 1.0), ("1,0", ["10"], 0.0), ("5 €", ["5"], 1.0)],
    "relaxed_years": [("2010", ["2011"], 0.0), ("2011", ["2011"], 1.0), ("104", ["100"], 1.0)],
    "anls": [
        ("Hello  World", ["hello world"], 1.0),
        ("helo", ["hello"], 0.8),
        ("ab", ["cb"], 0.5),  # just one half counts
        ("abc", ["xyc"], 0.0),
        ("x", ["abc", "xy"], 0.5),
    ],
    "ocr_contains": [("THE\nSHOP", ["the shop"], 1.0), ("ＡＢ", ["ab"], 1.0), ("", ["ab"], 0.0)],
    "cer": [("abcd", ["abxd"], 0.25), ("abc", ["xyz", "abcdef"], 0.5)],
    "wer": [("the cat sat", ["a cat sat down"], 0.5)],
    "domain_rs": [
        ("Unanswerable", ["able"], 0.0),
        ("there is a Forest.", ["forest"], 1.0),
        ("deforestation here", ["forest"], 0.0),
        ("forests", ["forest"], 1.0),  # one word: plain containment
        ("in a dense forest", ["dense forest"], 1.0),
        ("", ["forest"], 0.0),
    ],
    "domain_ad": [("Turn left, now", ["left"], 1.0)],
    "domain_med": [("Acute lymphoma", ["lymphoma"], 1.0), ("", ["lymphoma"], 0.0)],
    "domain_sci": [("B", ["b"], 1.0), ("b.", ["B"], 0.0), ("the moon", ["moon"], 1.0)],
    "domain_fin": [("U. S.A", ["usa"], 1.0), (".", ["a"], 0.0), ("up", ["down"], 0.0)],
}


def said(response: str, references: list[str], question: str = "") -> Answered:
    return Answered("open", (), -1, response, (), tuple(references), question)


@pytest.mark.parametrize("name", CASES)
def test_cases(name: MetricName) -> None:
    for response, references, expected in CASES[name]:
        value = METRICS[name].of([said(response, references)])
        assert value == pytest.approx(expected), (response, references)


def test_every_metric_has_cases_and_a_type() -> None:
    others = {"mischoice", "mischoice_of_wrong", "likelihood_byte"}
    assert set(METRICS) == set(CASES) | BY_CHOICE | CAPTIONS | others
    named = [name for names in (*CHOICES.values(), *OPEN.values()) for name in names]
    named += [name for kind in OPEN for name in allowed_metrics(kind, None)]
    assert set(named) == set(METRICS)
    for names in (*CHOICES.values(), *OPEN.values()):
        assert names[0] not in NO_PRIMARY
        assert METRICS[names[0]].is_mean


@pytest.mark.parametrize("case", GOLDEN["vqa"])
def test_vqa_of_the_golden_file(case: dict[str, Any]) -> None:
    prediction, answers = case["prediction"], case["answers"]
    found = (
        official_accuracy(prediction, answers),
        vqa_accuracy(prediction, answers, normalised),
        vqa_accuracy(prediction, answers, normalised_m4c),
    )
    theirs = (case["official_vqa"], case["vqa_always_norm"], case["textvqa_m4c"])
    assert found == pytest.approx(theirs, abs=1e-9)


@given(st.lists(st.sampled_from(["red", "blue"]), min_size=2, max_size=12))
def test_vqa_accuracy_as_leaving_each_reference_out(answers: list[str]) -> None:
    each = [
        min(1.0, (answers[:place] + answers[place + 1 :]).count("red") / 3)
        for place in range(len(answers))
    ]
    found = vqa_accuracy("red", answers, normalised)
    assert found == pytest.approx(sum(each) / len(each))


@given(st.text("abc", max_size=9), st.text("abcd", max_size=9))
def test_edits_as_by_the_table(first: str, second: str) -> None:
    edits, common = list(range(len(second) + 1)), [0] * (len(second) + 1)
    for place, symbol in enumerate(first, start=1):
        edits_next, common_next = [place], [0]
        for column, other in enumerate(second, start=1):
            change = edits[column - 1] + (symbol != other)
            edits_next.append(min(edits[column] + 1, edits_next[-1] + 1, change))
            longer = common[column - 1] + 1 if symbol == other else 0
            common_next.append(max(longer, common[column], common_next[-1]))
        edits, common = edits_next, common_next
    assert levenshtein(first, second) == edits[-1]
    assert common_subsequence(first, second) == common[-1]


def test_states_are_counted_by_share() -> None:
    asked = said("Ohio, Utah", ["Ohio, Iowa, Utah, Maine"], "Which states are red?")
    assert METRICS["domain_sci"].of([asked]) == 0.5


def test_errors_are_of_all_characters_together() -> None:
    assert METRICS["cer"].of([said("ab", ["ax"]), said("abcdef", ["abcdef"])]) == 1 / 8


def test_the_class_chosen_by_hand() -> None:
    options = ("boat", "coat", "cat")
    rows = [
        Answered("letter", options, 0, "B", (), distractor=1),  # the class
        Answered("letter", options, 0, "C", (), distractor=1),  # wrong otherwise
        Answered("letter", options, 0, "A", (), distractor=1),  # right
        Answered("letter", options, 0, "B", ()),  # no class among the options
    ]
    assert METRICS["mischoice"].of(rows) == pytest.approx(1 / 3)
    assert METRICS["mischoice_of_wrong"].of(rows) == 0.5
    assert METRICS["mischoice"].of(rows[3:]) is None


def test_likelihood_by_byte_by_hand() -> None:
    row = Answered("text", ("cat", "a black cat"), 1, "", (-3.0, -4.0))
    assert METRICS["likelihood"].of([row]) == 0.0
    assert METRICS["likelihood_byte"].of([row]) == 1.0  # -4 / 11 against -3 / 3


def test_nothing_said_scores_nothing_anywhere() -> None:
    blank = said(" ", ["the", "a dog", "."])
    for name in CASES:
        expected = 1.0 if name in {"cer", "wer"} else 0.0
        assert METRICS[name].of([blank]) == expected, name
    assert METRICS["format_fail"].of([blank]) == 1.0
