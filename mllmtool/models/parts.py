"""The parts of a model: vision, projector, language; every tensor is in exactly one.

`partition` asks a live model, by the generic API of transformers; `part_of` reads a name, on disk
or in memory, by a table. Tests hold the two together. Reading a name loads neither torch nor
transformers.
"""

import re
from typing import TYPE_CHECKING

from mllmtool.configs.base import Part
from mllmtool.errors import CheckpointError, some
from mllmtool.models.families import family_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

# The first pattern that a name holds decides: projectors may lie inside a vision tower. Every
# pattern is of whole steps of a dotted name.
PROJECTOR = (
    "multi_modal_projector|mm_projector|image_projector|connector|merger|deepstack_merger_list"
    "|aligner|qformer|query_tokens|language_projection|image_newline|view_seperator"
)
NAMES: tuple[tuple[Part, str], ...] = (
    ("projector", rf"(^|\.)({PROJECTOR})(\.|$)"),
    ("vision", r"(^|\.)(vision_tower|visual|vision_model|vision_encoder|image_tower)\."),
    ("language", r"(^|\.)(language_model|text_model)\."),
    ("language", r"^(model\.)?(embed_tokens|layers|norm|lm_head)\."),
)


def part_of(name: str) -> Part:
    """The part of a tensor, by its name on disk or in memory.

    Raises:
        CheckpointError: the name is of no known form.
    """
    for part, pattern in NAMES:
        if re.search(pattern, name):
            return part
    raise CheckpointError(f"{name}: is of no part (vision, projector, language) that is known")


def partition(model: "PreTrainedModel") -> dict[str, Part]:
    """Every parameter's part, tied names included, in the model's order.

    Raises:
        CheckpointError: a parameter is in two parts or in none.
    """
    family = family_of(model.config.to_dict())
    vision = _path(model, model.get_encoder(modality="image")) if family.images else None
    language = _language_paths(model, vision)
    merger = f"{vision}.{family.merger}." if family.merger else None
    parts = {
        name: _part(name, vision, language, merger)
        for name, _ in model.named_parameters(remove_duplicate=False)
    }
    lost = [name for name, part in parts.items() if part is None]
    if lost:
        modules = sorted({".".join(name.split(".")[:2]) for name in parts})
        raise CheckpointError(
            f"{type(model).__name__}: {some(lost)} in no part, or in two; it holds"
            f" {', '.join(modules)}"
        )
    return {name: part for name, part in parts.items() if part is not None}


def _part(name: str, vision: str | None, language: list[str], merger: str | None) -> Part | None:
    in_vision = vision is not None and name.startswith(f"{vision}.")
    in_language = any(name.startswith(f"{path}.") for path in language)
    if in_vision and in_language:
        return None
    if merger and name.startswith(merger):
        return "projector"
    if in_vision:
        return "vision"
    if in_language:
        return "language"
    return "projector" if re.search(NAMES[0][1], name) else None


def _language_paths(model: "PreTrainedModel", vision: str | None) -> list[str]:
    """Paths of the decoder with its own head (InstructBLIP's holds one), embeddings and head."""
    decoder = _path(model, model.get_decoder())
    steps = decoder.split(".")
    outer = (".".join(steps[:n]) for n in range(1, len(steps)))
    whole = [path for path in outer if not f"{vision}.".startswith(f"{path}.")]
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return [whole[0] if whole else decoder, *(_path(model, end) for end in ends if end is not None)]


def _path(model: "PreTrainedModel", module: "nn.Module") -> str:
    for path, candidate in model.named_modules(remove_duplicate=False):
        if candidate is module and path:
            return str(path)
    raise CheckpointError(
        f"{type(model).__name__}: its {type(module).__name__} is the whole model, not a part;"
        " is config.json that of a multimodal checkpoint?"
    )
