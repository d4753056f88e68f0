"""Gathering many rows' equations: what each holds, and how much memory they take together."""

import tracemalloc

import numpy as np
import pytest

from mllmtool.tailoring.normal_equations import MEMORY, PANEL, normal_equations


@pytest.mark.parametrize("columns", [7, PANEL, 2 * PANEL + 7])
def test_each_row_has_the_submatrix_and_the_right_side_of_what_it_keeps(columns: int) -> None:
    rng = np.random.default_rng(0)
    root = rng.integers(-3, 4, (columns, columns))
    full = (root + root.T).astype(np.float64)
    vectors = rng.integers(-3, 4, (5, columns)).astype(np.float64)
    mask = rng.random((5, columns)) < 0.3
    mask[:, -1], mask[1], mask[3] = True, False, True
    rows = []
    for each in normal_equations(full, vectors, mask):
        rows.append(each.row)
        kept = mask[each.row].nonzero()[0]
        np.testing.assert_array_equal(each.columns, kept)
        np.testing.assert_array_equal(each.matrix, full[np.ix_(kept, kept)])
        np.testing.assert_array_equal(each.right, full[kept] @ vectors[each.row])
    assert rows == [0, 2, 3, 4]


def test_rows_that_keep_nothing_have_no_equation() -> None:
    empty = np.zeros((4, 3), dtype=bool)
    assert list(normal_equations(np.eye(3), np.ones((4, 3)), empty)) == []


def test_memory_is_bounded_however_many_the_rows_are() -> None:
    columns, rows = 1000, 40
    full, ones = np.eye(columns), np.ones((rows, columns))
    whole = full.nbytes * PANEL / columns  # rows of a panel that are kept, whole
    tracemalloc.start()
    traces = [np.trace(each.matrix) for each in normal_equations(full, ones, ones > 0)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert traces == [columns] * rows
    assert rows * full.nbytes > 4 * MEMORY
    assert peak < 1.02 * (MEMORY + whole)
