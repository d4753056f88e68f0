"""VQA accuracy under the three normalisations in use, which give different numbers.

Transcribed as rules, not as code, from GT-Vision-Lab/VQA and the TextVQA evaluation.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache

MARKS = ';/[]"{}()=+\\_-><@`,?!'
COMMA_IN_NUMBER = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
PERIODS = 32  # so many are deleted: a flag is passed as the count in the original
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_WORDS = {"none": "0", **{word: str(number) for number, word in enumerate(NUMBERS)}}
ARTICLES = {"a", "an", "the"}
CONTRACTIONS = re.findall(
    r"\S+",
    """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""",
)
RESTORED: dict[str, str] = {
    word[:place] + word[place + 1 :]: word
    for word in CONTRACTIONS
    for place, mark in enumerate(word)
    if mark == "'"
} | {"somebody'd": "somebodyd"}  # as the original has it
Normal = Callable[[str], str]


def soft_accuracy(matches: int, total: int) -> float:
    """min(1, matches / 3), averaged over leaving each of the references out.

    Of `total` references so many equal the prediction. A single reference must be matched.
    """
    if total == 1:
        return float(matches)
    others = (total - matches) * min(1.0, matches / 3)
    return (matches * min(1.0, (matches - 1) / 3) + others) / total if matches else 0.0


def vqa_accuracy(prediction: str, references: Sequence[str], normal: Normal) -> float:
    """The soft accuracy after `normal`; a blank prediction is wrong, though articles vanish too."""
    return soft_accuracy(*_matches(prediction, references, normal))


def simple_accuracy(prediction: str, references: Sequence[str]) -> float:
    """min(1, matches / 3), which is often quoted and is not the official score."""
    matches, total = _matches(prediction, references, normalised)
    return float(matches) if total == 1 else min(1.0, matches / 3)


def official_accuracy(prediction: str, references: Sequence[str]) -> float:
    """As the official code: texts are left as they are where all references are alike."""
    alike = len({_plain(text) for text in references}) == 1
    return vqa_accuracy(prediction, references, _plain if alike else normalised)


@cache
def normalised(text: str) -> str:
    """Punctuation, case, number words, articles and contractions evened out."""
    return " ".join(map(_word, _without_articles(_without_marks(_plain(text)))))


def normalised_m4c(text: str) -> str:
    """As the TextVQA evaluation: commas, question marks and 's are dealt with first."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalised(text)


def _matches(prediction: str, references: Sequence[str], normal: Normal) -> tuple[int, int]:
    if not prediction.strip():
        return 0, len(references)
    said = normal(prediction)
    return sum(normal(text) == said for text in references), len(references)


def _plain(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_marks(text: str) -> str:
    """Marks beside a space vanish, others become one; a comma in a number makes all vanish."""
    number = COMMA_IN_NUMBER.search(text) is not None
    out = text
    for mark in MARKS:
        beside = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside or number else " ")
    return PERIOD.sub("", out, count=PERIODS)


def _without_articles(text: str) -> list[str]:
    words = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return [word for word in words if word not in ARTICLES]


def _word(word: str) -> str:
    return RESTORED.get(word, word)
