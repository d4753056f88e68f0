"""Training samples, all checked before the first step, and the order in which they are seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mllmtool.context import Context
from mllmtool.data.looks import check_turns
from mllmtool.data.samples import Sample, locate_samples
from mllmtool.errors import DataError, some
from mllmtool.models.encoding import IGNORED, Encoder, Row


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tokens a sample has."""

    tokens: int
    image_tokens: int
    learnt_tokens: int


@dataclass(frozen=True)
class Examples:
    """Checked samples with their `file:line`; `dropped` are the places of those left out."""

    samples: tuple[Sample, ...]
    places: tuple[str, ...]
    root: Path
    counts: tuple[Counts, ...]
    dropped: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that the samples name, sorted; none where they name none."""
        return tuple(sorted({name for name in map(source_of, self.samples) if name is not None}))


@dataclass(frozen=True)
class Longest:
    """How many tokens a sample may have: as the user says, and as the model can place."""

    tokens: int
    positions: int | None
    drop: bool

    def problem(self, row: Row) -> str | None:
        """What is wrong with a row's length."""
        tokens = len(row.ids)
        if tokens > self.tokens:
            return f"{tokens} tokens, more than --max-length {self.tokens}; nothing is cut off"
        if self.positions is not None and tokens > self.positions:
            return f"{tokens} tokens, more than the {self.positions} positions of the model"
        return None


def read_examples(
    file: str, root: Path, encoder: Encoder, longest: Longest, context: Context
) -> Examples:
    """Read and encode every sample of a file whose images lie under `root`.

    Of images only the headers are read here.

    Raises:
        DataError: a sample is wrong; it names `file:line` of up to three and how many there are.
    """
    samples, places, counts, dropped, problems = [], [], [], [], []
    for place, sample in context.track(locate_samples(file), "samples read"):
        try:
            check_turns(sample)
            row = encoder.train_row(sample, root)
            problem = longest.problem(row)
        except DataError as error:
            problems.append(f"{place}: {error}")
            continue
        if problem and longest.drop:
            dropped.append(place)
        elif problem:
            problems.append(f"{place}: {problem}")
        else:
            samples.append(sample)
            places.append(place)
            counts.append(_count(row, encoder.image_token_id))
    if problems:
        raise DataError(some(problems))
    if not samples:
        left = f" that is short enough; {len(dropped)} are longer" if dropped else "s"
        raise DataError(f"{file}: holds no sample{left}")
    if dropped:
        context.warn(f"{some(dropped)}: left out, being too long")
    return Examples(tuple(samples), tuple(places), root, tuple(counts), tuple(dropped))


def preload(examples: Examples, encoder: Encoder, wanted: Iterable[int]) -> None:
    """Decode the images of the wanted samples, as many as memory for pixels holds.

    Raises:
        DataError: an image is broken; as `read_examples`.
    """
    problems = []
    for index in wanted:
        sample = examples.samples[index]
        try:
            if sample.images and not encoder.preload(encoder.train_row(sample, examples.root)):
                break
        except DataError as error:
            problems.append(f"{examples.places[index]}: {error}")
    if problems:
        raise DataError(some(problems))


def source_of(sample: Sample) -> str | None:
    """The `_mix.source` that `mix-data` notes, or `source`."""
    extra = sample.model_extra or {}
    mix = extra.get("_mix")
    name = mix.get("source") if isinstance(mix, dict) else extra.get("source")
    return name if isinstance(name, str) else None


class Order:
    """The samples of all steps, one after another: pass after pass, each in a new random order.

    Passes follow each other without a break, so every batch is full and the order does not depend
    on batch, processes or where a run was resumed. `name` is that of its random stream.
    """

    def __init__(self, num_samples: int, total: int, context: Context, name: str = "order") -> None:
        self._passes: list[Tensor] = []
        self._num_samples, self._total = num_samples, total
        self._context, self._name = context, name

    def __len__(self) -> int:
        return self._total

    def visited(self) -> list[int]:
        """The samples that are seen at all, once each."""
        once = min(self._total, self._num_samples)
        return sorted(self[index] for index in range(once))

    def __getitem__(self, index: int) -> int:
        """The number of the sample at `index`."""
        turn, place = divmod(index, self._num_samples)
        while turn >= len(self._passes):
            generator = torch.Generator()
            generator.manual_seed(self._context.stream_seed(f"{self._name}/{len(self._passes)}"))
            self._passes.append(torch.randperm(self._num_samples, generator=generator))
        return int(self._passes[turn][place])


@dataclass(frozen=True)
class Stream:
    """Samples in the order in which a run sees them."""

    examples: Examples
    order: Order

    def batch(self, places: Sequence[int], encoder: Encoder) -> dict[str, Tensor]:
        """Encode the samples at these places of the order."""
        samples = [self.examples.samples[self.order[place]] for place in places]
        return encoder.train_batch(samples, self.examples.root)


class Collator:
    """Places in the order to a batch.

    `sources` tells which source each row is of, -1 for none; `anchors`, where there is a stream of
    them, holds as many samples on which the model is held to its base.
    """

    def __init__(self, stream: Stream, anchors: Stream | None, encoder: Encoder) -> None:
        self._stream, self._anchors, self._encoder = stream, anchors, encoder
        examples = stream.examples
        numbers = {name: number for number, name in enumerate(examples.sources)}
        self._sources = [numbers.get(source_of(s) or "", -1) for s in examples.samples]

    def __call__(self, places: Sequence[int]) -> dict[str, Any]:
        """Encode the samples of one micro-batch."""
        batch: dict[str, Any] = self._stream.batch(places, self._encoder)
        batch["sources"] = torch.tensor([self._sources[self._stream.order[n]] for n in places])
        if self._anchors:
            batch["anchors"] = self._anchors.batch(places, self._encoder)
        return batch


def _count(row: Row, image_token_id: int | None) -> Counts:
    images = 0 if image_token_id is None else int((row.ids == image_token_id).sum())
    return Counts(len(row.ids), images, int((row.labels != IGNORED).sum()))
