"""LLaVA's plainest rows as ours without parsing them again; what is said stays to the byte.

They are those that hold an id, at most one image, and then turns of `from` and `value`, spaced as
Python's `json` does it: nearly all on the hub. A quote inside a JSON string has a backslash before
it, so `{"from": "` is the beginning of a turn wherever it is found in valid JSON.
"""

import re
from collections.abc import Iterator
from itertools import chain, cycle, repeat

TURN = b'{"from": "'
HEAD = re.compile(rb'(\{"id": "[^"\\]*", )(?:"image": ("[^"\\]*"), )?"conversations": \[')
PAIR = (
    (b'human", "value": "', b'{"role": "user", "content": "'),
    (b'gpt", "value": "', b'{"role": "assistant", "content": "'),
)


def rekeyed(data: bytes) -> bytes | None:
    """A valid row of the format llava with our keys; None when it is not of the plainest."""
    start, *turns = data.split(TURN)
    head = HEAD.fullmatch(start)
    if not head or not _are_all(turns, data):
        return None
    shown = b'"images": [%b], ' % head[2] if head[2] else b""
    said = [b"".join((head[1], shown, b'"messages": ['))]
    for turn, (theirs, ours), end in zip(turns, cycle(PAIR), _ends(len(turns)), strict=False):
        if not (turn.startswith(theirs) and turn.endswith(end)):
            return None
        said.append(ours + turn[len(theirs) :])
    return b"".join(said)


def _are_all(turns: list[bytes], data: bytes) -> bool:
    """Whether the row has no other objects, and a turn no key twice."""
    return (
        data.count(b"{") == len(turns) + 1
        and data.count(b'"value"') == len(turns)
        and data.count(b'"from"') == len(turns)
    )


def _ends(count: int) -> Iterator[bytes]:
    """Of each turn but the last, and of the last."""
    return chain(repeat(b'"}, ', count - 1), (b'"}]}',))
