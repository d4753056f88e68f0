"""Tiny checkpoints of every family, each with its own kind of tokenizer and processor.

Sizes are set so that counts can go wrong: a picture is 16 tokens for LLaVA, several tiles for
LLaVA-NeXT and Idefics3, as many as its shape gives for Qwen. Templates are those of the hub.
Gemma's tokenizer merges across a line break, Llama's puts a space before whatever it is given.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import factories
import numpy as np
import torch
import transformers
from factories import HEADS, PATCH, PIXELS, VOCABULARY, WIDTH
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import processors
from torch import Tensor

from mllmtool.data.samples import Sample

QWEN_TEMPLATE = """\
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- for content in message['content'] -%}
{%- if content['type'] == 'image' -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else -%}{{ content['text'] }}{%- endif -%}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
IDEFICS3_TEMPLATE = """\
{{ bos_token }}
{%- for message in messages -%}
{{ message['role'] | capitalize }}
{%- if message['content'][0]['type'] == 'image' -%}{{ ':' }}{%- else -%}{{ ': ' }}{%- endif -%}
{%- for line in message['content'] -%}
{%- if line['type'] == 'text' -%}{{ line['text'] }}{%- else -%}{{ '<image>' }}{%- endif -%}
{%- endfor -%}
{{ '<end_of_utterance>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}
"""
LAYERS = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
}
DECODER = {**LAYERS, "num_key_value_heads": HEADS, "max_position_embeddings": 512}
PICTURE = {"image_size": PIXELS, "patch_size": PATCH}
SQUARE = {"height": PIXELS, "width": PIXELS}
STYLE = {"padding": True, "padding_side": "right"}


