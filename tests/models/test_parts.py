"""Parts: the generic rule and the name table, on every family that is served."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.core_model_loading import revert_weight_conversion

from mllmtool.checkpoints import Checkpoint
from mllmtool.errors import CheckpointError
from mllmtool.models.families import FAMILIES, family_of
from mllmtool.models.loading import load_model
from mllmtool.models.parts import part_of, partition

# Of each family: what vision and projector are to hold, as prefixes of names in memory. All else is
# language. Read off the models' printed modules, not off the rule.
IMAGE_FAMILIES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "llava": ("Llava", ("model.vision_tower.",), ("model.multi_modal_projector.",)),
    "llava_next": (
        "LlavaNext",
        ("model.vision_tower.",),
        ("model.multi_modal_projector.", "model.image_newline"),
    ),
    "paligemma": ("PaliGemma", ("model.vision_tower.",), ("model.multi_modal_projector.",)),
    "idefics3": ("Idefics3", ("model.vision_model.",), ("model.connector.",)),
    "instructblip": (
        "InstructBlip",
        ("vision_model.",),
        ("qformer.", "query_tokens", "language_projection."),
    ),
    "qwen2_vl": (
        "Qwen2VL",
        ("model.visual.blocks.", "model.visual.patch_embed."),
        ("model.visual.merger.",),
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VL",
        ("model.visual.blocks.", "model.visual.patch_embed."),
        ("model.visual.merger.",),
    ),
}
TEXT_FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


def on_meta(config_class: str, model_class: str) -> Any:
    """A model of default size without storage."""
    with torch.device("meta"):
        return getattr(transformers, model_class)(getattr(transformers, config_class)())


def test_every_family_is_tested() -> None:
    assert set(FAMILIES) == set(IMAGE_FAMILIES) | set(TEXT_FAMILIES)


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_parts_are_what_the_modules_say(family: str) -> None:
    stem, vision, projector = IMAGE_FAMILIES[family]
    model = on_meta(f"{stem}Config", f"{stem}ForConditionalGeneration")
    parts = partition(model)
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert list(parts) == names
    for name in names:
        if name.startswith(projector):
            assert parts[name] == "projector"
        else:
            assert parts[name] == ("vision" if name.startswith(vision) else "language"), name
    assert set(parts.values()) == {"vision", "projector", "language"}


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_name_table_agrees_in_memory_and_on_disk(family: str) -> None:
    stem = IMAGE_FAMILIES[family][0]
    model = on_meta(f"{stem}Config", f"{stem}ForConditionalGeneration")
    parts = partition(model)
    assert {name: part_of(name) for name in parts} == parts
    on_disk = revert_weight_conversion(model, dict.fromkeys(parts, torch.empty(0)))
    assert Counter(part_of(name) for name in on_disk) == Counter(parts.values())


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_all_of_a_text_model_is_language(family: str) -> None:
    stem = TEXT_FAMILIES[family]
    parts = partition(on_meta(f"{stem}Config", f"{stem}ForCausalLM"))
    assert set(parts.values()) == {"language"}
    assert {part_of(name) for name in parts} == {"language"}


def test_instructblip_language_reaches_past_its_decoder() -> None:
    # get_decoder() is language_model.model.decoder; the head lies two levels above it
    parts = partition(on_meta("InstructBlipConfig", "InstructBlipForConditionalGeneration"))
    assert parts["language_model.lm_head.weight"] == "language"


def test_real_checkpoints_names_have_the_parts_of_their_weights(llava: Path, llama: Path) -> None:
    for path in (llava, llama):
        on_disk = Counter(part_of(name) for name in Checkpoint.open(path).names)
        unique = dict(load_model(path).named_parameters())
        parts = partition(load_model(path))
        assert on_disk == Counter(parts[name] for name in unique)


def test_module_of_no_part_is_an_error(llava: Path) -> None:
    model = load_model(llava)
    model.model.audio_tower = nn.Linear(2, 2)
    with pytest.raises(CheckpointError) as caught:
        partition(model)
    assert str(caught.value) == (
        "LlavaForConditionalGeneration: model.audio_tower.weight, model.audio_tower.bias in no"
        " part, or in two; it holds lm_head.weight, model.audio_tower, model.language_model,"
        " model.multi_modal_projector, model.vision_tower"
    )


def test_unknown_name_is_an_error() -> None:
    with pytest.raises(CheckpointError) as caught:
        part_of("audio_tower.layers.0.weight")
    assert str(caught.value) == (
        "audio_tower.layers.0.weight: is of no part (vision, projector, language) that is known"
    )


def test_unknown_family_names_the_types_seen() -> None:
    config = {"model_type": "fuyu", "text_config": {"model_type": "persimmon"}}
    with pytest.raises(CheckpointError) as caught:
        family_of(config, "base/config.json")
    assert str(caught.value) == (
        "base/config.json: model_type fuyu (with text_config persimmon) is of no family that is"
        f" served; those are {', '.join(FAMILIES)}"
    )
