"""Forgetting, worked by hand and against the reference file."""

import json
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmtool.metrics.forgetting import dominated, h_score, retention, transitions

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
