"""What responses choose. Every metric has cases, worked by hand: response in, score out."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmtool.metrics.choices import (
    LETTERS,
    RULES,
    Choice,
    exact_choice,
    lenient_choice,
    normal,
    paper_correct,
)
from mllmtool.metrics.scores import METRICS, Answered, agreement, letter_bias, letter_histogram

CASES = Path(__file__).parents[1] / "cases" / "metrics"
BY_CHOICE = ("mcq_lenient", "mcq_paper", "text_exact", "likelihood", "format_fail")
OPTIONS = ("coat", "sneaker", "black cat", "cat")


def answered(case: dict[str, Any]) -> Answered:
    return Answered(
        form=case["form"],
        options=tuple(case["options"]),
        answer=case["answer"],
        response=case["response"],
        logprobs=tuple(case.get("logprobs", [0.0] * len(case["options"]))),
    )


@pytest.mark.parametrize("name", BY_CHOICE)
def test_cases(name: str) -> None:
    cases = json.loads((CASES / f"{name}.json").read_text())
    wrong = [case for case in cases if METRICS[name].of([answered(case)]) != case["expected"]]  # type: ignore[index]
    assert len(cases) >= 5
    assert wrong == []


@pytest.mark.parametrize("name", ["mcq_lenient", "text_exact"])
def test_choices(name: str) -> None:
    cases = json.loads((CASES / f"{name}.json").read_text())
    assert [answered(case).chosen.index for case in cases] == [case["chosen"] for case in cases]


@pytest.mark.parametrize(
    ("response", "choice"),
    [
        ("The answer is B", Choice(1, "declared")),
        ("B. sneaker", Choice(1, "leading")),
        ("It must be (C) here", Choice(2, "bracketed")),
        ("It must be C here", Choice(2, "alone")),
        ("a black cat", Choice(2, "option_text")),
        ("nothing", Choice(None, None)),
    ],
)
def test_the_rule_is_named(response: str, choice: Choice) -> None:
    assert lenient_choice(response, OPTIONS) == choice


@given(st.integers(0, 3), st.sampled_from(["{}", "({})", "{}.", "{})", " {}\n", "Answer: {}"]))
def test_a_bare_letter_is_always_read(index: int, form: str) -> None:
    assert lenient_choice(form.format(LETTERS[index]), OPTIONS).index == index


@given(st.text(alphabet="efghjklmnopqrstuvwxyz .,!?", max_size=60))
def test_nothing_is_guessed(response: str) -> None:
    """Without one of the letters a to d there is neither a letter nor an option's text."""
    assert lenient_choice(response, OPTIONS) == Choice(None, None)
    assert exact_choice(response, OPTIONS) == Choice(None, None)


@given(st.text(max_size=40), st.lists(st.text(min_size=1), min_size=2, max_size=26))
def test_any_text_is_read_or_not(response: str, options: list[str]) -> None:
    choice = lenient_choice(response, options)
    assert choice.index is None or 0 <= choice.index < len(options)
    assert (choice.rule in RULES) == (choice.index is not None)


@given(st.text(alphabet="aAbB.: \n", max_size=8))
def test_paper_matcher_as_transcribed(response: str) -> None:
    stripped = response.strip()
    if ":" in stripped:
        stripped = stripped.split(":")[-1].strip()
    theirs = re.match(r"(B$|B\.)", stripped.upper()) is not None
    assert paper_correct(response, "B") == theirs


@given(st.text(max_size=30))
def test_normal_is_idempotent_but_for_final_periods(text: str) -> None:
    once = normal(text)
    assert normal(once).rstrip(". ") == once.rstrip(". ")
    assert normal(f"  {text.upper()} ") == normal(text.upper())


@pytest.mark.parametrize(
    ("response", "index"),
    [
        ("e-mail", None),
        ("E-mail", None),
        ("It is an E-mail", None),
        ("the C-clamp", None),
        ("vitamin-C", None),
        ("B-", 1),
        ("B - sneaker", 1),
        ("B-sneaker", 1),
    ],
)
def test_a_letter_joined_to_a_word_is_none(response: str, index: int | None) -> None:
    assert lenient_choice(response, (*OPTIONS, "scarf")).index == index


def test_letter_bias_by_hand() -> None:
    # right 2 A, 2 B; read 4 A: chi-squared (4 - 2)^2 / 2 + (0 - 2)^2 / 2 = 4 of 1 degree
    rows = [Answered("letter", OPTIONS, n % 2, "A", ()) for n in range(4)]
    assert letter_bias(rows) == pytest.approx(0.04550026)
    assert letter_bias(rows[:1]) is None
    assert letter_bias([Answered("letter", OPTIONS, n % 2, "", ()) for n in range(4)]) is None


def test_agreement_and_letters_by_hand() -> None:
    rows = [
        Answered("letter", OPTIONS, 0, "A", (-1.0, -2.0, -3.0, -4.0)),  # A, A
        Answered("letter", OPTIONS, 0, "B", (-1.0, -2.0, -3.0, -4.0)),  # B, A
        Answered("letter", OPTIONS, 0, "??", (-1.0, -2.0, -3.0, -4.0)),  # none, A
        Answered("letter", OPTIONS[:2], 1, "B", (-2.0, -1.0)),  # B, B
    ]
    assert agreement(rows) == 0.5
    assert letter_histogram(rows) == {"A": 1, "B": 2, "C": 0, "D": 0, "null": 1}
