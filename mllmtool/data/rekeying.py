"""LLaVA's plainest rows as ours without parsing them again; what is said stays to the byte.

They are those that hold an id, at most one image, and then pairs of turns of `from` and `value`,
spaced as Python's `json` does it: nearly all on the hub. A brace begins a turn wherever it stands,
as texts with braces are left to the parser.
"""

import re

TEXT = rb'[^"\\{]*+(?:\\.[^"\\{]*+)*+"\}'
OPENINGS = (
    (b'{"from": "human", "value": "', b'{"role": "user", "content": "'),
    (b'{"from": "gpt", "value": "', b'{"role": "assistant", "content": "'),
)
PAIR = b", ".join(re.escape(theirs) + TEXT for theirs, _ in OPENINGS)
ROW = re.compile(
    rb'(\{"id": "[^"\\{]*", )(?:"image": ("[^":\\{]+"), )?'  # one with a colon may be an address
    rb'"conversations": (\[%b(?:, %b)*+\]\})' % (PAIR, PAIR)
)


def rekeyed(data: bytes) -> bytes | None:
    """A valid row of the format llava with our keys; None when it is not of the plainest."""
    found = ROW.fullmatch(data)
    if not found:
        return None
    head, image, said = found.groups()
    for theirs, ours in OPENINGS:
        said = said.replace(theirs, ours)
    return b'%b%b"messages": %b' % (head, b'"images": [%b], ' % image if image else b"", said)
