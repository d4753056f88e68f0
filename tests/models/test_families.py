"""Every family's batches against those of its own processor."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import factories
import families
import pytest
import torch
from PIL import Image

from mllmtool.data.samples import Sample
from mllmtool.errors import CheckpointError, DataError
from mllmtool.models.encoding import IGNORED, Encoder
from mllmtool.models.families import FAMILIES
from mllmtool.models.loading import load_model

SHAPES = {"square.png": (32, 32), "wide.png": (64, 30), "tall.png": (20, 44)}
ALONE = ("<image>What colour is the picture?", "red")
TALK = ("<image>Name a colour.", "blue", "And this?", "green yes")
PAIR = ("<image>\nWhich colour <image>do you see?", "red, green")
TEXT = ("What is one plus two?", "three")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in SHAPES.items():
        Image.effect_noise(size, 90).convert("RGB").save(folder / name)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's tiny checkpoint."""
    folder = tmp_path_factory.mktemp("families")
    return cache(lambda kind: families.CHECKPOINTS[kind](folder / kind))


@pytest.fixture(params=families.CHECKPOINTS)
def base(request: pytest.FixtureRequest, own: Callable[[str], Path]) -> Path:
    return own(request.param)


def sample(contents: Sequence[str], *images: str) -> Sample:
    values = {"id": "s", "images": images, "messages": factories.turns(*contents)}
    return Sample.model_validate(values)


def kind_of(base: Path) -> str:
    kind: str = json.loads((base / "config.json").read_text())["model_type"]
    return kind


def batches(kind: str) -> list[list[Sample]]:
    """What the family takes: one image, several, none, and all in one batch."""
    one, wide = sample(ALONE, "square.png"), sample(ALONE, "wide.png")
    if kind == "llama":
        return [[sample(TEXT)], [sample(TEXT), sample((*TEXT, *TEXT))]]
    if kind == "instructblip":
        return [[one], [one, sample(("<image>Name it.", "blue"), "tall.png")]]
    two = sample(PAIR, "tall.png", "wide.png")
    if kind == "paligemma":
        return [[one], [two], [wide, two]]
    talk, text = sample(TALK, "tall.png"), sample((*TEXT, *TEXT))
    return [[one], [two], [talk], [text], [text, one, two, text, talk, wide]]


def test_every_family_with_pictures_is_tested() -> None:
    seeing = {kind for kind, family in FAMILIES.items() if family.images}
    assert set(families.CHECKPOINTS) == {*seeing, "llama"}


@pytest.mark.parametrize("size", ["alone", "mixed"])
def test_batch_equals_that_of_the_familys_own_processor(
    base: Path, pictures: Path, size: str
) -> None:
    encoder, processor = Encoder.load(base), families.own_processor(base)
    every = batches(kind_of(base))
    for samples in every[:-1] if size == "alone" else every[-1:]:
        theirs = families.own_batch(processor, samples, pictures)
        ours = encoder.train_batch(samples, pictures)
        assert {*ours, "labels"} == {*theirs, "labels"}
        for key, tensor in theirs.items():
            assert torch.equal(ours[key], tensor), key


def test_answers_and_their_ends_are_learnt(base: Path, pictures: Path) -> None:
    encoder = Encoder.load(base)
    for samples in batches(kind_of(base)):
        for one in samples:
            row = encoder.train_row(one, pictures)
            assert torch.equal(row.labels[row.labels != IGNORED], row.ids[row.labels != IGNORED])
            said = [turn.content for turn in one.messages if turn.role == "assistant"]
            ends = [encoder.tokenizer.convert_tokens_to_ids(end) for end in encoder.ends]
            learnt = row.labels[row.labels != IGNORED].tolist()
            stops = [n for n, token in enumerate(learnt) if token in ends]
            starts = [0, *(stop + 1 for stop in stops)]
            answers = [learnt[a:b] for a, b in zip(starts, stops, strict=False)]
            assert stops[-1] == len(learnt) - 1
            assert [encoder.tokenizer.decode(ids).strip() for ids in answers] == said


@torch.no_grad()
def test_rows_are_read_as_if_alone(base: Path, pictures: Path) -> None:
    """Padding, other rows' pictures and their shapes change nothing."""
    encoder, model = Encoder.load(base), load_model(base)
    samples = batches(kind_of(base))[-1]
    batch = encoder.train_batch(samples, pictures)
    together = model(**{key: tensor for key, tensor in batch.items() if key != "labels"}).logits
    for number, one in enumerate(samples):
        alone = encoder.train_batch([one], pictures)
        del alone["labels"]
        logits = model(**alone).logits[0]
        torch.testing.assert_close(together[number, : len(logits)], logits, atol=2e-5, rtol=1e-4)


def test_prompt_equals_that_of_the_familys_own_processor(base: Path, pictures: Path) -> None:
    encoder, processor = Encoder.load(base), families.own_processor(base)
    for samples in batches(kind_of(base))[:-1]:
        asked = samples[0].model_copy(update={"messages": samples[0].messages[:-1]})
        theirs = families.own_batch(processor, [asked], pictures)
        ours = encoder.batch([encoder.prompt_row(asked, pictures)])
        assert {*ours, "labels"} == {*theirs, "labels"}
        for key in theirs.keys() - {"labels"}:
            assert torch.equal(ours[key], theirs[key]), key
        assert (ours["labels"] == IGNORED).all()


