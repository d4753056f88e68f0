"""One name for a tensor whatever the layout of its file.

LLaVA's own files (`model.mm_projector.0`, `model.layers`), those of the hub
(`language_model.model.layers`, `vision_tower.vision_model`), those of transformers 5 in memory
(`model.language_model.layers`), and text models (`model.layers`) name the same tensors differently.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mllmtool.errors import MismatchError

EMBEDDINGS, HEAD = "language.embed_tokens.weight", "lm_head.weight"  # canonical names
PREFIX = r"^(?:model\.)?"
RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(PREFIX + pattern), replacement)
    for pattern, replacement in (
        (r"(?:language_model|text_model)\.lm_head\.", "lm_head."),
        (r"(?:language_model\.model|language_model|text_model)\.", "language."),
        (r"(?=(?:embed_tokens|layers|norm)\.)", "language."),
        (r"vision_tower\.(?:vision_tower\.)?(?:vision_model\.)?", "vision."),
        (r"(?:vision_model|visual)\.", "vision."),
        (r"mm_projector\.0\.", "multi_modal_projector.linear_1."),
        (r"mm_projector\.2\.", "multi_modal_projector.linear_2."),
    )
)


def canonical(name: str) -> str:
    """The name that all layouts share; another name of no known layout loses its `model.`."""
    for pattern, replacement in RULES:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    return name.removeprefix("model.")


def by_canonical(names: Iterable[str], where: object) -> dict[str, str]:
    """Canonical name -> name.

    Raises:
        MismatchError: two names are of one tensor.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(canonical(name), name)
        if other != name:
            raise MismatchError(f"{where}: {other} and {name} are two names of one tensor")
    return found


def tied(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` ties the head to the embeddings, as transformers reads it."""
    inner = config.get("text_config")
    for values in (config, inner if isinstance(inner, dict) else {}):
        if "tie_word_embeddings" in values:
            return bool(values["tie_word_embeddings"])
    return False
