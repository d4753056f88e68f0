"""Adapters against PEFT's own merge, and refused where its formula is another."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from mllmtool.checkpoints import Checkpoint
from mllmtool.checkpoints.adapter import AdaptedCheckpoint, is_adapter
from mllmtool.errors import InputError

# PEFT asks transformers by a name that it will lose
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]

LAYERS = {"target_modules": ["q_proj", "down_proj"], "r": 4, "lora_alpha": 6}
KINDS: dict[str, dict[str, Any]] = {
    "lora": LAYERS,
    "rslora": {**LAYERS, "use_rslora": True},
    "dora": {**LAYERS, "use_dora": True},
    "patterns": {
        **LAYERS,
        "rank_pattern": {"down_proj": 2, r"layers\.1\.self_attn\.q_proj": 8},
        "alpha_pattern": {"q_proj": 3},
    },
    "embedding and head": {**LAYERS, "target_modules": ["embed_tokens", "lm_head"]},
    "modules_to_save": {**LAYERS, "modules_to_save": ["lm_head"]},
    "biases": {**LAYERS, "bias": "all"},
    "a bias of its own": {**LAYERS, "target_modules": ["q_proj"], "lora_bias": True},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen2, whose attention has biases."""
    config = transformers.Qwen2Config(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base")
    model = transformers.Qwen2ForCausalLM(config)
    for parameter in model.parameters():  # biases are 0 at first
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(path)
    return path


def adapter(base: Path, into: Path, **settings: Any) -> Path:
    """An adapter with random numbers, saved by PEFT."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    generator = torch.Generator().manual_seed(1)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.data += noise
    adapted.save_pretrained(str(into))
    return into


@pytest.mark.parametrize("kind", KINDS)
def test_reads_what_peft_merges(base: Path, tmp_path: Path, kind: str) -> None:
    path = adapter(base, tmp_path / "adapter", **KINDS[kind])
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    merged = PeftModel.from_pretrained(model, path).merge_and_unload().state_dict()
    ours, before = AdaptedCheckpoint(Checkpoint.open(base), path), Checkpoint.open(base)
    assert is_adapter(path)
    assert ours.names == before.names == tuple(sorted(merged))
    for name, expected in merged.items():
        assert torch.allclose(ours[name], expected, rtol=1e-5, atol=1e-6), name
    changed = [name for name in ours.names if not torch.equal(merged[name], before[name])]
    assert list(ours.adapted) == changed


def test_pieces_do_not_matter(base: Path, tmp_path: Path) -> None:
    path = adapter(base, tmp_path / "adapter", **KINDS["dora"])
    ours = AdaptedCheckpoint(Checkpoint.open(base), path)
    name = "model.layers.0.mlp.down_proj.weight"
    whole = ours.read(name)
    for length in (1, 7, 24, 100):
        pieces = ours.pieces(name, length)
        assert [entry for piece in pieces for entry in piece.tolist()] == whole.tolist()


def refusal(base: Path, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        AdaptedCheckpoint(Checkpoint.open(base), path)
    return str(caught.value).replace(str(path), "A").replace(str(base), "B")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "A: is of type LOHA; only LoRA, rsLoRA and DoRA are read"),
        (
            {"init_lora_weights": "pissa"},
            "A: init_lora_weights pissa is not read; merge it with PEFT first",
        ),
        (
            {"layer_replication": [[0, 2]]},
            "A: layer_replication is not read; merge it with PEFT first",
        ),
        (
            {"r": 3},
            "A: model.layers.0.mlp.down_proj: is of rank 4, its config says 3",
        ),
        ({"r": "x"}, "A/adapter_config.json: is no config of a LoRA adapter"),
    ],
)
def test_refuses_what_it_would_get_wrong(
    base: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = adapter(base, tmp_path / "adapter", **LAYERS)
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | changes))
    assert refusal(base, path) == message


def test_refuses_keys_that_fit_nothing(base: Path, tmp_path: Path) -> None:
    path = adapter(base, tmp_path / "adapter", **LAYERS)
    tensors = load_file(path / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"

    def saved(**changed: torch.Tensor) -> Path:
        save_file(tensors | changed, path / "adapter_model.safetensors")
        return path

    odd = {"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.ones(4, 16)}
    assert refusal(base, saved(**odd)) == f"A: {next(iter(odd))} is for no tensor of B"
    assert refusal(base, saved(**{"base_model.model.lm_head.weight": torch.ones(51, 16)})) == (
        "lm_head.weight: shape (51, 16) in A, (50, 16) in B"
    )
    wide = {f"{prefix}.lora_A.weight": torch.ones(4, 17)}
    assert refusal(base, saved(**wide)) == (
        "model.layers.0.self_attn.q_proj.weight: (16, 17) in A, (16, 16) in B"
    )
    del tensors[f"{prefix}.lora_A.weight"]
    assert refusal(base, saved()) == "A: model.layers.0.self_attn.q_proj: has only B"


def test_refuses_to_untie_a_head(base: Path, tmp_path: Path) -> None:
    path = adapter(base, tmp_path / "adapter", **KINDS["modules_to_save"])
    copy = tmp_path / "base"
    copy.mkdir()
    config = json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": True}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    assert refusal(copy, path) == (
        "A: adapts lm_head.weight, and B holds a second copy of it, as its config ties them;"
        " save the base without the copy"
    )