def tiny_llava_next(path: Path) -> Path:
    """Pictures cut into up to five tiles of 32 pixels, by their shape."""
    tokenizer = factories.new_tokenizer(end="</s>")
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    processor = transformers.LlavaNextProcessor(
        image_processor=transformers.LlavaNextImageProcessor(
            size={"shortest_edge": PIXELS}, crop_size=SQUARE, image_grid_pinpoints=pinpoints
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=factories.LLAVA_TEMPLATE,
    )
    config = transformers.LlavaNextConfig(
        vision_config=factories.vision_config(),
        text_config=factories.text_config(tokenizer, tie_word_embeddings=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
    )
    model_class = transformers.LlavaNextForConditionalGeneration
    return factories.save(model_class, config, processor, path, seed=0)


def tiny_qwen2_vl(path: Path) -> Path:
    """Qwen2-VL with patches of 4 pixels, merged by fours."""
    vision = {"depth": 2, "embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 2}
    return _qwen(path, "Qwen2VL", vision)


def tiny_qwen2_5_vl(path: Path) -> Path:
    """Qwen2.5-VL with attention in windows of 16 pixels, but for its last layer."""
    vision = {
        "depth": 2,
        "hidden_size": WIDTH,
        "out_hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    return _qwen(path, "Qwen2_5_VL", vision)


def _qwen(path: Path, stem: str, vision: dict[str, Any]) -> Path:
    names = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = trained(transformers.Qwen2Tokenizer(eos_token="<|im_end|>"), names)
    start, _, _, image, video = tokenizer.convert_tokens_to_ids(list(names))
    text = {
        **DECODER,
        "vocab_size": len(tokenizer),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [2, 3, 3],
        },
    }
    small = {"num_heads": HEADS, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    config = getattr(transformers, f"{stem}Config")(
        vision_config={**vision, **small},
        text_config=text,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        tie_word_embeddings=False,
    )
    image_processor = transformers.Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, size={"shortest_edge": 256, "longest_edge": 1024}
    )
    model_class = getattr(transformers, f"{stem}ForConditionalGeneration")
    tokenizer.chat_template = QWEN_TEMPLATE
    factories.save(model_class, config, tokenizer, path, seed=0)
    image_processor.save_pretrained(path)
    return stopping_at(path, tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))


def tiny_idefics3(path: Path) -> Path:
    """Pictures brought to 64 pixels and cut into tiles of 32, each 4 tokens."""
    names = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    places = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tokenizer = trained(factories.new_tokenizer(end="</s>"), [*names, *places])
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    processor = transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessor(
            size={"longest_edge": 2 * PIXELS}, max_image_size={"longest_edge": PIXELS}
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=IDEFICS3_TEMPLATE,
    )
    config = transformers.Idefics3Config(
        vision_config={**LAYERS, **PICTURE},
        text_config={**DECODER, "model_type": "llama", "vocab_size": len(tokenizer)},
        scale_factor=2,
        image_token_id=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    model_class = transformers.Idefics3ForConditionalGeneration
    factories.save(model_class, config, processor, path, seed=0)
    ends = tokenizer.convert_tokens_to_ids(["</s>", "<end_of_utterance>"])
    return stopping_at(path, ends)


def tiny_paligemma(path: Path) -> Path:
    """SigLIP and Gemma; no chat template, as on the hub."""
    tokenizer = trained(transformers.GemmaTokenizer(add_bos_token=True))
    processor = transformers.PaliGemmaProcessor(
        image_processor=transformers.SiglipImageProcessor(size=SQUARE, image_seq_length=16),
        tokenizer=tokenizer,
    )
    text = {**DECODER, "head_dim": WIDTH // HEADS, "vocab_size": len(tokenizer)}
    config = transformers.PaliGemmaConfig(
        vision_config={
            **LAYERS,
            **PICTURE,
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
        },
        text_config={**text, "model_type": "gemma", "num_image_tokens": 16},
        image_token_index=processor.image_token_id,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    model_class = transformers.PaliGemmaForConditionalGeneration
    factories.save(model_class, config, processor, path, seed=0)
    return stopping_at(path, [tokenizer.eos_token_id])


def tiny_instructblip(path: Path) -> Path:
    """Four queries, a Q-Former with BERT's tokenizer, a Llama; no chat template, as on the hub."""
    tokenizer = trained(transformers.LlamaTokenizer(pad_token="<pad>", add_bos_token=True))
    words = trained(transformers.BertTokenizer())
    processor = transformers.InstructBlipProcessor(
        image_processor=transformers.BlipImageProcessor(size=SQUARE),
        tokenizer=tokenizer,
        qformer_tokenizer=words,
        num_query_tokens=4,
    )
    config = transformers.InstructBlipConfig(
        vision_config={**LAYERS, **PICTURE, "initializer_range": 0.02},  # 1e-10 sees nothing
        qformer_config={**LAYERS, "vocab_size": len(words), "cross_attention_frequency": 2},
        text_config={**DECODER, "model_type": "llama", "vocab_size": len(tokenizer)},
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model_class = transformers.InstructBlipForConditionalGeneration
    factories.save(model_class, config, processor, path, seed=0)
    return stopping_at(path, [tokenizer.eos_token_id])


def trained(tokenizer: Any, special: Sequence[str] = ()) -> Any:
    """A tokenizer of the same kind, trained here."""
    new = tokenizer.train_new_from_iterator(
        factories.CORPUS * 3, VOCABULARY, new_special_tokens=list(special), show_progress=False
    )
    if getattr(tokenizer, "add_bos_token", False):
        new.add_bos_token = True
    return new


def stopping_at(path: Path, ends: Sequence[int]) -> Path:
    """Have `generate` stop there, as the hub's files do."""
    file = path / "generation_config.json"
    values = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**values, "eos_token_id": list(ends), "do_sample": False}))
    return path


def laid_out(path: Path, into: Path, layout: str) -> Path:
    """A copy whose tensors are named as in memory, or as in the hub's older files."""
    shutil.copytree(path, into)
    tensors = load_file(path / "model.safetensors")
    if layout == "memory":
        model = transformers.AutoModelForImageTextToText.from_pretrained(path)
        tied = model.all_tied_weights_keys
        tensors = {name: t for name, t in model.state_dict().items() if name not in tied}
    else:  # before transformers 5, a tower held a `vision_model`
        tower = re.compile(r"^vision_tower\.")
        tensors = {tower.sub("vision_tower.vision_model.", n): t for n, t in tensors.items()}
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    return into


def own_processor(path: Path) -> Any:
    """The processor that transformers has for a checkpoint; Qwen's as without torchvision."""
    kind = json.loads((path / "config.json").read_text())["model_type"]
    if kind not in ("qwen2_vl", "qwen2_5_vl"):
        return transformers.AutoProcessor.from_pretrained(path)
    stem = "Qwen2VL" if kind == "qwen2_vl" else "Qwen2_5_VL"
    base = getattr(transformers, f"{stem}Processor")
    parts = {"get_attributes": classmethod(lambda _: ["image_processor", "tokenizer"])}
    return type("Still", (base,), parts)(
        transformers.AutoImageProcessor.from_pretrained(path),
        transformers.AutoTokenizer.from_pretrained(path),
        chat_template=QWEN_TEMPLATE,
    )


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "llava": factories.tiny_llava,
    "llava_next": tiny_llava_next,
    "qwen2_vl": tiny_qwen2_vl,
    "qwen2_5_vl": tiny_qwen2_5_vl,
    "instructblip": tiny_instructblip,
    "idefics3": tiny_idefics3,
    "paligemma": tiny_paligemma,
    "llama": factories.tiny_llama,
}


def own_batch(processor: Any, samples: Sequence[Sample], folder: Path) -> dict[str, Tensor]:
    """Samples as the family's own processor makes a right-padded batch of them."""
    images = [[Image.open(folder / n).convert("RGB") for n in s.images] for s in samples]
    questions = [_said(sample, 0) for sample in samples]
    if isinstance(processor, transformers.PaliGemmaProcessor):
        texts = ["<image>" * len(i) + q for i, q in zip(images, questions, strict=True)]
        answers = [_said(sample, 1) for sample in samples if len(sample.messages) > 1] or None
        made = processor(text=texts, images=images, suffix=answers, **STYLE)
        return {key: torch.from_numpy(np.array(values)) for key, values in made.items()}
    if isinstance(processor, transformers.InstructBlipProcessor):
        return _instructblip_batch(processor, samples, [image for (image,) in images])
    chats = [_chat(sample, iter(some)) for sample, some in zip(samples, images, strict=True)]
    asked = {"add_generation_prompt": samples[0].messages[-1].role == "user", "return_dict": True}
    if not hasattr(processor, "image_processor"):
        chats = [[turn.model_dump() for turn in sample.messages] for sample in samples]
        made = processor.apply_chat_template(chats, padding=True, return_tensors="pt", **asked)
        return dict(made)
    made = processor.apply_chat_template(
        chats, tokenize=True, return_tensors="pt", processor_kwargs=dict(STYLE), **asked
    )
    return dict(made)


def _chat(sample: Sample, images: Iterator[Any]) -> list[dict[str, Any]]:
    return [
        {
            "role": turn.role,
            "content": [
                {"type": "image", "image": next(images)}
                if part.type == "image"
                else {"type": "text", "text": part.text}
                for part in turn.parts
            ],
        }
        for turn in sample.messages
    ]


def _said(sample: Sample, turn: int) -> str:
    return "".join(part.text for part in sample.messages[turn].parts)


def _instructblip_batch(
    processor: Any, samples: Sequence[Sample], images: Sequence[Any]
) -> dict[str, Tensor]:
    """Its processor makes prompts; an answer is put behind as LAVIS does, tokenised apart."""
    questions = [_said(sample, 0) for sample in samples]
    made = dict(processor(images=images, text=questions, return_tensors="pt", **STYLE))
    tokenizer, rows = processor.tokenizer, []
    for image, question, sample in zip(images, questions, samples, strict=True):
        ids = processor(images=image, text=question)["input_ids"][0]
        if len(sample.messages) > 1:
            answer = _said(sample, 1) + tokenizer.eos_token
            ids = ids + tokenizer(answer, add_special_tokens=False)["input_ids"]
        rows.append(ids)
    return {**made, **tokenizer.pad({"input_ids": rows}, return_tensors="pt", **STYLE)}
