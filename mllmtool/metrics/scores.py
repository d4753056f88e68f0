"""Scores of answered questions, by the names that task files use.

A metric makes a row of numbers of each item, and its value of their sums: for most the row is one
score and the value their mean. So every metric can be resampled, also those that are no means.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from mllmtool.data.items import NO_OPTION
from mllmtool.data.task_types import AnswerForm, MetricName
from mllmtool.metrics import domains, texts, vqa
from mllmtool.metrics.captions import SCALE, bleu, bleu_statistics, cider_d, rouge_l
from mllmtool.metrics.choices import LETTERS, Choice, exact_choice, lenient_choice, paper_correct

Array = NDArray[np.float64]
Rows = Callable[[Sequence["Answered"]], Array]


@dataclass(frozen=True)
class Answered:
    """A question with what a checkpoint made of it.

    `logprobs` are natural logarithms, one an option: of the option's letter, or of the option's
    text summed over its tokens. Open questions have `references` and no options; `distractor` is
    the option that names the image's class and is wrong.
    """

    form: AnswerForm
    options: tuple[str, ...]
    answer: int
    response: str
    logprobs: tuple[float, ...]
    references: tuple[str, ...] = ()
    question: str = ""
    distractor: int | None = None

    @cached_property
    def chosen(self) -> Choice:
        """The option that the response chooses."""
        if self.form == "open":
            return Choice()
        read = lenient_choice if self.form == "letter" else exact_choice
        return read(self.response, self.options)

    @property
    def likeliest(self) -> int:
        """The option of the highest log-probability; the first of equals."""
        return max(range(len(self.logprobs)), key=self.logprobs.__getitem__, default=NO_OPTION)


@dataclass(frozen=True)
class Metric:
    """What is computed of each item, (items, k), and the value of the sums, (..., k), of many.

    `scale` is the highest value; `binary` says that every item scores 0 or 1.
    """

    rows: Rows
    value: Callable[[Array, Array], Array]
    sentence: str
    scale: float = 1.0
    binary: bool = False

    @property
    def is_mean(self) -> bool:
        """Whether the value is the mean of one score of each item."""
        return self.value is _mean

    def of(self, answered: Sequence[Answered]) -> float | None:
        """The value over all items; None where none of them is of its kind."""
        return self.of_rows(self.rows(answered))

    def of_rows(self, rows: Array) -> float | None:
        """As `of`, from the rows of the items."""
        with np.errstate(invalid="ignore"):
            value = float(self.value(rows.sum(0), np.array(float(len(rows)))))
        return None if np.isnan(value) else value


def _mean(sums: Array, total: Array) -> Array:
    return sums[..., 0] / total


def _ratio(sums: Array, _total: Array) -> Array:
    """Of the first sum to the second; NaN where that is 0."""
    return sums[..., 0] / sums[..., 1]


def _each(score: Callable[[Answered], float], sentence: str, binary: bool = False) -> Metric:
    """A metric that is the mean of a score of one item."""

    def rows(answered: Sequence[Answered]) -> Array:
        return np.array([[score(one)] for one in answered], dtype=np.float64)

    return Metric(rows, _mean, sentence, binary=binary)


def _share(score: Callable[[Answered], bool], sentence: str) -> Metric:
    return _each(lambda one: float(score(one)), sentence, binary=True)


def _best(score: texts.Pair, sentence: str, binary: bool = True) -> Metric:
    """The mean of the best score over the references of an item."""
    return _each(lambda one: texts.best(score, one.response, one.references), sentence, binary)


def _vqa(score: Callable[[str, Sequence[str]], float], sentence: str) -> Metric:
    return _each(lambda one: score(one.response, one.references), sentence)


def _pairs(answered: Sequence[Answered]) -> tuple[list[str], list[tuple[str, ...]]]:
    return [one.response for one in answered], [one.references for one in answered]


def _cider(answered: Sequence[Answered]) -> Array:
    return cider_d(*_pairs(answered))[:, None]


def _bleu_rows(answered: Sequence[Answered]) -> Array:
    return bleu_statistics(*_pairs(answered))


def _bleu(order: int) -> Metric:
    return Metric(
        _bleu_rows,
        lambda sums, _total: bleu(sums, order),
        f"BLEU-{order} of the whole task, from its summed counts, against the nearest length",
    )


def _mischosen(answered: Sequence[Answered], among_wrong: bool) -> Array:
    """Whether an item's class was chosen, and whether it could be: (items, 2)."""
    asked = [
        one.distractor is not None and (not among_wrong or one.chosen.index != one.answer)
        for one in answered
    ]
    return np.array(
        [
            [has and one.chosen.index == one.distractor, has]
            for one, has in zip(answered, asked, strict=True)
        ],
        dtype=np.float64,
    )


def _errors(cut: Callable[[str], Sequence[str]]) -> Callable[[Sequence[Answered]], Array]:
    def rows(answered: Sequence[Answered]) -> Array:
        return np.array(
            [
                texts.errors(cut(one.response), [cut(text) for text in one.references])
                for one in answered
            ],
            dtype=np.float64,
        )

    return rows


def _characters(text: str) -> str:
    return " ".join(text.split())


def _by_byte(one: Answered) -> bool:
    lengths = [max(1, len(option.encode())) for option in one.options]
    rates = [score / length for score, length in zip(one.logprobs, lengths, strict=True)]
    return rates.index(max(rates)) == one.answer


def _unread(one: Answered) -> bool:
    return not one.response.strip() if one.form == "open" else one.chosen.index is None


