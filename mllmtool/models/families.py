"""Model families: what of a `model_type` the generic transformers API does not say.

A new family is a row here and a tiny factory in the tests.
"""

from dataclasses import dataclass
from typing import Any

from mllmtool.errors import CheckpointError


@dataclass(frozen=True)
class Family:
    """What is special.

    `images` tells whether it reads pictures; `merger` names the child of the vision module that is
    the projector (Qwen's towers hold their own); `encodes` whether `models.encoding` makes its
    batches: its processor must expand image marks in chat text, and want no torchvision.
    """

    images: bool = True
    merger: str | None = None
    encodes: bool = False


TEXT = Family(images=False, encodes=True)
QWEN = Family(merger="merger")

FAMILIES: dict[str, Family] = {
    "llava": Family(encodes=True),
    "llava_next": Family(encodes=True),
    "paligemma": Family(),
    "idefics3": Family(),
    "instructblip": Family(),
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
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
