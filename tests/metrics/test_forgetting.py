"""Forgetting, worked by hand and against the reference file."""

import json
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmtool.metrics.forgetting import (
    above_chance,
    dominated,
    h_score,
    h_score_ratio,
    retention,
    transitions,
    without_chance,
)

REFERENCE = json.loads((Path(__file__).parents[1] / "cases" / "metrics/reference.json").read_text())
SCORES = st.lists(st.floats(0.01, 1), min_size=1, max_size=6)


def test_h_score_of_the_reference_file() -> None:
    case = REFERENCE["h_score"]
    assert h_score(case["orig"], case["target"]) == pytest.approx(case["h"], abs=1e-9)


def test_h_score_by_hand() -> None:
    # means 0.4 and 0.8: 2 * 0.4 * 0.8 / 1.2
    assert h_score([0.3, 0.5], [0.8]) == pytest.approx(0.64 / 1.2)
    assert h_score([0.0], [0.0]) == 0.0
    assert h_score([], [0.5]) is None


def test_retention_by_hand() -> None:
    # 0.4 / 0.8 and 0.3 / 0.2; the task that was at 0 has no ratio
    assert retention([0.8, 0.2, 0.0], [0.4, 0.3, 0.1]) == pytest.approx(1.0)
    assert retention([0.0], [0.5]) is None


@given(SCORES)
def test_nothing_forgotten(scores: list[float]) -> None:
    assert retention(scores, scores) == pytest.approx(1)
    assert h_score(scores, scores) == pytest.approx(fmean(scores))


@given(SCORES, SCORES)
def test_h_score_lies_between(original: list[float], new: list[float]) -> None:
    h = h_score(original, new)
    assert h is not None
    assert min(fmean(original), fmean(new)) <= h + 1e-12
    assert h <= (fmean(original) + fmean(new)) / 2 + 1e-12


def test_transitions_by_hand() -> None:
    assert transitions([1, 1, 0, 0, 1], [1, 0, 1, 0, 0]) == (2, 1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_transitions_make_the_delta(pairs: list[tuple[bool, bool]]) -> None:
    before, after = zip(*pairs, strict=True)
    changed = transitions(before, after)
    assert changed.gained - changed.lost == sum(after) - sum(before)
    assert transitions(after, before) == (changed.gained, changed.lost)


def test_dominated_by_hand() -> None:
    points = {"a": (0.5, -0.1), "b": (0.4, -0.2), "c": (0.6, -0.3), "d": (0.5, -0.1)}
    assert dominated(points) == {"a": None, "b": "a", "c": None, "d": None}


def test_h_score_of_ratios_by_hand() -> None:
    # kept 0.4 / 0.8, learnt 0.6 / 0.6: 2 * 0.5 * 1 / 1.5
    assert h_score_ratio([0.4], [0.8], [0.6], [0.6]) == pytest.approx(2 / 3)
    assert h_score_ratio([], [], [0.6], [0.6]) is None
    assert h_score_ratio([0.4], [0.0], [0.6], [0.6]) is None


def test_above_chance_by_hand() -> None:
    assert above_chance(0.25, 0.25) == 0.0
    assert above_chance(0.625, 0.25) == 0.5


def test_what_guessing_explains_is_taken_off_by_hand() -> None:
    # four options, ten items: 4 lost, 1 gained, 2 wrong twice
    before = [1, 1, 1, 1, 0, 0, 0, 1, 1, 1]
    after = [0, 0, 0, 0, 1, 0, 0, 1, 1, 1]
    twice = 0.25 * 2 / 0.75**2
    found = without_chance(before, after, [0.25] * 10)
    assert found.forgotten == pytest.approx((4 / 0.75 - twice) / 10)
    assert found.learned == pytest.approx((1 / 0.75 - twice) / 10)
    assert without_chance([0] * 4, [0] * 4, [0.25] * 4) == (0.0, 0.0)
    assert without_chance([1, 0], [0, 0], [0.0, 0.0]) == (0.5, 0.0)  # nothing is guessed


def test_what_guessing_explains_is_unbiased() -> None:
    """30 % known twice, 30 % forgotten, 10 % learnt, 30 % never known; guessed anew each time."""
    rng, total = np.random.default_rng(1), 40000
    state = rng.choice(4, p=[0.3, 0.3, 0.1, 0.3], size=total)
    guesses = rng.random((2, total)) < 0.25
    before = (state <= 1) | guesses[0]
    after = (state == 0) | (state == 2) | guesses[1]
    found = without_chance(before.astype(float), after.astype(float), [0.25] * total)
    assert found == pytest.approx((0.3, 0.1), abs=0.01)
