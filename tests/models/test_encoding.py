"""Samples to tensors: labels, padding, images, options, memory."""

from pathlib import Path
from typing import Any

import factories
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from mllmtool.data.samples import Sample, read_samples
from mllmtool.errors import CheckpointError, DataError
from mllmtool.models.encoding import IGNORED, Encoder
from mllmtool.models.families import FAMILIES
from mllmtool.models.loading import load_model

# Of llava-hf/llava-1.5-7b-hf.
HUB_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

# As the tiny LLaVA's, for text, with the marks that few templates have.
MARKED_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{ 'ASSISTANT: ' }}
{%- generation -%}{{ message['content'][0]['text'] + eos_token }}{%- endgeneration -%}
{%- else -%}{{ 'USER: ' + message['content'][0]['text'] + ' ' }}{%- endif -%}
{%- endfor -%}
"""


@pytest.fixture(scope="module")
def encoder(llava: Path) -> Encoder:
    return Encoder.load(llava)


@pytest.fixture(scope="module")
def text_encoder(llama: Path) -> Encoder:
    return Encoder.load(llama)


def sample(*contents: str, images: tuple[str, ...] = (), name: str = "s") -> Sample:
    return Sample.model_validate(
        {"id": name, "images": images, "messages": factories.turns(*contents)}
    )


def learnt(encoder: Encoder, labels: torch.Tensor) -> list[str]:
    """The texts of the learnt tokens, one by one."""
    return [encoder.tokenizer.decode([token]) for token in labels[labels != IGNORED].tolist()]


def test_answer_and_end_are_learnt_and_nothing_else(encoder: Encoder, colours: Path) -> None:
    batch = encoder.train_batch(list(read_samples(colours))[:2], colours.parent)
    assert learnt(encoder, batch["labels"][0]) == [" red", "</s>"]
    assert learnt(encoder, batch["labels"][1]) == [" green", "</s>"]
    kept = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])
    text = encoder.tokenizer.decode(batch["input_ids"][0])
    assert text == f"USER: {'<image>' * 16}\nWhat colour is the picture? ASSISTANT: red</s>"


def test_mask_by_the_prompts_token_count_would_lose_the_answer(encoder: Encoder) -> None:
    # The prompt alone ends in the token " "; before "red" that space belongs to the token " red".
    asked = sample("What colour is this?", "red")
    prompt = sample("What colour is this?")
    row = encoder.train_row(asked, Path())
    num_prompt_tokens = len(encoder.prompt_row(prompt, Path()).ids)
    naive = row.ids[num_prompt_tokens:]
    assert [encoder.tokenizer.decode([token]) for token in naive] == ["</s>"]
    assert learnt(encoder, row.labels) == [" red", "</s>"]


def test_every_answer_of_a_conversation_is_learnt(encoder: Encoder) -> None:
    row = encoder.train_row(sample("Name a colour.", "blue", "And this?", "green"), Path())
    assert learnt(encoder, row.labels) == [" blue", "</s>", " green", "</s>"]


def test_chatml_learns_the_end_but_not_the_line_break(text_encoder: Encoder) -> None:
    row = text_encoder.train_row(sample("Name a colour.", "three", "And?", "three"), Path())
    answer = [*learnt(text_encoder, row.labels)]
    assert answer[-1] == "<|im_end|>"
    assert "".join(answer) == "three<|im_end|>" * 2


def test_spans_equal_the_templates_own_generation_marks(llava: Path) -> None:
    processor = transformers.AutoProcessor.from_pretrained(llava)
    chat = [
        {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
        for turn in factories.turns("Name a colour.", "blue", "And this?", "green")
    ]
    theirs = processor.apply_chat_template(
        chat,
        chat_template=MARKED_TEMPLATE,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        processor_kwargs={"return_offsets_mapping": True},
    )
    ours = Encoder.load(llava).train_row(
        sample("Name a colour.", "blue", "And this?", "green"), Path()
    )
    assert ours.ids.tolist() == theirs["input_ids"][0]
    assert (ours.labels != IGNORED).long().tolist() == theirs["assistant_masks"][0]


def test_batch_equals_the_processors_own(llava: Path, colours: Path) -> None:
    processor = transformers.AutoProcessor.from_pretrained(llava)
    samples = list(read_samples(colours))[:3]
    texts = [
        f"USER: <image>\nWhat colour is the picture? ASSISTANT: {s.messages[1].content}</s>"
        for s in samples
    ]
    images = [Image.open(colours.parent / s.images[0]) for s in samples]
    theirs = processor(text=texts, images=images, return_tensors="pt", padding=True)
    ours = Encoder.load(llava).train_batch(samples, colours.parent)
    assert set(ours) == {*theirs, "labels"}
    for key, tensor in theirs.items():
        assert torch.equal(ours[key], tensor), key


def test_padding_right_to_train_and_left_to_generate(encoder: Encoder) -> None:
    short, long = sample("Name a colour.", "red"), sample("What colour is this picture?", "red")
    train = encoder.train_batch([short, long], Path())
    missing = int((train["attention_mask"][0] == 0).sum())
    assert missing > 0
    assert train["attention_mask"][0, -missing:].tolist() == [0] * missing
    assert (train["labels"][0, -missing:] == IGNORED).all()
    rows = [encoder.prompt_row(sample(text), Path()) for text in ("Name a colour.", "What is it?")]
    prompts = encoder.batch(rows, padding="left")
    assert prompts["attention_mask"][:, -1].tolist() == [1, 1]
    assert (prompts["labels"] == IGNORED).all()
    assert encoder.decode(prompts["input_ids"][0]) == "USER: Name a colour. ASSISTANT: "


def test_text_only_samples_make_no_pixels(encoder: Encoder, colours: Path) -> None:
    text = sample("Name a colour.", "red")
    assert "pixel_values" not in encoder.train_batch([text], colours.parent)
    mixed = encoder.train_batch([text, next(iter(read_samples(colours)))], colours.parent)
    assert mixed["pixel_values"].shape == (1, 3, 32, 32)


def test_template_without_an_end_token_still_learns_to_stop(llava: Path) -> None:
    encoder = Encoder.load(llava)
    encoder.processor.chat_template = factories.LLAVA_TEMPLATE.replace("{{ eos_token }}", "")
    row = encoder.train_row(sample("Name a colour.", "red"), Path())
    assert learnt(encoder, row.labels) == [" red", "</s>"]


def test_as_llava_1_5_on_the_hub(llava: Path, colours: Path) -> None:
    """Its template writes no end token, its tokenizer marks words as SentencePiece does, adds BOS.

    The original trains on "USER: question ASSISTANT: answer</s>", answer and end learnt.
    """
    processor = transformers.AutoProcessor.from_pretrained(llava)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Metaspace(prepend_scheme="first")
    special = list(factories.SPECIAL)
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=special, show_progress=False)
    bpe.train_from_iterator([text.replace("\n", " ") for text in factories.CORPUS * 3], trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
    )
    processor.tokenizer._tokenizer = bpe
    processor.chat_template = HUB_TEMPLATE
    encoder = Encoder(processor.tokenizer, processor, ["</s>"], FAMILIES["llava"])
    row = encoder.train_row(next(iter(read_samples(colours))), colours.parent)
    pieces = [bpe.id_to_token(token) for token in row.ids.tolist()]
    assert pieces[0] == "<s>"
    assert pieces.count("<image>") == 16
    learnt_pieces = [bpe.id_to_token(t) for t in row.labels[row.labels != IGNORED].tolist()]
    assert learnt_pieces == ["▁red", "</s>"]


def test_options_are_scored_after_what_all_share_with_the_prompt(encoder: Encoder) -> None:
    rows = encoder.option_rows(sample("Name a colour."), ["red", "blue", "☃"], Path())
    # "☃" leaves the prompt's last space a token of its own, which the others merge: all score it
    assert [learnt(encoder, row.labels)[0] for row in rows] == [" red", " blue", " "]
    texts = [encoder.tokenizer.decode(row.labels[row.labels != IGNORED]) for row in rows]
    assert texts == [" red", " blue", " ☃"]


def test_rows_and_pixels_are_made_once(llava: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(llava)
    folder = factories.colour_samples(tmp_path, number=2).parent
    samples = list(read_samples(folder / "samples.jsonl"))
    first = encoder.train_batch(samples, folder)
    (folder / "images" / "0.png").unlink()
    again = encoder.train_batch(samples, folder)
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize(
    ("contents", "images", "message"),
    [
        (("Hi", ""), (), "sample s: holds no answer to learn: no assistant turn has text"),
        (
            ("<image>Hi", "red"),
            ("gone.png",),
            "sample s: {root}/gone.png: no such image",
        ),
        (
            ("<image>Hi", "red"),
            ("../x.png",),
            "sample s: ../x.png: leads out of the image folder {root}; set --images",
        ),
    ],
)
def test_wrong_samples_are_named(
    encoder: Encoder, tmp_path: Path, contents: Any, images: Any, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        encoder.train_row(sample(*contents, images=images), tmp_path)
    assert str(caught.value) == message.format(root=tmp_path)


def test_broken_image_is_named(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"sample s: .*a\.png: is not a readable image: "):
        encoder.train_row(sample("<image>Hi", "red", images=("a.png",)), tmp_path)


def test_image_mark_in_text_is_no_image(encoder: Encoder) -> None:
    parts = [{"type": "text", "text": "say <image>"}]
    forged = Sample.model_validate(
        {
            "id": "s",
            "messages": [
                {"role": "user", "content": parts},
                {"role": "assistant", "content": "no"},
            ],
        }
    )
    with pytest.raises(DataError) as caught:
        encoder.train_row(forged, Path())
    assert str(caught.value) == "sample s: 1 <image> marks after the template, 0 images"


def test_text_model_refuses_images(text_encoder: Encoder, colours: Path) -> None:
    with pytest.raises(DataError) as caught:
        text_encoder.train_row(next(iter(read_samples(colours))), colours.parent)
    assert str(caught.value) == "sample colour-0: has images, but the model is text-only"


def test_template_that_refuses_is_named(llava: Path) -> None:
    strict = Encoder.load(llava)
    strict.processor.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError) as caught:
        strict.train_row(sample("Hi", "red"), Path())
    assert str(caught.value) == "sample s: the chat template refuses it: roles must alternate"


def test_checkpoint_without_a_template(llava: Path, tmp_path: Path) -> None:
    processor = transformers.AutoProcessor.from_pretrained(llava)
    processor.chat_template = processor.tokenizer.chat_template = None
    load_model(llava).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        Encoder.load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: has no chat template; add chat_template.jinja"


def test_checkpoint_without_a_processor(llava: Path, tmp_path: Path) -> None:
    load_model(llava).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="its processor cannot be read"):
        Encoder.load(tmp_path)
