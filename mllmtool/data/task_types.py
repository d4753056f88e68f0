"""Which types of tasks there are, and the metrics that a task of each type may name.

The names are a vocabulary for task files; what they mean is in `metrics.scores`.
"""

from typing import Literal

TaskType = Literal["mcq", "vqa", "caption", "exact", "chart", "doc", "ocr", "text"]
ChoiceForm = Literal["letter", "text"]  # how an option is chosen
AnswerForm = Literal["letter", "text", "open"]
MetricName = Literal[
    "mcq_lenient",
    "mcq_paper",
    "text_exact",
    "likelihood",
    "likelihood_byte",
    "format_fail",
    "mischoice",
    "mischoice_of_wrong",
    "vqa_norm",
    "vqa_official",
    "textvqa_m4c",
    "vqa_simple",
    "em",
    "em_norm",
    "contains",
    "cider",
    "bleu_1",
    "bleu_2",
    "bleu_3",
    "bleu_4",
    "rouge_l",
    "relaxed",
    "relaxed_clean",
    "relaxed_years",
    "anls",
    "ocr_contains",
    "cer",
    "wer",
    "domain_rs",
    "domain_med",
    "domain_ad",
    "domain_sci",
    "domain_fin",
]

CHOICES: dict[ChoiceForm, tuple[MetricName, ...]] = {
    "letter": (
        "mcq_lenient",
        "mcq_paper",
        "likelihood",
        "format_fail",
        "mischoice",
        "mischoice_of_wrong",
    ),
    "text": (
        "text_exact",
        "likelihood",
        "likelihood_byte",
        "format_fail",
        "mischoice",
        "mischoice_of_wrong",
    ),
}
OPEN: dict[TaskType, tuple[MetricName, ...]] = {
    "vqa": ("vqa_norm", "vqa_official", "textvqa_m4c", "vqa_simple", "format_fail"),
    "caption": ("cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "format_fail"),
    "exact": ("em", "em_norm", "contains", "format_fail"),
    "chart": ("relaxed", "relaxed_clean", "relaxed_years", "format_fail"),
    "doc": ("anls", "format_fail"),
    "ocr": ("ocr_contains", "cer", "wer", "format_fail"),
    "text": ("em_norm", "em", "contains", "format_fail"),
}
BESIDES: tuple[MetricName, ...] = (  # what any open task may name
    "em",
    "em_norm",
    "contains",
    "anls",
    "domain_rs",
    "domain_med",
    "domain_ad",
    "domain_sci",
    "domain_fin",
)
NO_PRIMARY: dict[MetricName, str] = {
    **dict.fromkeys(("format_fail", "mischoice", "mischoice_of_wrong"), "less of it is better"),
    **dict.fromkeys(("cer", "wer"), "less of it is better"),
    **dict.fromkeys(("bleu_1", "bleu_2", "bleu_3", "bleu_4"), "it is no mean over items"),
}
LIKELIHOODS: tuple[MetricName, ...] = ("likelihood", "likelihood_byte")  # need a model at hand


def usual_metrics(kind: TaskType, form: ChoiceForm | None) -> tuple[MetricName, ...]:
    """The metrics of a task that names none; the first is its primary."""
    return OPEN[kind] if form is None else CHOICES[form]


def allowed_metrics(kind: TaskType, form: ChoiceForm | None) -> tuple[MetricName, ...]:
    """The metrics that a task may name."""
    usual = usual_metrics(kind, form)
    return usual if form else tuple(dict.fromkeys((*usual, *BESIDES)))
