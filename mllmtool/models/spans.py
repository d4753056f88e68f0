"""A conversation as text, and the spans of characters in it that are to be learnt.

Spans are found by rendering the chat template up to each assistant turn. They are of characters:
the number of tokens of a prompt says nothing, as its last token may merge with the answer's first.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mllmtool.errors import DataError

Span = tuple[int, int]
Turn = dict[str, Any]
Template = Callable[[Sequence[Turn], bool], str]  # turns, generation prompt wanted -> text


@dataclass(frozen=True)
class Rendered:
    """Text, and where the answers are in it, each with its end token."""

    text: str
    answers: tuple[Span, ...]


def render(template: Template, turns: Sequence[Turn], ends: Sequence[str]) -> Rendered:
    """Render a conversation with the spans of its answers.

    `ends` are the texts of the tokens that may end an answer. Where the template writes none (as
    LLaVA-1.5's on the hub), the first is put after the answer, or it would never be learnt.

    Raises:
        DataError: there is no answer, or the template does not render turn after turn.
    """
    text, spans = template(turns, False), []
    for index, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        if index == 0:
            raise DataError("the first turn is an answer; a question must come before it")
        before = template(turns[:index], True)
        after = template(turns[: index + 1], False) if index + 1 < len(turns) else text
        if not (text.startswith(after) and after.startswith(before)):
            raise DataError(
                f"the chat template renders turn {index + 1} otherwise than its generation prompt,"
                " so that the answer cannot be told from the prompt"
            )
        spans.append((len(before), len(after)))
    ended = _ended(text, spans, ends)
    if not any(_words(ended.text[start:stop], ends) for start, stop in ended.answers):
        raise DataError("holds no answer to learn: no assistant turn has text")
    return ended


def _ended(text: str, spans: Sequence[Span], ends: Sequence[str]) -> Rendered:
    """Trim the white space after each answer off its span, and see that an end token closes it."""
    pieces, length, last, answers = [], 0, 0, []
    for start, stop in spans:
        answer = text[start:stop].rstrip()
        whole = answer if answer.endswith(tuple(ends)) else answer + ends[0]
        begin = length + start - last
        pieces += [text[last:start], whole]
        length, last = begin + len(whole), start + len(answer)
        answers.append((begin, length))
    return Rendered("".join([*pieces, text[last:]]), tuple(answers))


def _words(answer: str, ends: Sequence[str]) -> str:
    for end in ends:
        answer = answer.replace(end, "")
    return answer.strip()


def expand(rendered: Rendered, mark: str, images: Sequence[str]) -> Rendered:
    """Put the texts of `images` in place of the marks, in order, and move the answers along.

    Raises:
        DataError: there are not as many marks as images.
    """
    pieces = rendered.text.split(mark) if mark else [rendered.text]
    if len(pieces) != len(images) + 1:
        raise DataError(f"{len(pieces) - 1} {mark} marks after the template, {len(images)} images")
    ends, gained = [], [0]  # where each mark ends, and what all up to it add
    length = len(pieces[0])
    for piece, image in zip(pieces[1:], images, strict=True):
        ends.append(length + len(mark))
        gained.append(gained[-1] + len(image) - len(mark))
        length += len(mark) + len(piece)
    text = pieces[0] + "".join(i + p for i, p in zip(images, pieces[1:], strict=True))
    moved = tuple(
        (start + gained[bisect_right(ends, start)], stop + gained[bisect_right(ends, stop)])
        for start, stop in rendered.answers
    )
    return Rendered(text, moved)


def learnt(offsets: Sequence[Span], answers: Sequence[Span]) -> list[bool]:
    """Whether each token, by its span of characters, overlaps an answer.

    A token without characters (padding, one that the tokenizer adds) never does.
    """
    return [
        any(begin < stop and end > start for start, stop in answers) and begin < end
        for begin, end in offsets
    ]
