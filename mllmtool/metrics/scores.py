"""Scores of one answered question, 0 to 1. The mean over a task's items is the task's score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mllmtool.data.suites import AnswerForm
from mllmtool.metrics.choices import LETTERS, Choice, exact_choice, lenient_choice, paper_correct

MetricName = Literal["mcq_lenient", "mcq_paper", "text_exact", "likelihood", "format_fail"]


@dataclass(frozen=True)
class Answered:
    """A question with what a checkpoint made of it.

    `logprobs` are natural logarithms, one an option: of the option's letter, or of the option's
    text summed over its tokens.
    """

    form: AnswerForm
    options: tuple[str, ...]
    answer: int
    response: str
    logprobs: tuple[float, ...]

    @cached_property
    def chosen(self) -> Choice:
        """The option that the response chooses."""
        read = lenient_choice if self.form == "letter" else exact_choice
        return read(self.response, self.options)

    @property
    def likeliest(self) -> int:
        """The option of the highest log-probability; the first of equals."""
        return max(range(len(self.logprobs)), key=self.logprobs.__getitem__)


@dataclass(frozen=True)
class Metric:
    """A score, the answer forms that it is defined for, and what it says in one sentence."""

    score: Callable[[Answered], float]
    forms: tuple[AnswerForm, ...]
    sentence: str


def _chosen(answered: Answered) -> float:
    return float(answered.chosen.index == answered.answer)


def _paper(answered: Answered) -> float:
    return float(paper_correct(answered.response, LETTERS[answered.answer]))


def _likelihood(answered: Answered) -> float:
    return float(answered.likeliest == answered.answer)


def _format_fail(answered: Answered) -> float:
    return float(answered.chosen.index is None)


METRICS: dict[MetricName, Metric] = {
    "mcq_lenient": Metric(
        _chosen,
        ("letter",),
        "share of responses from which ordered rules read the right option; no reading is wrong",
    ),
    "mcq_paper": Metric(
        _paper,
        ("letter",),
        "share of responses that are the right letter, or begin with it and a period",
    ),
    "text_exact": Metric(
        _chosen,
        ("text",),
        "share of responses that equal the right option but for case, white space and final period",
    ),
    "likelihood": Metric(
        _likelihood,
        ("letter", "text"),
        "share of items whose right option has the highest log-probability among the options",
    ),
    "format_fail": Metric(
        _format_fail,
        ("letter", "text"),
        "share of responses from which no option could be read",
    ),
}
PRIMARY: dict[AnswerForm, MetricName] = {"letter": "mcq_lenient", "text": "text_exact"}


def agreement(answered: Sequence[Answered]) -> float:
    """Share of items whose response chooses the likeliest option.

    Where likelihood keeps its accuracy and agreement falls, it is the answer format that was
    forgotten, not the knowledge.
    """
    return sum(one.chosen.index == one.likeliest for one in answered) / len(answered)


def letter_histogram(answered: Sequence[Answered]) -> dict[str, int]:
    """How often each letter was chosen; `null` where no choice could be read."""
    counts = dict.fromkeys([*LETTERS[: max(len(one.options) for one in answered)], "null"], 0)
    for one in answered:
        counts["null" if one.chosen.index is None else LETTERS[one.chosen.index]] += 1
    return counts
