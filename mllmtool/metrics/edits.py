"""Edit distance and longest common subsequence, bit-parallel: one step a symbol of the other."""

from collections.abc import Hashable, Sequence


def levenshtein(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Insertions, deletions and substitutions from one to the other (Myers 1999)."""
    if not first or not second:
        return len(first) + len(second)
    masks, last = _masks(first), 1 << (len(first) - 1)
    whole = (1 << len(first)) - 1
    up, down, distance = whole, 0, len(first)
    for symbol in second:
        match = masks.get(symbol, 0)
        diagonal = (((match & up) + up) ^ up) | match | down
        right, left = down | ~(diagonal | up), up & diagonal
        distance += bool(right & last) - bool(left & last)
        right, left = right << 1 | 1, left << 1
        up, down = (left | ~(diagonal | right)) & whole, right & diagonal & whole
    return distance


def common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence (Hyyrö 2004)."""
    masks, whole = _masks(first), (1 << len(first)) - 1
    rows = whole
    for symbol in second:
        match = rows & masks.get(symbol, 0)
        rows = ((rows + match) | (rows - match)) & whole
    return len(first) - rows.bit_count()


def _masks(symbols: Sequence[Hashable]) -> dict[Hashable, int]:
    masks: dict[Hashable, int] = {}
    for place, symbol in enumerate(symbols):
        masks[symbol] = masks.get(symbol, 0) | 1 << place
    return masks
