"""A memory with a bound in bytes."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Memo(Generic[V]):
    """Keeps what it was asked for until `bytes_left` is spent, and makes the rest anew.

    Nothing is dropped: under passes over the data, dropping the oldest would keep nothing.
    """

    def __init__(self, bytes_left: int, size: Callable[[V], int]) -> None:
        self.bytes_left = bytes_left
        self.full = False
        self._size = size
        self._kept: dict[Hashable, V] = {}

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of `key`, made if it is not kept."""
        if key in self._kept:
            return self._kept[key]
        value = make()
        size = self._size(value)
        if size <= self.bytes_left:
            self.bytes_left -= size
            self._kept[key] = value
        else:
            self.full = True
        return value
