"""Options of questions in strips: the tokens of several, one behind the other, read in one pass.

A strip follows the prompt of its row. Its options do not see one another, and each has the
positions that it would have alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mllmtool.evaluation.questions import Question

TOKENS = 1024  # of a pass, at most: logits take tokens times the vocabulary
PADDING = -1


@dataclass(frozen=True)
class Strip:
    """Options of the question in a row: their places among all, and their tokens."""

    row: int
    options: tuple[int, ...]
    tokens: tuple[Tensor, ...]

    @property
    def num_read(self) -> int:
        """How many tokens are read: all of each option but its last."""
        return sum(len(ids) - 1 for ids in self.tokens)


@dataclass(frozen=True)
class Packed:
    """Strips as tensors, all (strips, longest).

    `inputs` are the tokens read, `targets` those that follow each. `ahead` counts the tokens of an
    option from 0, `option` tells a strip's options apart and is `PADDING` behind the last.
    """

    inputs: Tensor
    targets: Tensor
    ahead: Tensor
    option: Tensor

    def seen(self, prompts: Tensor) -> Tensor:
        """Which tokens each sees: its prompt's, by their mask, and its option's up to itself.

        (strips, 1, longest, tokens of the prompts + longest), truth values.
        """
        longest = self.inputs.shape[1]
        own = self.option[:, :, None] == self.option[:, None, :]
        before = prompts.bool()[:, None].expand(-1, longest, -1)
        return torch.cat([before, own.tril()], -1)[:, None]


def passes(questions: Sequence[Question]) -> Iterator[list[Strip]]:
    """Strips of every option of more than one token, as many at once as a pass may read."""
    chosen: list[Strip] = []
    longest = 0
    for strip in (strip for row, question in enumerate(questions) for strip in _cut(row, question)):
        longest = max(longest, strip.num_read)
        if chosen and longest * (len(chosen) + 1) > TOKENS:
            yield chosen
            chosen, longest = [], strip.num_read
        chosen.append(strip)
    if chosen:
        yield chosen


def pack(strips: Sequence[Strip], device: torch.device) -> Packed:
    """Lay strips out, the shorter ones filled up behind."""

    def filled(rows: list[list[Tensor]], value: int) -> Tensor:
        joined = [torch.cat(row) for row in rows]
        return pad_sequence(joined, batch_first=True, padding_value=value).to(device)

    return Packed(
        inputs=filled([[ids[:-1] for ids in strip.tokens] for strip in strips], 0),
        targets=filled([[ids[1:] for ids in strip.tokens] for strip in strips], 0),
        ahead=filled([[torch.arange(len(t) - 1) for t in strip.tokens] for strip in strips], 0),
        option=filled(
            [
                [torch.full((len(ids) - 1,), place) for place, ids in enumerate(strip.tokens)]
                for strip in strips
            ],
            PADDING,
        ),
    )


def _cut(row: int, question: Question) -> Iterator[Strip]:
    """The longer options of a question in strips that a pass may hold."""
    chosen: list[int] = []
    length = 0
    for option, ids in enumerate(question.continuations):
        if len(ids) == 1:
            continue
        if chosen and length + len(ids) - 1 > TOKENS:
            yield _strip(row, question, chosen)
            chosen, length = [], 0
        chosen.append(option)
        length += len(ids) - 1
    if chosen:
        yield _strip(row, question, chosen)


def _strip(row: int, question: Question, options: Sequence[int]) -> Strip:
    return Strip(row, tuple(options), tuple(question.continuations[option] for option in options))