@pytest.mark.parametrize("kind", ["paligemma", "instructblip"])
def test_answer_is_tokenised_apart_from_its_question(
    own: Callable[[str], Path], pictures: Path, kind: str
) -> None:
    encoder = Encoder.load(own(kind))
    tokenizer, asked = encoder.tokenizer, sample(("<image>user", "Name"), "square.png")
    row = encoder.train_row(asked, pictures)
    answer = tokenizer("Name", add_special_tokens=False)["input_ids"]
    learnt = row.labels[row.labels != IGNORED].tolist()
    assert learnt == [*answer, tokenizer.eos_token_id]
    question = sample(("<image>user",), "square.png")
    (option,) = encoder.option_rows(question, ["Name"], pictures)
    assert option.labels[option.labels != IGNORED].tolist() == answer
    assert option.ids.tolist() == row.ids.tolist()[:-1]
    # Gemma's tokenizer here merges "user\nNa", and Llama's begins words of an answer with a space
    joined = tokenizer("user\nName" if kind == "paligemma" else "userName")["input_ids"]
    assert joined[-len(answer) :] != answer


@pytest.mark.parametrize(
    ("kind", "contents", "images", "message"),
    [
        ("paligemma", TEXT, (), "PaliGemma takes at least one image"),
        ("paligemma", TALK, ("tall.png",), "PaliGemma takes one question and its answer"),
        ("instructblip", TEXT, (), "InstructBLIP takes exactly one image"),
        ("instructblip", PAIR, ("tall.png",) * 2, "InstructBLIP takes exactly one image"),
        ("instructblip", TALK, ("tall.png",), "InstructBLIP takes one question and its answer"),
    ],
)
def test_what_a_family_does_not_take_is_refused(
    own: Callable[[str], Path], pictures: Path, kind: str, contents: Any, images: Any, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        Encoder.load(own(kind)).train_row(sample(contents, *images), pictures)
    assert str(caught.value) == f"sample s: the chat template refuses it: {message}"


def test_picture_that_qwen_refuses_is_named(own: Callable[[str], Path], tmp_path: Path) -> None:
    Image.new("RGB", (402, 2)).save(tmp_path / "thin.png")
    with pytest.raises(DataError) as caught:
        Encoder.load(own("qwen2_vl")).train_row(sample(ALONE, "thin.png"), tmp_path)
    assert str(caught.value) == (
        f"sample s: {tmp_path}/thin.png: its processor refuses it: absolute aspect ratio must be"
        " smaller than 200, got 201.0"
    )


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_qwens_processor_in_one_file_as_transformers_5_writes_it(
    own: Callable[[str], Path], pictures: Path, tmp_path: Path, kind: str
) -> None:
    path = shutil.copytree(own(kind), tmp_path / "base")
    image_processor = json.loads((path / "preprocessor_config.json").read_text())
    (path / "preprocessor_config.json").unlink()
    nested = {
        "image_processor": image_processor,
        "processor_class": "Qwen2VLProcessor" if kind == "qwen2_vl" else "Qwen2_5_VLProcessor",
        "video_processor": {"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": 4},
    }
    (path / "processor_config.json").write_text(json.dumps(nested))
    samples = batches(kind)[-1]
    ours, theirs = (Encoder.load(p).train_batch(samples, pictures) for p in (path, own(kind)))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_qwens_processor_as_the_hub_has_it(
    own: Callable[[str], Path], pictures: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(own("qwen2_vl"), tmp_path / "base")
    values = json.loads((path / "preprocessor_config.json").read_text())
    size = values.pop("size")
    older = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    named = {"processor_class": "Qwen2VLProcessor"}
    (path / "preprocessor_config.json").write_text(json.dumps({**values, **older, **named}))
    (path / "chat_template.jinja").unlink()
    (path / "chat_template.json").write_text(json.dumps({"chat_template": families.QWEN_TEMPLATE}))
    samples = batches("qwen2_vl")[-1]
    ours, theirs = (Encoder.load(p).train_batch(samples, pictures) for p in (path, own("qwen2_vl")))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_instructblip_without_its_second_tokenizer(
    own: Callable[[str], Path], tmp_path: Path
) -> None:
    path = shutil.copytree(own("instructblip"), tmp_path / "base")
    shutil.rmtree(path / "qformer_tokenizer")
    with pytest.raises(CheckpointError) as caught:
        Encoder.load(path)
    assert str(caught.value) == f"{path}: has no qformer_tokenizer/; copy the base's"


def test_instructblip_with_an_encoder_decoder(own: Callable[[str], Path], tmp_path: Path) -> None:
    path = shutil.copytree(own("instructblip"), tmp_path / "base")
    config = json.loads((path / "config.json").read_text())
    assert config["use_decoder_only_language_model"] is True
    config["use_decoder_only_language_model"] = False
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        Encoder.load(path)
    assert str(caught.value) == (
        f"{path}: its language model is an encoder-decoder; only decoders are served"
    )
