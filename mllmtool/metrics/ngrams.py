"""Counts of n-grams in captions and their references, as flat arrays.

An n-gram's number is found from that of its first n - 1 tokens and its last token, and one sort of
these an order puts equal n-grams together: no n-gram is ever made as an object.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

from mllmtool.metrics.caption_tokens import caption_tokens

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
ORDER = 4


@dataclass(frozen=True)
class Counts:
    """How often a text holds an n-gram: entries sorted by n-gram, image and text.

    `group` numbers the pairs of n-gram and image that entries belong to, `first` are the groups'
    first entries.
    """

    gram: Ints
    text: Ints
    times: Ints
    group: Ints
    first: Ints


@dataclass(frozen=True)
class Captions:
    """Texts of images, of each image the candidate and then its references.

    `image` is each text's image, `lengths` its tokens, `candidates` the places of candidates.
    """

    tokens: Ints
    lengths: Ints
    image: Ints
    candidates: Ints

    @classmethod
    def read(cls, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> "Captions":
        """Tokenise candidates and references, one list an image."""
        rows = zip(candidates, references, strict=True)
        texts = [caption_tokens(text) for one, others in rows for text in (one, *others)]
        known = {token: n for n, token in enumerate(dict.fromkeys(chain.from_iterable(texts)))}
        numbers = map(known.__getitem__, chain.from_iterable(texts))
        sizes = [1 + len(row) for row in references]
        return cls(
            tokens=np.fromiter(numbers, dtype=np.int64),
            lengths=np.array([len(text) for text in texts], dtype=np.int64),
            image=np.repeat(np.arange(len(sizes)), sizes),
            candidates=np.array([0, *accumulate(sizes)][:-1], dtype=np.int64),
        )

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.candidates)

    def is_candidate(self, text: Ints) -> Flags:
        """Which of the texts are candidates."""
        flags = np.zeros(len(self.lengths), dtype=bool)
        flags[self.candidates] = True
        return flags[text]

    def counts(self) -> Iterator[Counts]:
        """Of 1-grams, 2-grams, up to `ORDER`."""
        text = np.repeat(np.arange(len(self.lengths)), self.lengths)
        words, gram, place = int(self.tokens.max(initial=0)) + 1, self.tokens, text[:0]
        for order in range(1, ORDER + 1):
            start = np.arange(len(text)) if order == 1 else _whole(place, text, order)
            if order > 1:
                gram = gram[start] * words + self.tokens[start + order - 1]
            place = start
            sort = np.argsort(gram, kind="stable")
            numbers = _runs(gram[sort])
            yield self._counted(numbers, text[place[sort]])
            gram = np.zeros(len(text), dtype=np.int64)
            gram[place[sort]] = numbers

    def _counted(self, gram: Ints, text: Ints) -> Counts:
        """Entries of n-grams and texts that are sorted."""
        first = np.flatnonzero(_changes(gram) | _changes(text))
        times = np.diff(np.append(first, len(gram)))
        gram, text = gram[first], text[first]
        starts = _changes(gram) | _changes(self.image[text])
        return Counts(gram, text, times, np.cumsum(starts) - 1, np.flatnonzero(starts))


def _whole(place: Ints, text: Ints, order: int) -> Ints:
    """Of the starts of n-grams one shorter those that go on within their text."""
    place = place[place < len(text) - order + 1]
    whole: Ints = place[text[place] == text[place + order - 1]]
    return whole


def _changes(values: Ints) -> Flags:
    """Where a value is another than the one before it."""
    flags = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=flags[1:])
    return flags


def _runs(values: Ints) -> Ints:
    """Number of the run of equals that each value is in."""
    return np.cumsum(_changes(values)) - 1
