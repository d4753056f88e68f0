"""Scores of a short text against references, the best of which counts."""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence

from mllmtool.metrics.choices import normal
from mllmtool.metrics.edits import levenshtein
from mllmtool.metrics.vqa import normalised

NEAR = 0.05  # a number within this share of the target is right
THRESHOLD = 0.5  # a similarity below counts nothing; one of just so much counts
CURRENCY = "$€£¥"
YEAR = re.compile(r"(?:1[89]|20)\d\d")
Pair = Callable[[str, str], float]


def best(score: Pair, prediction: str, references: Sequence[str]) -> float:
    """The highest score over references; a blank prediction scores nothing."""
    if not prediction.strip():
        return 0.0
    return max(score(prediction, reference) for reference in references)


def exact(prediction: str, reference: str) -> float:
    """Equal but for case, white space and a final period."""
    return float(normal(prediction) == normal(reference))


def exact_normalised(prediction: str, reference: str) -> float:
    """Equal as VQA normalises."""
    return float(normalised(prediction) == normalised(reference))


def contains(prediction: str, reference: str) -> float:
    """The reference is within the prediction, as whole words; one of a period alone never is."""
    wanted = normal(reference)
    found = re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", normal(prediction))
    return float(wanted != "" and found is not None)


def relaxed(prediction: str, reference: str) -> float:
    """A number within 5 % of the target, or the same text (ChartQA, as pix2struct reads it)."""
    return _relaxed(prediction.strip(), reference.strip())


def relaxed_clean(prediction: str, reference: str) -> float:
    """As `relaxed`, without commas in numbers and signs of currency."""
    return _relaxed(_clean(prediction), _clean(reference))


def relaxed_years(prediction: str, reference: str) -> float:
    """As `relaxed_clean`; years must be equal, for 2010 is within 5 % of 2011."""
    said, wanted = _clean(prediction), _clean(reference)
    return float(said == wanted) if YEAR.fullmatch(wanted) else _relaxed(said, wanted)


def anls(prediction: str, reference: str) -> float:
    """1 - edits / length of the longer, case and white space evened out; below one half, 0.

    Of several references the best gives average normalised Levenshtein similarity (ST-VQA).
    """
    said, wanted = _even(prediction), _even(reference)
    similarity = 1 - levenshtein(said, wanted) / max(len(said), len(wanted), 1)
    return similarity if similarity >= THRESHOLD else 0.0


def ocr_contains(prediction: str, reference: str) -> float:
    """The reference is a part of the prediction; case, width and line breaks are evened out."""
    said, wanted = (_even(unicodedata.normalize("NFKC", text)) for text in (prediction, reference))
    return float(wanted in said)


def errors(prediction: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Edits to the nearest reference, and its length; of equals, the longer."""
    found = [(levenshtein(prediction, reference), len(reference)) for reference in references]
    return min(found, key=lambda pair: (pair[0] / max(1, pair[1]), -pair[1]))


def _relaxed(said: str, wanted: str) -> float:
    number, target = _number(said), _number(wanted)
    if number is None or not target:
        return float(said.lower() == wanted.lower())
    return float(abs(number - target) <= NEAR * abs(target))


def _number(text: str) -> float | None:
    """`3`, `3.5`, `50%`; None for what is no finite number."""
    try:
        value = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _clean(text: str) -> str:
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.strip())
    return text.strip(CURRENCY).strip().removesuffix(".")


def _even(text: str) -> str:
    return " ".join(text.casefold().split())
