"""Model families: what of a `model_type` the generic transformers API does not say.

A new family is a row here and a tiny checkpoint in `tests/families.py`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from mllmtool.errors import CheckpointError

# Of what the hub's checkpoints have no chat template. LAVIS' `blip2_vicuna_instruct.py` gives the
# language model image, question and answer, and nothing between them.
INSTRUCTBLIP = """\
{%- set question = messages[0]['content'] -%}
{%- if messages | length > 2 or messages[0]['role'] != 'user' -%}
{{ raise_exception('InstructBLIP takes one question and its answer') }}
{%- endif -%}
{%- if question | selectattr('type', 'equalto', 'image') | list | length != 1 -%}
{{ raise_exception('InstructBLIP takes exactly one image') }}
{%- endif -%}
{{ '<image>' + question | selectattr('type', 'equalto', 'text') | map(attribute='text') | join }}
{%- for answer in messages[1:] -%}
{{ answer['content'] | map(attribute='text') | join + eos_token }}
{%- endfor -%}
"""

# `PaliGemmaProcessor` puts images and <bos> before a question, and a line break behind it.
PALIGEMMA = """\
{%- set question = messages[0]['content'] -%}
{%- set images = question | selectattr('type', 'equalto', 'image') | list -%}
{%- if messages | length > 2 or messages[0]['role'] != 'user' -%}
{{ raise_exception('PaliGemma takes one question and its answer') }}
{%- endif -%}
{%- if not images -%}
{{ raise_exception('PaliGemma takes at least one image') }}
{%- endif -%}
{{ '<image>' * images | length + bos_token }}
{{- question | selectattr('type', 'equalto', 'text') | map(attribute='text') | join + '\\n' }}
{%- for answer in messages[1:] -%}
{{ answer['content'] | map(attribute='text') | join + eos_token }}
{%- endfor -%}
"""


@dataclass(frozen=True)
class Family:
    """What is special.

    images: whether it reads pictures.
    merger: the child of the vision module that is the projector (Qwen's towers hold their own).
    processor: the class to build without its part for videos, which wants torchvision.
    template: the chat template where a checkpoint has none.
    apart: images, question and answer are tokenised apart, and what the model makes of an image
        depends on the question, so that no other question can share its reading.
    sized: a picture is scaled until its pixels are between two bounds.
    nested: pixels are (rows, images of a row, ...), not (images, ...).
    extra: a further tensor of a batch, by its name.
    """

    images: bool = True
    merger: str | None = None
    processor: str | None = None
    template: str | None = None
    apart: bool = False
    sized: bool = False
    nested: bool = False
    extra: Literal["mm_token_type_ids", "token_type_ids", "qformer_input_ids"] | None = None


TEXT = Family(images=False)

FAMILIES: dict[str, Family] = {
    "llava": Family(),
    "llava_next": Family(),
    "paligemma": Family(template=PALIGEMMA, apart=True, extra="token_type_ids"),
    "idefics3": Family(nested=True),
    "instructblip": Family(template=INSTRUCTBLIP, apart=True, extra="qformer_input_ids"),
    "qwen2_vl": Family(
        merger="merger", processor="Qwen2VLProcessor", sized=True, extra="mm_token_type_ids"
    ),
    "qwen2_5_vl": Family(
        merger="merger", processor="Qwen2_5_VLProcessor", sized=True, extra="mm_token_type_ids"
    ),
    "llama": TEXT,
    "mistral": TEXT,
    "qwen2": TEXT,
    "qwen3": TEXT,
}


def family_of(config: dict[str, Any], where: str = "config.json") -> Family:
    """The family of a checkpoint's `config.json`.

    Raises:
        CheckpointError: no row serves its `model_type`.
    """
    seen = config.get("model_type")
    if isinstance(seen, str) and seen in FAMILIES:
        return FAMILIES[seen]
    inner = [
        f"{key} {value.get('model_type')}"
        for key, value in sorted(config.items())
        if isinstance(value, dict) and "model_type" in value
    ]
    holds = f" (with {', '.join(inner)})" if inner else ""
    raise CheckpointError(
        f"{where}: model_type {seen}{holds} is of no family that is served;"
        f" those are {', '.join(FAMILIES)}"
    )
