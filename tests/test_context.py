"""Named random streams, warnings, progress."""

import hashlib
import itertools
import logging
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmtool.context import Context


def test_a_stream_by_hand() -> None:
    # sha256("5/mask") starts with these 8 bytes; the last bit is dropped
    digest = int("".join(f"{b:02x}" for b in _sha("5/mask")[:8]), 16)
    assert Context(seed=5).stream_seed("mask") == digest >> 1


def _sha(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@given(seed=st.integers(0, 2**40), one=st.text(), two=st.text())
def test_streams_are_repeatable_and_apart(seed: int, one: str, two: str) -> None:
    context = Context(seed=seed)
    assert context.rng(one).random() == Context(seed=seed).rng(one).random()
    assert (context.stream_seed(one) == context.stream_seed(two)) == (one == two)
    assert 0 <= context.stream_seed(one) < 2**63


def progress_of(seconds_an_item: float, caplog: pytest.LogCaptureFixture) -> list[str]:
    clock = itertools.count(0.0, seconds_an_item)
    with (
        caplog.at_level(logging.INFO, logger="mllmtool"),
        mock.patch("mllmtool.context.time.monotonic", side_effect=clock),
    ):
        assert list(Context().track(range(20), "work")) == list(range(20))
    return caplog.messages


def test_progress_says_a_line_each_tenth(caplog: pytest.LogCaptureFixture) -> None:
    lines = progress_of(10.0, caplog)
    assert len(lines) == 10
    assert lines[:2] == ["work: 2 of 20, 20 s", "work: 4 of 20, 40 s"]


def test_progress_of_quick_work_is_a_line_in_five_seconds(caplog: pytest.LogCaptureFixture) -> None:
    assert progress_of(0.5, caplog) == ["work: 10 of 20, 5 s", "work: 20 of 20, 10 s"]


def test_quiet_progress_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mllmtool"):
        assert list(Context(quiet=True).track(iter([1, 2]), "work", total=2)) == [1, 2]
    assert caplog.messages == []
