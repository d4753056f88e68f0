"""Training samples, all checked before the first step, and the order in which they are seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.context import Context
from mllmtool.data.samples import Sample, images_root, locate_samples
from mllmtool.errors import DataError, some
from mllmtool.models.encoding import Encoder, Row


@dataclass(frozen=True)
class Examples:
    """Checked samples with their `file:line`; `sources` names what each came from, or is empty."""

    samples: tuple[Sample, ...]
    places: tuple[str, ...]
    root: Path

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that the samples name, sorted."""
        return tuple(sorted({name for name in map(source_of, self.samples) if name is not None}))


def read_examples(
    config: FinetuneConfig, encoder: Encoder, positions: int | None, context: Context
) -> Examples:
    """Read and encode every sample; `positions` is how many tokens the model can place.

    Of images only the headers are read here.

    Raises:
        DataError: a sample is wrong; it names `file:line` of up to three and how many there are.
    """
    root = images_root(config.samples, config.images)
    samples, places, problems = [], [], []
    for place, sample in context.track(locate_samples(config.samples), "samples read"):
        try:
            _check_length(encoder.train_row(sample, root), config.max_length, positions)
        except DataError as error:
            problems.append(f"{place}: {error}")
        samples.append(sample)
        places.append(place)
    if problems:
        raise DataError(some(problems))
    if not samples:
        raise DataError(f"{config.samples}: holds no samples")
    return Examples(tuple(samples), tuple(places), root)


def preload(examples: Examples, encoder: Encoder, wanted: Iterable[int]) -> None:
    """Decode the images of the wanted samples, as many as memory for pixels holds.

    Raises:
        DataError: an image is broken; as `read_examples`.
    """
    problems = []
    for index in wanted:
        try:
            encoder.preload(encoder.train_row(examples.samples[index], examples.root))
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


class Order(Dataset[int]):
    """The samples of all steps, one after another: pass after pass, each in a new random order.

    Passes follow each other without a break, so every batch is full and the order does not depend
    on batch, processes or where a run was resumed.
    """

    def __init__(self, num_samples: int, total: int, context: Context) -> None:
        self._passes: list[Tensor] = []
        self._num_samples, self._total, self._context = num_samples, total, context

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
            generator.manual_seed(self._context.stream_seed(f"order/{len(self._passes)}"))
            self._passes.append(torch.randperm(self._num_samples, generator=generator))
        return int(self._passes[turn][place])


class Collator:
    """Numbers of samples to a batch; `sources` tells which source each row is of, -1 for none."""

    def __init__(self, examples: Examples, encoder: Encoder) -> None:
        self._examples, self._encoder = examples, encoder
        numbers = {name: number for number, name in enumerate(examples.sources)}
        self._sources = [numbers.get(source_of(s) or "", -1) for s in examples.samples]

    def __call__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Encode the samples of one micro-batch."""
        samples = [self._examples.samples[index] for index in indices]
        batch = self._encoder.train_batch(samples, self._examples.root)
        return {**batch, "sources": torch.tensor([self._sources[index] for index in indices])}


def _check_length(row: Row, max_length: int, positions: int | None) -> None:
    tokens = len(row.ids)
    if tokens > max_length:
        raise DataError(f"{tokens} tokens, more than --max-length {max_length}; nothing is cut off")
    if positions is not None and tokens > positions:
        raise DataError(f"{tokens} tokens, more than the {positions} positions of the model")
