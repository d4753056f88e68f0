"""LLaVA's plainest rows as ours without parsing them again; what is said stays to the byte.

They are those that hold an id, at most one image, and then pairs of turns of `from` and `value`,
spaced as Python's `json` does it: nearly all on the hub. Texts with braces are left to the parser.
"""

import re

OPENINGS = (
    (b'{"from": "human", "value": "', b'{"role": "user", "content": "'),
    (b'{"from": "gpt", "value": "', b'{"role": "assistant", "content": "'),
)
LONGER = sum(len(ours) - len(theirs) for theirs, ours in OPENINGS)


def _row(text: bytes) -> re.Pattern[bytes]:
    pair = b", ".join(re.escape(theirs) + text + rb'"\}' for theirs, _ in OPENINGS)
    return re.compile(
        rb'(\{"id": "[^"\\{]*", )(?:"image": ("[^":\\{]+"), )?'  # a colon: maybe an address
        rb'"conversations": (\[%b(?:, %b)*+\]\})' % (pair, pair)
    )


ROW = _row(rb'[^"\\{]*+(?:\\.[^"\\{]*+)*+')
UNQUOTED = _row(rb'[^"]*+')  # no text holds a quote; found in a third of the time


def rekeyed(data: bytes) -> bytes | None:
    """A valid row of the format llava with our keys; None when it is not of the plainest."""
    found = UNQUOTED.fullmatch(data) or ROW.fullmatch(data)
    if not found:
        return None
    head, image, said = found.groups()
    braces, length = said.count(b"{"), len(said)
    for theirs, ours in OPENINGS:
        said = said.replace(theirs, ours)
    if 2 * (len(said) - length) != braces * LONGER:  # a brace begins no turn
        return None
    return b'%b%b"messages": %b' % (head, b'"images": [%b], ' % image if image else b"", said)
