"""Caption tokens as the COCO pipeline makes them: Stanford's PTB tokenizer, lower-cased, no Java.

White space separates what the rules look at, so that a chunk's tokens are found once and
remembered: the time is linear and mostly that of splitting. Named `ptb-lite/1` in reports.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

NAME = "ptb-lite/1"
DROPPED = {
    "''",
    "'",
    "``",
    "`",
    ".",
    "?",
    "!",
    ",",
    ":",
    "-",
    "--",
    "...",
    ";",
    '"',
}  # not brackets
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
LOOKALIKES = str.maketrans(
    {
        "‘": "'", "’": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
        "…": "...", "–": "--", "—": "--", "½": "1/2", "¼": "1/4", "¾": "3/4", "\u00ad": "",
    }
)  # fmt: skip
ABBREVIATIONS = re.findall(
    r"\S+",
    """
mr mrs ms dr prof st ave jr sr inc co corp ltd vs etc no gen col lt sgt capt rev hon sen rep gov
jan feb mar apr jun jul aug sep sept oct nov dec mt ft ph.d blvd rd
""",
)
SPLIT_WORDS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
}
CLITIC = re.compile(r"(.+?)(n't|'(?:s|m|d|ll|re|ve))$")
TOKEN = re.compile(
    r"(?P<acronym>[a-z](?:\.[a-z])+\.?(?![a-z0-9]))"
    rf"|(?P<abbreviation>(?:{'|'.join(map(re.escape, ABBREVIATIONS))})\.(?!\w))"
    r"|(?P<clitic>'(?:n'|(?:s|m|d|ll|re|ve|em|cause|til)(?!\w)|\d0s))"
    r"|(?P<number>\d{1,4}/\d{1,4}(?:/\d{2,4})?(?![\d./])"
    r"|[-+]?(?:\d+(?:[:,.]\d+)*|\.\d+)(?![-.]?[^\W_]))"
    r"|(?P<word>[^\W_]+(?:[-/'&._][^\W_]+)*'?)"
    r"|(?P<dots>\.{2,})|(?P<dashes>-{2,})|(?P<mark>.)",
    re.DOTALL,
)


def caption_tokens(caption: str) -> list[str]:
    """The tokens of a caption that count."""
    found: list[str] = []
    for chunk in caption.split():
        found += _tokens(chunk)
    return found


@lru_cache(maxsize=1 << 17)
def _tokens(chunk: str) -> tuple[str, ...]:
    text = chunk.translate(LOOKALIKES).lower()
    return tuple(
        token for match in TOKEN.finditer(text) for token in _split(match) if token not in DROPPED
    )


def _split(match: re.Match[str]) -> Iterator[str]:
    text = match[0]
    if match.lastgroup == "mark":
        yield BRACKETS.get(text, text)
    elif match.lastgroup != "word":
        yield text
    elif text in SPLIT_WORDS:
        yield from SPLIT_WORDS[text]
    else:
        text = text.removesuffix("'")
        clitic = CLITIC.match(text)
        yield from clitic.groups() if clitic else (text,)
