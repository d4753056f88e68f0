"""Which option a response chooses.

Nothing here guesses. Where no rule reads a choice there is none: a checkpoint that has lost the
answer format must not score chance, or its loss of format would pass for knowledge.
"""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LETTERS = string.ascii_uppercase
IN_PROSE = "AI"  # capitals that are also English words
MARKS = r"[\s*_`\"'“”(\[{<]*"  # what may stand between a declaration and its letter
STOP = r"\s*(?:$|[.,:;!?)\]}>*_`\"'”\n-])|\s+(?:because|since|as)\b"
JOINED = r"-\w"  # the rest of a word: in "e-mail" there is no option E
SHARED = r"\W{0,3}(?:,|/|&|\bor\b|\band\b)[\s*(\[]*[A-Z]\b"  # "A or B" is no choice
DENIED = r"\s+(?:is|was)\s+(?:not|wrong|incorrect|false)\b|\s+(?:isn't|wasn't)\b"
PROSE = {"yes", "no", "none", "true", "false"}  # options that count only as the whole answer


@dataclass(frozen=True)
class Choice:
    """The index of the chosen option and the rule that read it; both None where none did."""

    index: int | None = None
    rule: str | None = None


def lenient_choice(response: str, options: Sequence[str]) -> Choice:
    """The first rule of `RULES` that reads a choice of a letter or of an option's text."""
    text = response.strip()
    for name, rule in RULES.items():
        index = rule(text, options)
        if index is not None:
            return Choice(index, name)
    return Choice()


def exact_choice(response: str, options: Sequence[str]) -> Choice:
    """The option that the whole response equals, after `normal`."""
    said = normal(response)
    same = [index for index, option in enumerate(options) if normal(option) == said]
    return Choice(same[0], "exact") if same else Choice()


def paper_correct(response: str, letter: str) -> bool:
    """Whether what follows the last colon is the letter, or begins with it and a period.

    The matcher of the paper's code (arXiv 2603.14493), capitals ignored; other words are wrong.
    """
    said = response.rpartition(":")[2].strip().upper()
    return said == letter or said.startswith(letter + ".")


def normal(text: str) -> str:
    """Case-folded, white space collapsed, without the final period."""
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()


def _declared(text: str, options: Sequence[str]) -> int | None:
    """As in "The answer is B", "Final answer: (B)"; the last declaration counts."""
    final = _declarations(r"final\s+answer", text, options)
    found = final or _declarations(r"answer", text, options)
    return found[-1] if found else None


def _declarations(what: str, text: str, options: Sequence[str]) -> list[int]:
    pattern = rf"\b{what}{MARKS}(?:\bis\b\s*:?|:|=){MARKS}(?:(?:option|choice|letter)\b{MARKS})?"
    found = [
        _letter(text[match.end() :], options) for match in re.finditer(pattern, text, re.IGNORECASE)
    ]
    return [index for index in found if index is not None]


def _leading(text: str, options: Sequence[str]) -> int | None:
    """As in "B", "(b)", "B. sneaker", "B sneaker", at the start."""
    return _letter(re.sub(rf"^{MARKS}", "", text), options)


def _bracketed(text: str, options: Sequence[str]) -> int | None:
    """One letter in brackets, "... (B) ...", and no other."""
    found = {match[1] for match in re.finditer(rf"[(\[{{]({_alphabet(options)})[)\]}}]", text)}
    return LETTERS.index(found.pop()) if len(found) == 1 else None


def _alone(text: str, options: Sequence[str]) -> int | None:
    """One capital that stands alone, and no other; "A" and "I" in prose do not count."""
    alphabet = _alphabet(options)
    if re.search(rf"\b{alphabet}{SHARED}", text):
        return None
    named = re.findall(rf"(?i:\b(?:option|choice|letter)\s+)({alphabet})\b(?!{DENIED})", text)
    apart = r"(?<![\w'])(?<!\w-)(?<!not )"
    plain = re.findall(rf"{apart}({alphabet})(?![\w']|{JOINED})(?!{DENIED})", text)
    ending = re.findall(rf"{apart}([{IN_PROSE}])(?=\W*$)", text)
    found = {letter for letter in plain if letter not in IN_PROSE}
    found |= {letter for letter in (*named, *ending) if letter in LETTERS[: len(options)]}
    return LETTERS.index(found.pop()) if len(found) == 1 else None


def _option_text(text: str, options: Sequence[str]) -> int | None:
    """The text of one option, whole words, and of no other; within a longer one it is not seen."""
    said = " ".join(text.casefold().split())
    spans = [
        (match.start(), match.end(), index)
        for index, option in enumerate(options)
        for match in re.finditer(_words(normal(option)), said)
    ]
    outer = {
        index
        for start, end, index in spans
        if not any(a <= start and end <= b and (a, b) != (start, end) for a, b, _ in spans)
    }
    return outer.pop() if len(outer) == 1 else None


RULES: dict[str, Callable[[str, Sequence[str]], int | None]] = {
    "declared": _declared,
    "leading": _leading,
    "bracketed": _bracketed,
    "alone": _alone,
    "option_text": _option_text,
}


def _letter(text: str, options: Sequence[str]) -> int | None:
    """The letter that `text` begins with, if it stands for an option and for one only."""
    match = re.match(rf"({_alphabet(options)})(?!\w)(?!{DENIED})(?!{SHARED})", text, re.IGNORECASE)
    if match is None:
        return None
    letter, rest = match[1], text[match.end() :]
    index = LETTERS.index(letter.upper())
    stops = re.match(STOP, rest) is not None
    prose = letter.islower() or letter in IN_PROSE
    repeats = normal(rest.removeprefix("-")).startswith(normal(options[index]))
    joined = re.match(JOINED, rest) is not None
    return index if repeats or (not joined and (stops or not prose)) else None


def _alphabet(options: Sequence[str]) -> str:
    return f"[A-{LETTERS[len(options) - 1]}]"


def _words(option: str) -> str:
    if option in PROSE or len(option) == 1:
        return rf"^{re.escape(option)}(?=\s*(?:$|[.,;:!]))"
    return rf"(?<!not )(?<!not a )(?<!not an )(?<!not the )(?<!\w){re.escape(option)}(?!\w)"
