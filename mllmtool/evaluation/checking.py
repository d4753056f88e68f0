"""Whether the fast way of reading gives what the model itself would, on a few questions."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from mllmtool.evaluation.inference import Reader
from mllmtool.evaluation.questions import Question, groups

QUESTIONS = 8  # that are compared, spread over the suite, the longest among them
OPTIONS = 4  # of a question, at most
TOLERANCES = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # a token


def misread(reader: Reader, questions: Sequence[Question], size: int) -> str:
    """How the fast way differs from whole forward passes of one sequence; empty if it does not."""
    chosen = [_few(question) for question in _spread(questions)]
    try:
        found = {
            question.place: prediction.logprobs
            for group in groups(chosen, size)
            for question, prediction in reader.answer(group)
        }
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        return f"it fails ({' '.join(str(error).split())})"
    tolerance = TOLERANCES[next(reader.model.parameters()).dtype]
    for question in chosen:
        pairs = zip(found[question.place], reader.score(question), strict=True)
        for ids, (fast, whole) in zip(question.continuations, pairs, strict=True):
            if abs(fast - whole) > tolerance * len(ids):
                return f"{question.item}: {fast:.4f} is {whole:.4f} by a whole forward pass"
    return ""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch says so, on whatever device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _spread(questions: Sequence[Question]) -> list[Question]:
    """Some of every length, the longest among them."""
    ordered = sorted(questions, key=lambda q: (len(q.prompt.ids), q.task, q.item), reverse=True)
    return ordered[:: -(-len(ordered) // QUESTIONS)]


def _few(question: Question) -> Question:
    """The question with its longest options alone, and without a response.

    Where it has none, the prompt's own last words are one.
    """
    options = question.continuations or (question.prompt.ids[-2:],)
    longest = sorted(options, key=len, reverse=True)[:OPTIONS]
    return replace(question, continuations=tuple(longest), max_new_tokens=0)
