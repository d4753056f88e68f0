"""The fast path against plain loops: one item at a time, whole sequences, no cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from suite_factory import colour_suite, text_suite

from mllmtool.data.suites import Task, read_suite
from mllmtool.errors import NumericError
from mllmtool.evaluation.inference import Reader
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.questions import encode, groups
from mllmtool.models.encoding import IGNORED, Encoder
from mllmtool.models.loading import load_model

Found = dict[tuple[str, str], Prediction]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, ...]:
    return read_suite(colour_suite(tmp_path_factory.mktemp("colour"), number=7)).tasks


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, ...]:
    return read_suite(text_suite(tmp_path_factory.mktemp("text"), number=7)).tasks


def answers(model: Any, encoder: Encoder, tasks: Sequence[Task], size: int) -> Found:
    questions = [question for task in tasks for question in encode(task, encoder)]
    reader = Reader(model, encoder)
    return {
        (question.task, question.item): prediction
        for group in groups(questions, size)
        for question, prediction in reader.answer(group)
    }


@torch.no_grad()
def theirs_logprobs(model: Any, encoder: Encoder, task: Task, place: int) -> list[float]:
    """Each option in its own whole forward pass."""
    item, scores = task.items[place], []
    for row in encoder.option_rows(task.sample(item), task.answers(item), task.root):
        batch = encoder.batch([row])
        labels = batch.pop("labels")[0]
        logprobs = model(**batch).logits[0].log_softmax(-1)
        scores.append(
            sum(
                float(logprobs[n - 1, token])
                for n, token in enumerate(labels.tolist())
                if token != IGNORED
            )
        )
    return scores


def theirs_response(model: Any, encoder: Encoder, task: Task, place: int, ends: list[int]) -> str:
    batch = encoder.prompt_batch([task.sample(task.items[place])], task.root)
    made = model.generate(
        **batch, do_sample=False, max_new_tokens=task.file.max_new_tokens, eos_token_id=ends
    )
    tokens = made[0, batch["input_ids"].shape[1] :].tolist()
    cut = next((n for n, token in enumerate(tokens) if token in ends), len(tokens))
    return encoder.decode(tokens[:cut])


@pytest.mark.parametrize("kind", ["llava", "llama"])
def test_options_are_scored_as_by_whole_forward_passes(
    kind: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(kind)
    tasks = request.getfixturevalue("tasks" if kind == "llava" else "texts")
    model, encoder = load_model(path), Encoder.load(path)
    found = answers(model, encoder, tasks, size=5)
    lengths = set()
    for task in tasks:
        for place, item in enumerate(task.items):
            ours = found[task.name, item.id].logprobs
            theirs = theirs_logprobs(model, encoder, task, place)
            assert ours == pytest.approx(theirs, abs=5e-5), (task.name, item.id)
        lengths |= {len(ids) for q in encode(task, encoder) for ids in q.continuations}
    assert {1, 2} < lengths  # options of one token and of several were scored


@pytest.mark.parametrize("kind", ["llava", "llama"])
def test_responses_are_those_of_generate(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    tasks = request.getfixturevalue("tasks" if kind == "llava" else "texts")
    model, encoder = load_model(path), Encoder.load(path)
    free = answers(model, encoder, tasks, size=4).values()
    said = [encoder.tokenizer.encode(one.response, add_special_tokens=False) for one in free]
    second = [row[1] for row in said if len(row) > 1]
    often = max(second, key=second.count)
    encoder.ends = (*encoder.ends, encoder.tokenizer.convert_ids_to_tokens(often))
    ends = [encoder.tokenizer.convert_tokens_to_ids(end) for end in encoder.ends]
    found = answers(model, encoder, tasks, size=4)
    for task in tasks:
        for place, item in enumerate(task.items):
            ours = found[task.name, item.id]
            assert ours.response == theirs_response(model, encoder, task, place, ends)
    assert {one.finish for one in found.values()} == {"end", "length"}


def test_batches_do_not_matter(llava: Path, tasks: tuple[Task, ...]) -> None:
    model, encoder = load_model(llava), Encoder.load(llava)
    alone = answers(model, encoder, tasks, size=1)
    for size, order in ((8, tasks), (3, tasks[::-1])):
        batched = answers(model, encoder, order, size)
        assert batched.keys() == alone.keys()
        for key, one in alone.items():
            assert (batched[key].response, batched[key].finish) == (one.response, one.finish)
            assert batched[key].logprobs == pytest.approx(one.logprobs, abs=2e-5)


def test_groups_hold_every_question_once_and_every_picture_once(
    llava: Path, tasks: tuple[Task, ...]
) -> None:
    encoder = Encoder.load(llava)
    questions = [question for task in tasks for question in encode(task, encoder)]
    found = groups(questions, 4)
    batched = [question for group in found for batch in group.batches for question in batch]
    assert sorted((q.task, q.item) for q in batched) == sorted((q.task, q.item) for q in questions)
    assert all(len(batch) <= 4 for group in found for batch in group.batches)
    prefixes = [row.images for group in found for row in group.prefixes]
    assert len(prefixes) == 7 + 7 + 1  # seen, unseen, and the text that has no picture
    assert len(set(prefixes)) == len(prefixes)


def test_logits_that_are_not_finite(llava: Path, tasks: tuple[Task, ...]) -> None:
    model, encoder = load_model(llava), Encoder.load(llava)
    torch.nn.init.constant_(model.get_output_embeddings().weight, float("nan"))
    with pytest.raises(NumericError) as caught:
        answers(model, encoder, tasks[-1:], size=2)
    assert str(caught.value) == "sums-0: logits of its batch are not finite"
