"""Tensors of unlike sizes in one tensor."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor


def pad(rows: Sequence[Tensor], value: int, side: Literal["left", "right"] = "right") -> Tensor:
    """Rows of shape (tokens,) as (rows, longest), filled up with `value` on a side."""
    longest = max(len(row) for row in rows)
    padded = rows[0].new_full((len(rows), longest), value)
    for index, row in enumerate(rows):
        start = 0 if side == "right" else longest - len(row)
        padded[index, start : start + len(row)] = row
    return padded


def join(tensors: Sequence[Tensor]) -> Tensor:
    """Join along the first axis, the other axes filled up with zeros to the longest."""
    sizes = zip(*(tensor.shape[1:] for tensor in tensors), strict=True)
    joined = tensors[0].new_zeros(sum(map(len, tensors)), *map(max, sizes))
    start = 0
    for tensor in tensors:
        there = (slice(start, start + len(tensor)), *(slice(size) for size in tensor.shape[1:]))
        joined[there] = tensor
        start += len(tensor)
    return joined


def join_rows(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Tensors (1, tiles, ...) of each row's images as (rows, most tiles of a row, ...).

    Some row has one; a row without any is zeros.
    """
    empty = next(tensor for row in rows for tensor in row)[0, :0]
    return join([join([tensor[0] for tensor in row] or [empty])[None] for row in rows])
