"""Quotas and draws: golden, laws, and a slow transcription."""

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import philox
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmtool.context import Context
from mllmtool.data.mixing import (
    block_quotas,
    draws,
    permutation,
    quotas,
    quotas_around,
    rows_for,
)

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


def test_quotas_around_by_hand() -> None:
    # 7 of a share of 0.5; the others 7 * 0.3 / 0.5 = 4.2 and 7 * 0.2 / 0.5 = 2.8
    assert quotas_around([0.5, 0.3, 0.2], 0, 7) == [7, 4, 3]
    assert quotas_around([1, 0], 0, 5) == [5, 0]


@quick
@given(parts=shares, count=st.integers(1, 10**6), data=st.data())
def test_quotas_around_a_source(parts: list[int], count: int, data: st.DataObject) -> None:
    """The anchor has its count, the others are off by less than 1, the total by half at most."""
    anchor = data.draw(st.sampled_from([i for i, part in enumerate(parts) if part]))
    found = quotas_around([float(part) for part in parts], anchor, count)
    assert found[anchor] == count
    wanted = [Fraction(part * count, parts[anchor]) for part in parts]
    assert all(abs(got - want) < 1 for got, want in zip(found, wanted, strict=True))
    assert abs(2 * sum(found) - 2 * Fraction(sum(wanted))) <= 1


@quick
@given(weights=st.lists(st.integers(0, 9), min_size=1, max_size=20).filter(any), data=st.data())
def test_rows_for_a_quota_one_row_at_a_time(weights: list[int], data: st.DataObject) -> None:
    quota = data.draw(st.integers(0, 3 * sum(weights)))
    whole, rest = divmod(quota, sum(weights))
    taken, left = 0, rest
    while left > 0:
        left -= weights[taken]
        taken += 1
    assert rows_for(quota, np.array(weights)) == whole * len(weights) + taken


@quick
@given(counts=st.lists(st.integers(0, 60), min_size=1, max_size=6), block=st.integers(1, 40))
def test_blocks_are_less_than_a_row_off_their_shares(counts: list[int], block: int) -> None:
    total, before = sum(counts), [0] * len(counts)
    ends = [min(rows, total) for rows in range(block, total + block, block)]
    found = block_quotas(counts, block)
    assert len(found) == len(ends)
    for rows, after in zip(ends, found, strict=True):
        assert sum(after) == rows
        for count, had, has in zip(counts, before, after, strict=True):
            assert had <= has
            assert abs(has - Fraction(count * rows, total)) < 1
        before = after
    assert before == counts or not total


@quick
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    block=st.integers(1, 30),
    seed=st.integers(0, 3),
)
def test_every_prefix_of_blocks_is_within_a_block(counts: list[int], block: int, seed: int) -> None:
    named = {f"s{number}": count for number, count in enumerate(counts)}
    found = mixed(named, named, seed, f"blocks/{block}")
    assert sorted(found) == sorted(mixed(named, named, seed))
    seen = Counter[str]()
    for rows, draw in enumerate(found, start=1):
        seen[draw.source] += 1
        for name, count in named.items():
            assert abs(seen[name] - Fraction(count * rows, len(found))) <= block


def test_blocks_of_whole_shares_are_exact() -> None:
    found = mixed({"a": 70, "b": 20, "c": 10}, {"a": 70, "b": 20, "c": 10}, order="blocks/10")
    for start in range(0, 100, 10):
        assert Counter(d.source for d in found[start : start + 10]) == {"a": 7, "b": 2, "c": 1}
    orders = {tuple(d.source for d in found[start : start + 10]) for start in range(0, 100, 10)}
    assert len(orders) > 5  # shuffled within each


def test_source_order_is_that_of_the_files() -> None:
    found = mixed({"b": 3, "a": 4}, {"b": 3, "a": 2}, order="source")
    assert [(draw.source, draw.index, draw.copy) for draw in found] == [
        *(("b", 0, 0), ("b", 1, 0), ("b", 2, 0)),
        *(("a", 0, 0), ("a", 1, 0), ("a", 0, 1), ("a", 1, 1)),
    ]


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


@dataclass(frozen=True, order=True)
class Draw:
    source: str
    index: int
    copy: int


def mixed(
    counts: dict[str, int], rows: dict[str, int], seed: int = 0, order: str = "shuffle"
) -> list[Draw]:
    context = Context(seed=seed)
    orders = {n: permutation(k, context.stream_seed(f"mix/{n}/rows")) for n, k in rows.items()}
    drawn = draws(counts, orders, order, context)
    columns = (drawn.sources, drawn.indices, drawn.copies)
    return [
        Draw(list(counts)[s], i, c)
        for s, i, c in zip(*(column.tolist() for column in columns), strict=True)
    ]


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
