"""A checkpoint's own tokenizer, chat template and image processor."""

import json
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoProcessor, AutoTokenizer

from mllmtool.errors import CheckpointError, ConfigError
from mllmtool.models.families import FAMILIES, Family


def load_processor(path: str | Path, family: Family) -> Any:
    """Read the processor of a checkpoint, or the tokenizer of one that reads no pictures.

    Raises:
        CheckpointError: a part of it is missing or unreadable.
    """
    try:
        loaded = _class(family).from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # hostile files make transformers raise anything
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its processor cannot be read: {reason}") from error
    if family.images and not hasattr(loaded, "image_processor"):
        raise CheckpointError(f"{path}: has no image processor; add processor_config.json")
    if family.extra == "qformer_input_ids" and not (Path(path) / "qformer_tokenizer").is_dir():
        raise CheckpointError(f"{path}: has no qformer_tokenizer/; copy the base's")
    tokenizer = loaded.tokenizer if family.images else loaded
    if not loaded.chat_template:
        loaded.chat_template = tokenizer.chat_template or family.template
    if not loaded.chat_template:
        raise CheckpointError(f"{path}: has no chat template; add chat_template.jinja")
    if not tokenizer.is_fast or tokenizer.eos_token is None:
        raise CheckpointError(f"{path}: needs a tokenizer.json and an eos_token")
    return loaded


def vocabulary(path: str | Path) -> dict[str, int]:
    """Every token of a checkpoint's tokenizer, and its id.

    Raises:
        CheckpointError: the tokenizer is missing or unreadable.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
        tokens: dict[str, int] = tokenizer.get_vocab()
    except Exception as error:  # hostile files make transformers raise anything
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its tokenizer cannot be read: {reason}") from error
    return tokens


def limit_pixels(processor: Any, family: Family, most: int) -> None:
    """Let the processor scale pictures down to at most so many pixels.

    Raises:
        ConfigError: it sizes pictures otherwise, or scales them up to more.
    """
    if not family.sized:
        sized = [name for name, row in FAMILIES.items() if row.sized]
        raise ConfigError(
            f"--image-max-pixels: only {' and '.join(sized)} size pictures by their pixels; leave"
            " it out"
        )
    size = processor.image_processor.size
    if most < size.shortest_edge:
        raise ConfigError(
            f"--image-max-pixels {most}: the processor scales pictures up to {size.shortest_edge}"
        )
    processor.image_processor.size = type(size)(shortest_edge=size.shortest_edge, longest_edge=most)


def answer_ends(path: str | Path, tokenizer: Any) -> list[str]:
    """Texts of the tokens that end an answer: the tokenizer's, then those generation stops at."""
    try:
        text = (Path(path) / "generation_config.json").read_text(encoding="utf-8")
        stops = json.loads(text).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        stops = None
    ids = stops if isinstance(stops, list) else [stops]
    known = [tokenizer.convert_ids_to_tokens(n) for n in ids if isinstance(n, int)]
    return list(dict.fromkeys([tokenizer.eos_token, *(text for text in known if text)]))


def _class(family: Family) -> Any:
    if not family.images:
        return AutoTokenizer
    if family.processor is None:
        return AutoProcessor
    whole = getattr(transformers, family.processor)
    parts = [name for name in whole.get_attributes() if name != "video_processor"]
    return type(whole.__name__, (whole,), {"get_attributes": classmethod(lambda _: parts)})
