"""Quotas and draws: golden, laws, and a slow transcription."""

from collections import Counter
from fractions import Fraction

import philox
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmtool.context import Context
from mllmtool.data.mixing import Draw, draws, permutation, quotas

quick = settings(max_examples=60, deadline=None)
shares = st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(any)


def test_quotas_by_hand() -> None:
    # 0.34 * 10 = 3.4, 0.33 * 10 = 3.3 twice: one row is left and goes to the largest remainder
    assert quotas([0.33, 0.34, 0.33], 10) == [3, 4, 3]
    # 0.5 * 3 = 1.5 twice: equal remainders, the earlier source
    assert quotas([0.5, 0.5], 3) == [2, 1]
    # as floats 0.1 * 3 > 0.3; as tenths every quota is whole
    assert quotas([0.1, 0.2, 0.7], 30) == [3, 6, 21]
    assert quotas([1, 0], 7) == [7, 0]


@quick
@given(parts=shares, total=st.integers(1, 10**6))
def test_quotas_sum_up_and_none_is_off_by_one(parts: list[int], total: int) -> None:
    values = [part / sum(parts) for part in parts]
    found = quotas(values, total)
    assert sum(found) == total
    exact = [Fraction(str(value)) for value in values]
    wanted = [value * total / sum(exact) for value in exact]
    assert all(abs(count - want) < 1 for count, want in zip(found, wanted, strict=True))


@quick
@given(parts=shares, total=st.integers(1, 300))
def test_quotas_against_one_seat_at_a_time(parts: list[int], total: int) -> None:
    """Hamilton's method in its other wording: whole quotas, then seats by remainder in turn."""
    whole = sum(parts)
    seats = [part * total // whole for part in parts]
    rest = [part * total % whole for part in parts]
    while sum(seats) < total:
        best = max(range(len(parts)), key=lambda i: (rest[i], -i))
        seats[best], rest[best] = seats[best] + 1, -1
    assert quotas([float(part) for part in parts], total) == seats


def mixed(counts: dict[str, int], rows: dict[str, int], seed: int = 0) -> list[Draw]:
    return list(draws(counts, rows, Context(seed=seed)))


def of(source: str, found: list[Draw]) -> list[Draw]:
    return [draw for draw in found if draw.source == source]


def test_rows_are_drawn_without_replacement_then_in_whole_passes() -> None:
    found = mixed({"a": 25, "b": 4, "c": 0}, {"a": 10, "b": 4, "c": 3})
    assert Counter(draw.source for draw in found) == {"a": 25, "b": 4}
    times = Counter(draw.index for draw in of("a", found))
    assert sorted(times.values()) == [2] * 5 + [3] * 5
    assert {(draw.index, draw.copy) for draw in of("a", found)} == {
        (index, copy) for index, count in times.items() for copy in range(count)
    }
    assert sorted(draw.index for draw in of("b", found)) == [0, 1, 2, 3]


@quick
@given(counts=st.tuples(*[st.integers(0, 40)] * 2), seed=st.integers(0, 5))
def test_another_source_moves_no_row(counts: tuple[int, int], seed: int) -> None:
    rows = {"a": 15, "b": 30, "new": 9}
    before = mixed({"a": counts[0] + 1, "b": counts[1]}, rows, seed)
    after = mixed({"new": 7, "b": counts[1], "a": counts[0] + 1}, rows, seed)
    assert [draw for draw in after if draw.source != "new"] == before


@quick
@given(few=st.integers(1, 40), more=st.integers(0, 40))
def test_a_larger_share_keeps_the_rows_of_a_smaller_one(few: int, more: int) -> None:
    rows = {"a": 15, "b": 30}
    small = mixed({"a": few, "b": 10}, rows)
    large = mixed({"a": few + more, "b": 10}, rows)
    left = set(of("a", large)) - set(of("a", small))
    assert [draw for draw in large if draw not in left] == small


def test_seeds_and_names_make_the_draw() -> None:
    one = mixed({"a": 20}, {"a": 100})
    assert one == mixed({"a": 20}, {"a": 100})
    assert one != mixed({"a": 20}, {"a": 100}, seed=1)
    assert [d.index for d in one] != [d.index for d in mixed({"b": 20}, {"b": 100})]


def test_rows_are_drawn_evenly_and_not_from_the_head() -> None:
    """Each of 20 rows is among 5 drawn in a quarter of 2000 seeds, within five deviations."""
    times = Counter(draw.index for seed in range(2000) for draw in mixed({"a": 5}, {"a": 20}, seed))
    assert all(abs(times[index] - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5 for index in range(20))


def test_sources_are_shuffled_together() -> None:
    found = mixed({"a": 500, "b": 500}, {"a": 500, "b": 500})
    for start in range(0, 1000, 100):
        assert 25 <= len(of("a", found[start : start + 100])) <= 75


def test_a_permutation_sorts_the_words_of_philox() -> None:
    """They are the same on every machine and in every numpy, and so are mixes."""
    assert permutation(8, 1).tolist() == [3, 5, 2, 7, 0, 6, 1, 4]
    words = philox.words(12345678901234567890, 1000)
    expected = sorted(range(1000), key=words.__getitem__)
    assert permutation(1000, 12345678901234567890).tolist() == expected


@pytest.mark.parametrize("total", [1, 2, 3])
def test_fewer_rows_than_sources(total: int) -> None:
    assert sum(quotas([0.2] * 5, total)) == total
