"""The fast path against plain loops: one item at a time, whole sequences, no cache."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from PIL import Image
from suite_factory import change, colour_suite, letter_items, text_suite, write_task

from mllmtool.data.items import Item
from mllmtool.data.samples import Message
from mllmtool.data.suites import Task, read_suite
from mllmtool.errors import NumericError
from mllmtool.evaluation.checking import misread
from mllmtool.evaluation.features import Features
from mllmtool.evaluation.inference import Reader
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.questions import encode, groups
from mllmtool.models.encoding import Encoder
from mllmtool.models.loading import load_model
from mllmtool.models.parts import part_of

Found = dict[tuple[str, str], Prediction]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, ...]:
    return read_suite(colour_suite(tmp_path_factory.mktemp("colour"), number=7)).tasks


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, ...]:
    """Pictures of three shapes, alone and in pairs."""
    suite = colour_suite(tmp_path_factory.mktemp("shapes"), number=4)
    singles = letter_items([("0.png", "red"), ("1.png", "green")], "Name both.")
    pairs = [{**one, "images": ["2.png", f"{n}.png"]} for n, one in enumerate(singles)]
    write_task(suite.parent, "pairs", pairs, "ood", "id", answer="text")
    names = ("colour-letter", "colour-open", "pairs", "sums")
    change(suite, tasks=[f"tasks/{name}.yaml" for name in names])
    for number, path in enumerate(sorted((suite.parent / "images").iterdir())):
        with Image.open(path) as image:
            size = ((32, 32), (64, 30), (20, 44))[number % 3]
            resized = image.resize(size)
        resized.save(path)
    return read_suite(suite).tasks


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, ...]:
    return read_suite(text_suite(tmp_path_factory.mktemp("text"), number=7)).tasks


def answers(model: Any, encoder: Encoder, tasks: Sequence[Task], size: int, **how: Any) -> Found:
    questions = [question for task in tasks for question in encode(task, encoder)]
    reader = Reader(model, encoder, **how)
    return {
        (question.task, question.item): prediction
        for group in groups(questions, size)
        for question, prediction in reader.answer(group)
    }


@torch.no_grad()
def theirs_logprobs(model: Any, processor: Any, task: Task, item: Item) -> list[float]:
    """Each option in its own whole forward pass, as the family's own processor encodes it."""
    asked = task.sample(item)
    prompt = families.own_batch(processor, [asked], task.root)["input_ids"][0]
    rows = []
    for option in task.answers(item):
        turns = (*asked.messages, Message(role="assistant", content=option))
        whole = asked.model_copy(update={"messages": turns})
        rows.append(families.own_batch(processor, [whole], task.root))
    ids = [row["input_ids"][0] for row in rows]
    stops = [max(n for n, token in enumerate(row.tolist()) if token in ends(model)) for row in ids]
    shared = min(
        next((n for n in range(len(prompt)) if prompt[n] != row[n]), len(prompt)) for row in ids
    )
    scores = []
    for batch, row, stop in zip(rows, ids, stops, strict=True):
        batch.pop("labels", None)
        logprobs = model(**batch).logits[0].log_softmax(-1)
        scores.append(sum(float(logprobs[n - 1, row[n]]) for n in range(shared, stop)))
    return scores


def theirs_response(model: Any, processor: Any, task: Task, item: Item) -> list[int]:
    """Tokens that the plain model generates."""
    batch = families.own_batch(processor, [task.sample(item)], task.root)
    batch.pop("labels", None)
    made = model.generate(
        **batch,
        do_sample=False,
        max_new_tokens=task.file.max_new_tokens,
        eos_token_id=ends(model),
        pad_token_id=0,
    )
    tokens: list[int] = made[0, batch["input_ids"].shape[1] :].tolist()
    return tokens[: next((n for n, token in enumerate(tokens) if token in ends(model)), None)]


def ends(model: Any) -> list[int]:
    stops: Any = model.generation_config.eos_token_id
    return stops if isinstance(stops, list) else [stops]


