"""Samples to tensors: token ids, labels and pixels, remembered between passes over the data."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer

from mllmtool.checkpoints import Checkpoint
from mllmtool.data.samples import Message, Sample, image_path
from mllmtool.errors import CheckpointError, DataError
from mllmtool.models.families import Family, family_of
from mllmtool.models.memo import Memo
from mllmtool.models.pictures import image_size, open_image
from mllmtool.models.spans import Rendered, Turn, expand, learnt, render

IGNORED = -100  # the label that a loss skips
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One sequence: `ids` and `labels` of shape (tokens,), and the files of its images."""

    ids: Tensor
    labels: Tensor
    images: tuple[Path, ...]


@dataclass(frozen=True)
class _Image:
    path: Path
    text: str  # what stands in place of its mark


class Encoder:
    """Turns samples into batches as a checkpoint's own tokenizer, template and processor say.

    Nothing is ever truncated. Errors in a sample are a DataError that names it.
    """

    def __init__(self, tokenizer: Any, processor: Any, ends: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.processor = processor  # None for a text-only model
        self.ends = tuple(ends)
        self._mark = str(processor.image_token) if processor else ""
        self.image_token_id: int | None = processor.image_token_id if processor else None
        self._rows: Memo[Row] = Memo(64 * MIB, lambda row: row.ids.nbytes + row.labels.nbytes)
        self._pixels: Memo[dict[str, Tensor]] = Memo(256 * MIB, _num_bytes)
        self._images: Memo[_Image] = Memo(64 * MIB, lambda image: 512 + len(image.text))
        self._expansions: Memo[str] = Memo(MIB, len)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read tokenizer, chat template and image processor of a checkpoint.

        Raises:
            CheckpointError: one of them is missing or unreadable, or the family is not served.
        """
        config = Checkpoint.open(path).config
        family = family_of(config, f"{path}/config.json")
        if not family.encodes:
            raise CheckpointError(
                f"{path}: samples cannot be encoded for model_type {config['model_type']} yet"
            )
        loaded = _load_processor(path, family)
        tokenizer = loaded.tokenizer if family.images else loaded
        if not getattr(loaded, "chat_template", None):
            raise CheckpointError(f"{path}: has no chat template; add chat_template.jinja")
        if not tokenizer.is_fast or tokenizer.eos_token is None:
            raise CheckpointError(f"{path}: needs a tokenizer.json and an eos_token")
        return cls(tokenizer, loaded if family.images else None, _ends(Path(path), tokenizer))

    def train_batch(self, samples: Sequence[Sample], root: Path) -> dict[str, Tensor]:
        """A right-padded batch with `labels`; images are sought under `root`.

        Raises:
            DataError: as `train_row`.
        """
        return self.batch([self.train_row(sample, root) for sample in samples])

    def prompt_batch(self, samples: Sequence[Sample], root: Path) -> dict[str, Tensor]:
        """A left-padded batch to generate from: the turns and the generation prompt.

        Raises:
            DataError: the template refuses the turns, or an image is missing or broken.
        """
        batch = self.batch([self.prompt_row(sample, root) for sample in samples], padding="left")
        del batch["labels"]
        return batch

    def train_row(self, sample: Sample, root: Path) -> Row:
        """A sample with labels on its answers and their end tokens, `IGNORED` elsewhere.

        Raises:
            DataError: it has no answer, the template refuses it, or an image is missing or broken.
        """
        key = (root, sample.images, sample.messages)
        return self._rows.get(key, partial(self._train_row, sample, root))

    def prompt_row(self, sample: Sample, root: Path) -> Row:
        """The turns and the generation prompt, with nothing to learn."""
        with _naming(sample):
            turns = [self._turn(message) for message in sample.messages]
            return self._row(Rendered(self._template(turns, True), ()), sample, root)

    def option_rows(
        self, sample: Sample, options: Sequence[str], root: Path, *, ended: bool = False
    ) -> list[Row]:
        """The prompt with each option as its answer; labels on what tells the options apart.

        Prompt and option are tokenised together, and the labels begin after the last token that
        the prompt shares with all of them, so that their sums are of like texts. With `ended` the
        end token is scored too.
        """
        prompt = self.prompt_row(sample, root)
        rows = [self._option_row(sample, option, root, ended) for option in options]
        shared = min(_num_shared(prompt.ids, row.ids) for row in rows)
        return [replace(row, labels=_ignore(row.ids, shared)) for row in rows]

    def batch(
        self, rows: Sequence[Row], *, padding: Literal["left", "right"] = "right"
    ) -> dict[str, Tensor]:
        """Pad rows into `input_ids`, `attention_mask`, `labels`, all (rows, tokens), and pixels."""
        shape = (len(rows), max(len(row.ids) for row in rows))
        ids = torch.full(shape, self.tokenizer.pad_token_id or 0)
        labels = torch.full(shape, IGNORED)
        mask = torch.zeros(shape, dtype=torch.long)
        for index, row in enumerate(rows):
            there = slice(0, len(row.ids)) if padding == "right" else slice(-len(row.ids), None)
            ids[index, there] = row.ids
            labels[index, there] = row.labels
            mask[index, there] = 1
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        images = [path for row in rows for path in row.images]
        return batch | self._batch_pixels(images)

    def preload(self, row: Row) -> None:
        """Decode the row's images while memory for pixels is left, so that later it need not."""
        if self._pixels.bytes_left > 0:
            self._batch_pixels(row.images)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _train_row(self, sample: Sample, root: Path) -> Row:
        with _naming(sample):
            turns = [self._turn(message) for message in sample.messages]
            row = self._row(render(self._template, turns, self.ends), sample, root)
            if not (row.labels != IGNORED).any():
                raise DataError("its answer has no token")
            return row

    def _option_row(self, sample: Sample, option: str, root: Path, ended: bool) -> Row:
        with _naming(sample):
            turns = [self._turn(message) for message in sample.messages]
            answer = self._turn(Message(role="assistant", content=option))
            rendered = render(self._template, [*turns, answer], self.ends)
            text = rendered.text[: rendered.answers[-1][1]]
            if not ended:
                end = next(end for end in self.ends if text.endswith(end))
                text = text.removesuffix(end)
            return self._row(Rendered(text, ()), sample, root)

    def _row(self, rendered: Rendered, sample: Sample, root: Path) -> Row:
        if sample.images and not self.processor:
            raise DataError("has images, but the model is text-only")
        images = [
            self._images.get((root, name), partial(self._image, root, name))
            for name in sample.images
        ]
        whole = expand(rendered, self._mark, [image.text for image in images])
        # as transformers does at inference: a text-only template writes every special token, a
        # multimodal processor adds the tokenizer's own, unless the template wrote them
        first = self.tokenizer.bos_token
        special = bool(self.processor) and not (first and whole.text.startswith(first))
        tokens = self.tokenizer(
            whole.text, add_special_tokens=special, return_offsets_mapping=True, verbose=False
        )
        ids = torch.tensor(tokens["input_ids"])
        mask = torch.tensor(learnt(tokens["offset_mapping"], whole.answers), dtype=torch.bool)
        return Row(ids, ids.where(mask, IGNORED), tuple(image.path for image in images))

    def _turn(self, message: Message) -> Turn:
        if self.processor:
            parts = [part.model_dump(exclude_defaults=True) for part in message.parts]
            return {"role": message.role, "content": parts}
        return {"role": message.role, "content": "".join(part.text for part in message.parts)}

    def _template(self, turns: Sequence[Turn], prompt: bool) -> str:
        owner = self.processor or self.tokenizer
        try:
            text = owner.apply_chat_template(
                list(turns), add_generation_prompt=prompt, tokenize=False
            )
        except Exception as error:  # a template from disk raises what it likes
            reason = " ".join(str(error).split())
            raise DataError(f"the chat template refuses it: {reason}") from error
        return str(text)

    def _image(self, root: Path, name: str) -> "_Image":
        """An image's file and what its mark becomes, which the picture's size alone decides."""
        path = image_path(root, name)
        size = image_size(path)
        return _Image(path, self._expansions.get(size, partial(self._expand, path)))

    def _expand(self, path: Path) -> str:
        made = self.processor(
            text=[self._mark], images=[open_image(path)], return_text_replacement_offsets=True
        )
        return str(made["text_replacement_offsets"][0][0]["replacement"])

    def _batch_pixels(self, images: Sequence[Path]) -> dict[str, Tensor]:
        if not images:
            return {}
        made = [self._pixels.get(path, partial(self._pixels_of, path)) for path in images]
        return {key: _joined([tensors[key] for tensors in made]) for key in made[0]}

    def _pixels_of(self, path: Path) -> dict[str, Tensor]:
        return dict(self.processor(images=[open_image(path)], return_tensors="pt"))


@contextmanager
def _naming(sample: Sample) -> Iterator[None]:
    """Put the sample's name before an error's words."""
    try:
        yield
    except DataError as error:
        raise DataError(f"sample {sample.id}: {error}") from error


def _load_processor(path: str | Path, family: Family) -> Any:
    auto = AutoProcessor if family.images else AutoTokenizer
    try:
        loaded = auto.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # hostile files make transformers raise anything
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its processor cannot be read: {reason}") from error
    if family.images and not hasattr(loaded, "image_processor"):
        raise CheckpointError(f"{path}: has no image processor; add processor_config.json")
    return loaded


def _ends(path: Path, tokenizer: Any) -> list[str]:
    """Texts of the tokens that end an answer: the tokenizer's, then those generation stops at."""
    try:
        values = json.loads((path / "generation_config.json").read_text(encoding="utf-8"))
        stops = values.get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        stops = None
    ids = stops if isinstance(stops, list) else [stops]
    known = [tokenizer.convert_ids_to_tokens(n) for n in ids if isinstance(n, int)]
    return list(dict.fromkeys([tokenizer.eos_token, *(text for text in known if text)]))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Join along the first axis, the other axes filled up with zeros to the longest."""
    shapes = {tuple(tensor.shape[1:]) for tensor in tensors}
    if len(shapes) == 1:
        return torch.cat(list(tensors))
    longest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    joined = tensors[0].new_zeros(sum(len(tensor) for tensor in tensors), *longest)
    start = 0
    for tensor in tensors:
        there = (slice(start, start + len(tensor)), *(slice(size) for size in tensor.shape[1:]))
        joined[there] = tensor
        start += len(tensor)
    return joined


def _ignore(ids: Tensor, number: int) -> Tensor:
    """Labels of all but the first tokens."""
    return torch.cat([ids.new_full((number,), IGNORED), ids[number:]])


def _num_bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _num_shared(left: Tensor, right: Tensor) -> int:
    pairs = zip(left.tolist(), right.tolist(), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
