"""Rows as nearly all are, decoded into their fields; a row of any other kind is left to a parser.

A turn has a speaker and a text and no more. A decoder that knows the fields takes a third of the
time of a parser, and says no to a row with a further key: that one is parsed, and lined up here.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, field

from mllmtool.configs.mix_data import Format
from mllmtool.data.splitting import Parse, ParseMany, parsed


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


Row = Messages | Conversation
KINDS: dict[Format, tuple[type[Row], type[Row]]] = {
    "messages": (Messages, OnlyMessages),
    "llava": (Conversation, OnlyConversation),
    "sharegpt": (Conversation, OnlyConversation),
}
BRACES = frozenset(b"{}")


@cache
def parser(form: Format) -> Parse:
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


@cache
def parser_of_many(form: Format) -> ParseMany:
    """What reads rows of a format together, if each is a plain row from brace to brace."""
    if form not in KINDS:
        return lambda _: None
    decode = msgspec.json.Decoder(KINDS[form][1]).decode_lines

    def parse(rows: Sequence[bytes]) -> Sequence[Any] | None:
        try:
            if {row[0] for row in rows} | {row[-1] for row in rows} != BRACES:
                return None
            values = decode(b"\n".join(rows))
        except (msgspec.DecodeError, ValueError, IndexError):
            return None
        return values if len(values) == len(rows) else None

    return parse


def names(row: Row) -> list[str]:
    """Of its images."""
    if row.images is not UNSET:
        return row.images
    return [] if row.image is UNSET else [row.image]


def lined_up(rows: Sequence[Any], form: Format) -> Sequence[Row] | None:
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
