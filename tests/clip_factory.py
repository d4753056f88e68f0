"""Tiny CLIP and SigLIP checkpoints, with real tokenizers and image processors.

Their tokenizers pad as the published ones do: CLIP's with its end of text, SigLIP's with its end of
sentence, up to the length that the model was trained with.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from factories import HEADS, PATCH, PIXELS, WIDTH, new_image_processor
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

LENGTH = 32  # tokens of a text
CORPUS = ("a photo of cat", "a photo of dog, eel, fly or gnu", "a photo of red green blue sky")


def tiny_clip(path: Path, seed: int = 0) -> Path:
    """Save a CLIP of about 60 thousand parameters."""
    tokenizer = new_tokenizer("<|startoftext|>", "<|endoftext|>")
    config = transformers.CLIPConfig(
        text_config=tower(
            vocab_size=len(tokenizer),
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=tower(image_size=PIXELS, patch_size=PATCH),
        projection_dim=WIDTH,
    )
    processor = transformers.CLIPProcessor(new_image_processor(), tokenizer)
    return save(transformers.CLIPModel, config, processor, path, seed)


def tiny_siglip(path: Path, seed: int = 0) -> Path:
    """Save a SigLIP of about 60 thousand parameters."""
    tokenizer = new_tokenizer(None, "</s>")
    config = transformers.SiglipConfig(
        text_config=tower(
            vocab_size=len(tokenizer),
            max_position_embeddings=LENGTH,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        ),
        vision_config=tower(image_size=PIXELS, patch_size=PATCH),
    )
    images = transformers.SiglipImageProcessor(size={"height": PIXELS, "width": PIXELS})
    processor = transformers.SiglipProcessor(images, tokenizer)
    return save(transformers.SiglipModel, config, processor, path, seed)


def save(model_class: Any, config: Any, processor: Any, path: Path, seed: int) -> Path:
    """Build `model_class` from the seed, larger than by default so that embeddings differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.mul_(4)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def tower(**more: Any) -> dict[str, Any]:
    """Two layers of either tower."""
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        **more,
    }


def new_tokenizer(begin: str | None, end: str) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE, trained here, that ends a text with `end` and pads with it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in (begin, end) if token]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}" if begin else f"$A {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in special],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        pad_token=end,
        model_max_length=LENGTH,
        clean_up_tokenization_spaces=False,
    )
