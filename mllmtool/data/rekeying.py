"""LLaVA's plainest rows as ours without parsing them again; what is said stays to the byte.

They are those that hold an id, at most one image, and then turns of `from` and `value`, spaced as
Python's `json` does it: nearly all on the hub. A quote inside a JSON string has a backslash before
it, so `{"from": "` is the beginning of a turn wherever it is found in valid JSON.
"""

import re
from itertools import cycle

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
    if not head or not _are_all(len(turns), data):
        return None
    said = [head[1], b'"images": [%b], ' % head[2] if head[2] else b"", b'"messages": [']
    for turn, (theirs, ours) in zip(turns, cycle(PAIR), strict=False):
        if not turn.startswith(theirs):
            return None
        said += ours, turn[len(theirs) :]
    return b"".join(said)


def _are_all(turns: int, data: bytes) -> bool:
    """Whether the only objects are turns, side by side at the end, with no key twice in one."""
    return (
        data.endswith(b'"}]}')
        and data.count(b'"}, ' + TURN) == turns - 1
        and data.count(b"{") == turns + 1
        and data.count(b'"value"') == turns
        and data.count(b'"from"') == turns
    )