@pytest.fixture(scope="module", params=families.CHECKPOINTS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.CHECKPOINTS[request.param](tmp_path_factory.mktemp(request.param) / "base")


@pytest.fixture
def asked(base: Path, shapes: tuple[Task, ...], texts: tuple[Task, ...]) -> tuple[Task, ...]:
    """What the family takes: pictures and text, pictures alone, text alone."""
    kind = json.loads((base / "config.json").read_text())["model_type"]
    if kind == "llama":
        return texts
    refused = {"paligemma": {"sums"}, "instructblip": {"sums", "pairs"}}.get(kind, set())
    return tuple(task for task in shapes if task.name not in refused)


def test_options_are_scored_as_by_whole_forward_passes(base: Path, asked: tuple[Task, ...]) -> None:
    model, encoder, processor = load_model(base), Encoder.load(base), families.own_processor(base)
    found = answers(model, encoder, asked, size=5)
    for task in asked:
        for item in task.items:
            theirs = theirs_logprobs(model, processor, task, item)
            ours = found[task.name, item.id].logprobs
            assert ours == pytest.approx(theirs, abs=5e-5), (task.name, item.id)
    lengths = {len(ids) for task in asked for q in encode(task, encoder) for ids in q.continuations}
    assert min(lengths) == 1 < max(lengths)


def test_features_taken_again_change_no_bit(base: Path, asked: tuple[Task, ...]) -> None:
    model, encoder, features = load_model(base), Encoder.load(base), Features()
    found = answers(model, encoder, asked, size=5)
    assert answers(model, encoder, asked, size=5, features=features) == found
    if encoder.processor:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if part_of(name) != "language":
                    parameter.zero_()
    assert answers(model, encoder, asked, size=5, features=features) == found


def test_sharing_nothing_gives_the_same(base: Path, asked: tuple[Task, ...]) -> None:
    model, encoder = load_model(base), Encoder.load(base)
    found, alone = (answers(model, encoder, asked, size=8, whole=whole) for whole in (False, True))
    assert found.keys() == alone.keys()
    for key, one in alone.items():
        assert (found[key].response, found[key].finish) == (one.response, one.finish)
        assert found[key].logprobs == pytest.approx(one.logprobs, abs=1e-4)


def test_the_check_passes_and_sees_what_is_misread(base: Path, asked: tuple[Task, ...]) -> None:
    model, encoder = load_model(base), Encoder.load(base)
    questions = [question for task in asked for question in encode(task, encoder)]
    open_ended = replace(questions[0], item="open", continuations=())
    reader = Reader(model, encoder, Features())
    assert misread(reader, [*questions, open_ended], 5) == ""

    def shift(_: Any, __: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        cache = given.get("past_key_values")
        if cache is not None and cache.get_seq_length() and given["position_ids"].ndim == 2:
            given["position_ids"] = given["position_ids"] + 3
        return (), given

    modules: list[Any] = [model, getattr(model, "language_model", None)]
    for module in modules:
        if hasattr(module, "generate"):
            module.register_forward_pre_hook(shift, with_kwargs=True)
    assert " by a whole forward pass" in misread(reader, questions, 5)


def test_responses_are_those_of_generate(base: Path, asked: tuple[Task, ...]) -> None:
    model, encoder, processor = load_model(base), Encoder.load(base), families.own_processor(base)
    items = [(task, item) for task in asked for item in task.items]
    second = [n for pair in items for n in theirs_response(model, processor, *pair)[1:2]]
    often, finishes = max(second, key=second.count), set()
    for more in ([], [often]):
        model.generation_config.eos_token_id = [*ends(model), *more]
        encoder.ends = (*encoder.ends, *encoder.tokenizer.convert_ids_to_tokens(more))
        theirs = [theirs_response(model, processor, *pair) for pair in items]
        found = answers(model, encoder, asked, size=4)
        ours = [found[task.name, item.id].response for task, item in items]
        assert ours == [encoder.decode(tokens) for tokens in theirs]
        finishes |= {one.finish for one in found.values()}
    assert finishes == {"end", "length"}


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
