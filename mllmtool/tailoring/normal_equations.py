"""The equations of many rows that share one matrix, each row's on what it keeps."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mllmtool.checkpoints.dtypes import Array

PANEL = 512  # rows of the matrix that are read at a time
MEMORY = 1 << 26  # bytes of equations that are filled at a time


@dataclass(frozen=True)
class Equation:
    """Row `row` keeps `columns`, K; `matrix` is $A_{KK}$ and `right` $A_K v$ of the row's v."""

    row: int
    columns: Array
    matrix: Array
    right: Array


def normal_equations(full: Array, vectors: Array, mask: Array) -> Iterator[Equation]:
    """The equation of each row that keeps something, valid and free to change until the next.

    The matrix is read by panels of its rows, a panel for many equations, so that it comes from the
    processor's cache, and so do the rows that are multiplied for the right side.

    Args:
        full: the matrix, symmetric, (C, C).
        vectors: a v for each row, (R, C).
        mask: what each row keeps, (R, C).
    """
    counts = mask.sum(axis=1)
    rows, most = np.flatnonzero(counts), int(counts.max(initial=0))
    batch = max(1, MEMORY // max(1, most * most * full.itemsize))
    matrices = np.empty((min(batch, len(rows)), most * most), full.dtype)
    space = np.empty(min(most, PANEL) * len(full), full.dtype)
    for start in range(0, len(rows), batch):
        equations = [
            _empty(int(row), np.flatnonzero(mask[row]), matrix)
            for row, matrix in zip(rows[start : start + batch], matrices, strict=False)
        ]
        for first in range(0, len(full), PANEL):
            for equation in equations:
                _fill(equation, full[first : first + PANEL], first, vectors[equation.row], space)
        yield from equations


def _empty(row: int, columns: Array, space: Array) -> Equation:
    size = len(columns)
    matrix = space[: size * size].reshape(size, size)
    return Equation(row, columns, matrix, np.empty(size, space.dtype))


def _fill(equation: Equation, panel: Array, start: int, vector: Array, space: Array) -> None:
    """Fill what comes from a panel, whose first row is number `start` of the matrix."""
    first, last = equation.columns.searchsorted((start, start + len(panel)))
    rows = space[: (last - first) * len(vector)].reshape(last - first, len(vector))
    panel.take(equation.columns[first:last] - start, axis=0, out=rows, mode="clip")
    rows.take(equation.columns, axis=1, out=equation.matrix[first:last], mode="clip")
    np.dot(rows, vector, out=equation.right[first:last])
