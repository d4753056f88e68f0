"""Layouts of names meet in one."""

import pytest

from mllmtool.checkpoints.naming import by_canonical, canonical
from mllmtool.errors import MismatchError

SAME = [
    (
        "language.layers.3.mlp.up_proj.weight",
        "model.layers.3.mlp.up_proj.weight",  # LLaVA's own, Qwen2-VL on disk, a text model
        "language_model.model.layers.3.mlp.up_proj.weight",  # the hub
        "model.language_model.layers.3.mlp.up_proj.weight",  # transformers 5 in memory
        "model.text_model.layers.3.mlp.up_proj.weight",  # Idefics3
    ),
    ("lm_head.weight", "lm_head.weight", "language_model.lm_head.weight"),
    (
        "language.embed_tokens.weight",
        "model.embed_tokens.weight",
        "language_model.model.embed_tokens.weight",
        "model.language_model.embed_tokens.weight",
    ),
    (
        "vision.encoder.layers.1.mlp.fc1.bias",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc1.bias",
        "vision_tower.vision_model.encoder.layers.1.mlp.fc1.bias",
        "vision_tower.encoder.layers.1.mlp.fc1.bias",
        "model.vision_tower.encoder.layers.1.mlp.fc1.bias",
        "model.vision_model.encoder.layers.1.mlp.fc1.bias",
    ),
    ("vision.blocks.0.attn.qkv.bias", "visual.blocks.0.attn.qkv.bias"),
    (
        "multi_modal_projector.linear_1.weight",
        "model.mm_projector.0.weight",
        "multi_modal_projector.linear_1.weight",
        "model.multi_modal_projector.linear_1.weight",
    ),
    ("image_newline", "model.image_newline", "image_newline"),
    (
        "qformer.encoder.layer.0.attention.attention.key.weight",
        "qformer.encoder.layer.0.attention.attention.key.weight",
    ),
]


@pytest.mark.parametrize("row", SAME, ids=lambda row: row[0])
def test_layouts_meet(row: tuple[str, ...]) -> None:
    assert {canonical(name) for name in row[1:]} == {row[0]}


def test_two_names_of_one_tensor() -> None:
    with pytest.raises(MismatchError) as caught:
        by_canonical(["lm_head.weight", "language_model.lm_head.weight"], "C")
    assert str(caught.value) == (
        "C: lm_head.weight and language_model.lm_head.weight are two names of one tensor"
    )
