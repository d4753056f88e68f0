"""Rows as nearly all are, decoded into their fields; a row of any other kind is left to a parser.

A turn has a speaker and a text and no more. A decoder that knows the fields takes a third of the
time of a parser, and says no to a row with a further key: that one is parsed, and lined up here.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, field

from mllmtool.configs.mix_data import Format
from mllmtool.data.splitting import parsed


class Turn(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Of messages."""

    speaker: str = field(name="role")
    text: str = field(name="content")


class Spoken(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Of a conversation."""

    speaker: str = field(name="from")
    text: str = field(name="value")


class Plain(msgspec.Struct, gc=False):
    """What is looked at of a row but its turns; all that stands beside them must be text or list.

    Further keys are let through, so that a parsed row with some is still a plain one.
    """

    id: Any = None
    images: list[str] | UnsetType = UNSET
    image: str | UnsetType = UNSET
    system: Any = UNSET
    mix: Any = field(name="_mix", default=UNSET)


class Messages(Plain, gc=False, kw_only=True):
    """A plain row of messages."""

    turns: list[Turn] = field(name="messages")


class Conversation(Plain, gc=False, kw_only=True):
    """A plain row of a conversation."""

    turns: list[Spoken] = field(name="conversations")


class OnlyMessages(Messages, gc=False, forbid_unknown_fields=True):
    """The same without further keys."""


class OnlyConversation(Conversation, gc=False, forbid_unknown_fields=True):
    """The same without further keys."""


KINDS: dict[Format, tuple[type[Plain], type[Plain]]] = {
    "messages": (Messages, OnlyMessages),
    "llava": (Conversation, OnlyConversation),
    "sharegpt": (Conversation, OnlyConversation),
}


@cache
def parser(form: Format) -> Callable[[bytes], Any]:
    """What reads a row of a format: a plain row, else what its JSON says, None if it is none."""
    if form not in KINDS:
        return parsed
    decode = msgspec.json.Decoder(KINDS[form][1]).decode

    def parse(data: bytes) -> Any:
        try:
            return decode(data)
        except (msgspec.DecodeError, ValueError):
            return parsed(data)

    return parse


def names(row: Plain) -> list[str]:
    """Of its images."""
    if row.images is not UNSET:
        return row.images
    return [] if row.image is UNSET else [row.image]


def lined_up(rows: Sequence[Any], form: Format) -> Sequence[Plain] | None:
    """Parsed rows as plain ones; None when one cannot be."""
    if form not in KINDS:
        return None
    kind, only = KINDS[form]
    if set(map(type, rows)) == {only}:
        return rows
    try:
        return [row if type(row) is only else msgspec.convert(row, kind) for row in rows]
    except msgspec.ValidationError:
        return None