def _science(one: Answered) -> float:
    def score(said: str, wanted: str) -> float:
        return domains.science(said, wanted, one.question)

    return texts.best(score, one.response, one.references)


METRICS: dict[MetricName, Metric] = {
    "mcq_lenient": _share(
        lambda one: one.chosen.index == one.answer,
        "share of responses from which ordered rules read the right option; no reading is wrong",
    ),
    "mcq_paper": _share(
        lambda one: paper_correct(one.response, LETTERS[one.answer]),
        "share of responses that are the right letter, or begin with it and a period",
    ),
    "text_exact": _share(
        lambda one: one.chosen.index == one.answer,
        "share of responses that equal the right option but for case, white space and final period",
    ),
    "likelihood": _share(
        lambda one: one.likeliest == one.answer,
        "share of items whose right option has the highest log-probability among the options",
    ),
    "likelihood_byte": _share(
        _by_byte,
        "as likelihood, of the log-probability by byte of the option's text",
    ),
    "format_fail": _share(_unread, "share of responses from which no option could be read"),
    "mischoice": Metric(
        partial(_mischosen, among_wrong=False),
        _ratio,
        "share of responses that choose the image's class name, where that is a wrong option",
    ),
    "mischoice_of_wrong": Metric(
        partial(_mischosen, among_wrong=True),
        _ratio,
        "share of the wrong responses that choose the image's class name, where that is an option",
    ),
    "vqa_norm": _vqa(
        lambda said, right: vqa.vqa_accuracy(said, right, vqa.normalised),
        "VQA accuracy, min(1, matches / 3) averaged over leaving each reference out; texts are"
        " always normalised",
    ),
    "vqa_official": _vqa(
        vqa.official_accuracy,
        "VQA accuracy as the official code: texts are normalised only where references differ",
    ),
    "textvqa_m4c": _vqa(
        lambda said, right: vqa.vqa_accuracy(said, right, vqa.normalised_m4c),
        "VQA accuracy, texts normalised as the TextVQA evaluation does",
    ),
    "vqa_simple": _vqa(
        vqa.simple_accuracy, "min(1, matches / 3), which is not the official VQA accuracy"
    ),
    "em": _best(texts.exact, "share of responses that equal a reference but for case and period"),
    "em_norm": _best(
        texts.exact_normalised, "share of responses that equal a reference as VQA normalises"
    ),
    "contains": _best(texts.contains, "share of responses that hold a reference as whole words"),
    "cider": Metric(
        _cider,
        _mean,
        "CIDEr-D on tokens of ptb-lite/1, raw (papers print it times 100), document frequencies"
        " from the task's references",
        scale=SCALE,
    ),
    "bleu_1": _bleu(1),
    "bleu_2": _bleu(2),
    "bleu_3": _bleu(3),
    "bleu_4": _bleu(4),
    "rouge_l": _each(
        lambda one: rouge_l(one.response, one.references),
        "ROUGE-L, F of the best precision and the best recall at beta 1.2",
    ),
    "relaxed": _best(
        texts.relaxed, "share of responses within 5 % of a number, or equal to a text (ChartQA)"
    ),
    "relaxed_clean": _best(
        texts.relaxed_clean, "as relaxed, without commas in numbers and signs of currency"
    ),
    "relaxed_years": _best(texts.relaxed_years, "as relaxed_clean, but years must be equal"),
    "anls": _best(
        texts.anls,
        "average normalised Levenshtein similarity, 0 where below one half",
        binary=False,
    ),
    "ocr_contains": _best(texts.ocr_contains, "share of responses that hold a reference anywhere"),
    "cer": Metric(
        _errors(_characters), _ratio, "edited characters over characters of the references"
    ),
    "wer": Metric(_errors(str.split), _ratio, "edited words over words of the references"),
    "domain_rs": _best(
        domains.remote_sensing, "the continual benchmark's matcher of remote sensing"
    ),
    "domain_med": _best(domains.medical, "the continual benchmark's matcher of medicine"),
    "domain_ad": _best(domains.remote_sensing, "the continual benchmark's matcher of driving"),
    "domain_sci": _each(_science, "the continual benchmark's matcher of science"),
    "domain_fin": _best(domains.finance, "the continual benchmark's matcher of finance"),
}


def agreement(answered: Sequence[Answered]) -> float | None:
    """Share of items whose response chooses the likeliest option; None without likelihoods.

    Where likelihood keeps its accuracy and agreement falls, it is the answer format that was
    forgotten, not the knowledge.
    """
    if not all(one.logprobs for one in answered):
        return None
    return sum(one.chosen.index == one.likeliest for one in answered) / len(answered)


def letter_histogram(answered: Sequence[Answered]) -> dict[str, int]:
    """How often each letter was chosen; `null` where no choice could be read."""
    counts = dict.fromkeys([*LETTERS[: max(len(one.options) for one in answered)], "null"], 0)
    for one in answered:
        counts["null" if one.chosen.index is None else LETTERS[one.chosen.index]] += 1
    return counts


def letter_bias(answered: Sequence[Answered]) -> float | None:
    """P-value of chi-squared: the letters read are distributed as the right letters are.

    None where fewer than two letters are right anywhere, or none was read.
    """
    right = np.bincount([one.answer for one in answered])
    said = [one.chosen.index for one in answered if one.chosen.index is not None]
    seen = np.flatnonzero(right)
    read = np.array([said.count(int(letter)) for letter in seen])
    if len(seen) < 2 or not read.sum():
        return None
    expected = right[seen] * (read.sum() / right[seen].sum())
    statistic = float((np.square(read - expected) / expected).sum())
    return float(chdtrc(len(seen) - 1, statistic))
