"""Loading whole or not at all, and names on disk."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mllmtool.checkpoints import Checkpoint
from mllmtool.errors import CheckpointError, MismatchError, NumericError
from mllmtool.models.loading import disk_names, load_model


def changed(source: Path, into: Path, change: dict[str, torch.Tensor | None]) -> Path:
    """A copy of a checkpoint with some tensors replaced, added, or left out."""
    shutil.copytree(source, into)
    tensors = load_file(source / "model.safetensors") | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, into / "model.safetensors", metadata={"format": "pt"})
    return into


@pytest.mark.parametrize("fixture", ["llava", "llama"])
def test_disk_names_are_total_and_hold_the_same_weights(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(fixture)
    model, checkpoint = load_model(path), Checkpoint.open(path)
    names = disk_names(model, checkpoint)
    assert set(names) == set(model.state_dict())
    assert set(names.values()) == set(checkpoint.names)
    for memory, tensor in model.state_dict().items():
        assert torch.equal(tensor, checkpoint[names[memory]])


def test_names_on_disk_differ_from_those_in_memory(llava: Path) -> None:
    names = disk_names(load_model(llava), Checkpoint.open(llava))
    assert names["model.language_model.norm.weight"] == "language_model.model.norm.weight"
    assert names["lm_head.weight"] == "language_model.lm_head.weight"


def test_tied_head_shares_the_embeddings_name(llama: Path) -> None:
    names = disk_names(load_model(llama), Checkpoint.open(llama))
    assert names["lm_head.weight"] == names["model.embed_tokens.weight"]


def test_layout_of_the_hub_is_read_too(llava: Path, tmp_path: Path) -> None:
    # llava-hf's files: vision_tower.vision_model.*, as transformers before 5 wrote them
    old = {
        name: name.replace("vision_tower.", "vision_tower.vision_model.")
        for name in load_file(llava / "model.safetensors")
        if name.startswith("vision_tower.")
    }
    tensors = load_file(llava / "model.safetensors")
    path = changed(
        llava,
        tmp_path / "hub",
        {new: tensors[name] for name, new in old.items()} | dict.fromkeys(old),
    )
    model, checkpoint = load_model(path), Checkpoint.open(path)
    names = disk_names(model, checkpoint)
    assert set(names.values()) == set(checkpoint.names)
    assert torch.equal(
        model.state_dict()["model.vision_tower.post_layernorm.weight"],
        checkpoint[names["model.vision_tower.post_layernorm.weight"]],
    )


def test_missing_tensor(llava: Path, tmp_path: Path) -> None:
    path = changed(llava, tmp_path / "base", {"language_model.model.norm.weight": None})
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"{path}: lacks model.language_model.norm.weight, against its config.json"
    )


def test_unexpected_tensor(llava: Path, tmp_path: Path) -> None:
    path = changed(llava, tmp_path / "base", {"language_model.extra": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"has besides .*extra, against its config.json"):
        load_model(path)


def test_tensor_of_another_shape(llava: Path, tmp_path: Path) -> None:
    path = changed(llava, tmp_path / "base", {"language_model.model.norm.weight": torch.ones(7)})
    with pytest.raises(CheckpointError, match=r"other shapes of .*norm.weight"):
        load_model(path)


def test_nan(llava: Path, tmp_path: Path) -> None:
    tensor = torch.full((32,), float("nan"))
    path = changed(llava, tmp_path / "base", {"language_model.model.norm.weight": tensor})
    with pytest.raises(NumericError) as caught:
        load_model(path)
    assert str(caught.value) == f"model.language_model.norm.weight: holds NaN or Inf in {path}"


def test_config_that_transformers_refuses(llava: Path, tmp_path: Path) -> None:
    path = changed(llava, tmp_path / "base", {})
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["hidden_size"] = "wide"
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"transformers cannot load it: .*hidden_size"):
        load_model(path)


def test_tensors_that_memory_fuses_are_not_served(tmp_path: Path) -> None:
    config = transformers.MixtralConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path)
    model = transformers.MixtralForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(MismatchError) as caught:
        disk_names(model, Checkpoint.open(tmp_path))
    assert str(caught.value) == (
        "model.layers.0.block_sparse_moe.experts.0.w1.weight: is one of several tensors of"
        f" {tmp_path} that make up model.layers.0.mlp.experts.gate_up_proj; such checkpoints are"
        " not served"
    )


def test_tensor_that_no_disk_name_makes_up(llava: Path, llama: Path) -> None:
    with pytest.raises(MismatchError) as caught:
        disk_names(load_model(llava), Checkpoint.open(llama))
    assert str(caught.value).startswith(f"{llama}: no tensor on disk makes up lm_head.weight, ")
