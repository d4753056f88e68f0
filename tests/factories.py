"""Tiny real models with real tokenizers and processors, in the standard Hugging Face layout.

Both have traps of real models built in. The LLaVA's tokenizer is GPT-2's kind (a space begins a
word's token) and its prompts end in a space, so an answer's first token merges across the boundary;
its image tokens are 16 a picture and its head is untied. The Llama's head is tied, its turns are
ChatML's, and its answers end in `<|im_end|>` and a line break.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.utils import logging as transformers_logging

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

PIXELS, PATCH, WIDTH, HEADS, VOCABULARY = 32, 8, 32, 2, 400
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 60, 220)}
SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<|im_start|>", "<|im_end|>")
CORPUS = (
    "USER: What colour is the picture? ASSISTANT: red",
    "USER: What colour is this? ASSISTANT: green",
    "USER: Which colour do you see, red, green or blue? ASSISTANT: blue",
    "user\nWhat is one plus two?\nassistant\nthree",
    "user\nName a colour.\nassistant\nblue",
    "system\nYou answer in one word.",
    "Answer the question. yes no A B C D (A) (B) (C) (D) zero one two three four five six",
)
LLAVA_TEMPLATE = """\
{%- for message in messages -%}
{{ message['role'] | upper + ': ' }}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ '<image>\\n' }}{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- else -%}{{ ' ' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT: ' }}{%- endif -%}
"""
LLAMA_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


def tiny_llava(path: Path, seed: int = 0) -> Path:
    """Save a LLaVA of about 70 thousand parameters (CLIP vision, MLP projector, Llama)."""
    tokenizer = new_tokenizer(end="</s>")
    processor = transformers.LlavaProcessor(
        image_processor=new_image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    config = transformers.LlavaConfig(
        vision_config=vision_config(),
        text_config=text_config(tokenizer, tie_word_embeddings=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(PIXELS // PATCH) ** 2,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    return save(transformers.LlavaForConditionalGeneration, config, processor, path, seed)


def tiny_llama(path: Path, seed: int = 0) -> Path:
    """Save a text-only Llama of about 35 thousand parameters with a tied head."""
    tokenizer = new_tokenizer(end="<|im_end|>")
    tokenizer.chat_template = LLAMA_TEMPLATE
    config = text_config(tokenizer, tie_word_embeddings=True)
    return save(transformers.LlamaForCausalLM, config, tokenizer, path, seed)


def save(model_class: Any, config: Any, processor: Any, path: Path, seed: int) -> Path:
    """Build `model_class` from the seed, larger than its default scale so that logits differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.mul_(4)
    model.generation_config.do_sample = False
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def new_tokenizer(end: str) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE, trained here, in which a space begins a word's token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token=end,
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def new_image_processor() -> Any:
    """CLIP's picture preparation at 32 pixels."""
    return transformers.CLIPImageProcessor(
        size={"shortest_edge": PIXELS}, crop_size={"height": PIXELS, "width": PIXELS}
    )


def vision_config() -> Any:
    """Two layers of 16 patches and a class token."""
    return transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        image_size=PIXELS,
        patch_size=PATCH,
    )


def text_config(tokenizer: Any, tie_word_embeddings: bool) -> Any:
    """Two Llama layers."""
    return transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=256,
        tie_word_embeddings=tie_word_embeddings,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def colour_samples(folder: Path, number: int = 12) -> Path:
    """Write `samples.jsonl` and its pictures: each a noisy field of one colour, to be named."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    for index in range(number):
        name, colour = list(COLOURS.items())[index % len(COLOURS)]
        pixels = rng.integers(-20, 21, (PIXELS, PIXELS, 3)) + np.array(colour)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(folder / "images" / f"{index}.png")
        rows.append(
            {
                "id": f"colour-{index}",
                "images": [f"images/{index}.png"],
                "messages": turns("<image>What colour is the picture?", name),
                "source": "even" if index % 2 == 0 else "odd",
            }
        )
    return write_rows(folder / "samples.jsonl", rows)


def text_samples(folder: Path, number: int = 8) -> Path:
    """Write `samples.jsonl` of sums, without pictures."""
    words = ("zero", "one", "two", "three", "four", "five", "six")
    rows = [
        {
            "id": f"sum-{a}-{b}",
            "messages": turns(f"What is {words[a]} plus {words[b]}?", words[a + b]),
        }
        for a, b in [(n % 3, n // 3) for n in range(number)]
    ]
    folder.mkdir(parents=True, exist_ok=True)
    return write_rows(folder / "samples.jsonl", rows)


def turns(*contents: str) -> list[dict[str, str]]:
    """Messages of user and assistant in turn."""
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
