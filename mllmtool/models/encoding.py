"""Samples to tensors: token ids, labels and pixels, remembered between passes over the data."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise, takewhile
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from mllmtool.checkpoints import Checkpoint
from mllmtool.data.samples import Message, Sample, image_path
from mllmtool.errors import CheckpointError, DataError
from mllmtool.models.families import Family, family_of
from mllmtool.models.memo import Memo
from mllmtool.models.padding import join, join_rows, pad
from mllmtool.models.pictures import image_size, open_image
from mllmtool.models.processors import answer_ends, load_processor
from mllmtool.models.spans import Rendered, Span, Turn, expand, learnt, render

IGNORED = -100  # the label that a loss skips
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One sequence: `ids` and `labels` of shape (tokens,), and the files of its images.

    `question` are the ids that a Q-Former reads beside the images, where the model has one.
    """

    ids: Tensor
    labels: Tensor
    images: tuple[Path, ...]
    question: Tensor | None = None


@dataclass(frozen=True)
class _Image:
    path: Path
    text: str  # what stands in place of its mark


class Encoder:
    """Turns samples into batches as a checkpoint's own tokenizer, template and processor say.

    Nothing is ever truncated. Errors in a sample are a DataError that names it.
    """

    def __init__(self, tokenizer: Any, processor: Any, ends: Sequence[str], family: Family) -> None:
        self.tokenizer = tokenizer
        self.processor = processor  # None for a text-only model
        self.ends = tuple(ends)
        self.family = family
        self._mark = str(processor.image_token) if processor else ""
        self.image_token_id: int | None = (
            tokenizer.convert_tokens_to_ids(self._mark) if processor else None
        )
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
        if config.get("use_decoder_only_language_model") is False:  # InstructBLIP's with a T5
            raise CheckpointError(
                f"{path}: its language model is an encoder-decoder; only decoders are served"
            )
        loaded = load_processor(path, family)
        tokenizer = loaded.tokenizer if family.images else loaded
        ends = answer_ends(path, tokenizer)
        return cls(tokenizer, loaded if family.images else None, ends, family)

    def train_batch(self, samples: Sequence[Sample], root: Path) -> dict[str, Tensor]:
        """A right-padded batch with `labels`; images are sought under `root`.

        Raises:
            DataError: as `train_row`.
        """
        return self.batch([self.train_row(sample, root) for sample in samples])

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

    def option_rows(self, sample: Sample, options: Sequence[str], root: Path) -> list[Row]:
        """The prompt with each option as its answer; labels on what tells the options apart.

        Prompt and option are tokenised as in training, and the labels begin after the last token
        that the prompt shares with all of them, so that their sums are of like texts.
        """
        prompt = self.prompt_row(sample, root)
        rows = [self._option_row(sample, option, root) for option in options]
        shared = min(_num_shared(prompt.ids, row.ids) for row in rows)
        return [replace(row, labels=_ignore(row.ids, shared)) for row in rows]

    def batch(
        self, rows: Sequence[Row], *, padding: Literal["left", "right"] = "right"
    ) -> dict[str, Tensor]:
        """Pad rows into `input_ids`, `attention_mask`, `labels`, all (rows, tokens), and pixels."""
        return self.text(rows, padding=padding) | self.pixels(rows)

    def text(
        self, rows: Sequence[Row], *, padding: Literal["left", "right"] = "right"
    ) -> dict[str, Tensor]:
        """A batch without its pixels."""
        ids = pad([row.ids for row in rows], self.tokenizer.pad_token_id or 0, padding)
        labels = pad([row.labels for row in rows], IGNORED, padding)
        mask = pad([torch.ones_like(row.ids) for row in rows], 0, padding)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return batch | self._extra(rows, batch)

    def pixels(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """What a batch holds for the images of its rows: pixels and their sizes."""
        made = [[self._pixels.get(p, partial(self._pixels_of, p)) for p in r.images] for r in rows]
        flat = list(chain(*made))
        if not flat:
            return {}
        if self.family.nested:
            return {key: join_rows([[t[key] for t in row] for row in made]) for key in flat[0]}
        return {key: join([tensors[key] for tensors in flat]) for key in flat[0]}

    def preload(self, row: Row) -> bool:
        """Decode the row's images, so that later it need not; whether memory holds them."""
        self.pixels([row])
        return not self._pixels.full

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

    def _option_row(self, sample: Sample, option: str, root: Path) -> Row:
        with _naming(sample):
            turns = [self._turn(message) for message in sample.messages]
            answer = self._turn(Message(role="assistant", content=option))
            rendered = render(self._template, [*turns, answer], self.ends)
            *before, (start, stop) = rendered.answers
            text = rendered.text[:stop]
            text = text.removesuffix(next(end for end in self.ends if text.endswith(end)))
            return self._row(Rendered(text, (*before, (start, len(text)))), sample, root)

    def _row(self, rendered: Rendered, sample: Sample, root: Path) -> Row:
        if sample.images and not self.processor:
            raise DataError("has images, but the model is text-only")
        images = [
            self._images.get((root, name), partial(self._image, root, name))
            for name in sample.images
        ]
        whole = expand(rendered, self._mark, [image.text for image in images])
        stretches = self._stretches(whole)
        ids, offsets = self._tokens(whole.text, stretches)
        mask = torch.tensor(learnt(offsets, whole.answers), dtype=torch.bool)
        return Row(
            ids=ids,
            labels=ids.where(mask, IGNORED),
            images=tuple(image.path for image in images),
            question=self._question(whole.text[slice(*stretches[1])]),
        )

    def _stretches(self, whole: Rendered) -> list[Span]:
        """What is tokenised apart: images at the start, the question, then the rest."""
        if not self.family.apart:
            return [(0, 0), (0, len(whole.text))]
        start = len(whole.text) - len(re.sub(f"^({re.escape(self._mark)})+", "", whole.text))
        return [(0, start), *pairwise((start, *chain(*whole.answers), len(whole.text)))]

    def _tokens(self, text: str, stretches: Sequence[Span]) -> tuple[Tensor, list[Span]]:
        """Token ids, and the characters that each stands for."""
        ids, offsets, first = [], [], self.tokenizer.bos_token
        for index, (start, stop) in enumerate(stretches):
            # as transformers does at inference: a text-only template writes every special token, a
            # multimodal processor adds the tokenizer's own, unless the template wrote them
            written = first and text.startswith(first, start)
            tokens = self.tokenizer(
                text[start:stop],
                add_special_tokens=index == 1 and bool(self.processor) and not written,
                return_offsets_mapping=True,
                verbose=False,
            )
            ids += tokens["input_ids"]
            offsets += [(start + begin, start + end) for begin, end in tokens["offset_mapping"]]
        return torch.tensor(ids), offsets

    def _question(self, text: str) -> Tensor | None:
        if self.family.extra != "qformer_input_ids":
            return None
        return torch.tensor(self.processor.qformer_tokenizer(text, verbose=False)["input_ids"])

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
        queries = getattr(self.processor, "num_query_tokens", None)
        if queries is not None:  # InstructBLIP's, whatever the picture
            return self._mark * int(queries)
        made = self._processed(
            self.processor, path, text=[self._mark], return_text_replacement_offsets=True
        )
        return str(made["text_replacement_offsets"][0][0]["replacement"])

    def _extra(self, rows: Sequence[Row], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What else the family's models read, as their processors make it."""
        if self.family.extra == "mm_token_type_ids":  # which tokens are of an image
            image = torch.tensor(self.image_token_id)
            return {"mm_token_type_ids": torch.isin(batch["input_ids"], image).long()}
        if self.family.extra == "token_type_ids":  # which tokens are read from left to right
            return {"token_type_ids": (batch["labels"] != IGNORED).long()}
        questions = [row.question for row in rows if row.question is not None]
        if not questions:
            return {}
        return {
            "qformer_input_ids": pad(questions, self.processor.qformer_tokenizer.pad_token_id),
            "qformer_attention_mask": pad([torch.ones_like(ids) for ids in questions], 0),
        }

    def _pixels_of(self, path: Path) -> dict[str, Tensor]:
        return dict(self._processed(self.processor.image_processor, path, return_tensors="pt"))

    def _processed(self, processor: Any, path: Path, **wanted: Any) -> Any:
        """A picture as the checkpoint's processor prepares it."""
        image = open_image(path)
        try:
            return processor(images=[image], **wanted)
        except ValueError as error:  # Qwen's takes none that is 200 times as long as wide
            raise DataError(f"{path}: its processor refuses it: {error}") from error


@contextmanager
def _naming(sample: Sample) -> Iterator[None]:
    """Put the sample's name before an error's words."""
    try:
        yield
    except DataError as error:
        raise DataError(f"sample {sample.id}: {error}") from error


def _ignore(ids: Tensor, number: int) -> Tensor:
    """Labels of all but the first tokens."""
    return torch.cat([ids.new_full((number,), IGNORED), ids[number:]])


def _num_bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _num_shared(left: Tensor, right: Tensor) -> int:
    pairs = zip(left.tolist(), right.tolist(), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
