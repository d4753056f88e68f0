"""Which parameters learn, and adapters that are merged away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mllmtool.checkpoints import Checkpoint
from mllmtool.configs.base import Part
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.data.samples import read_samples
from mllmtool.errors import ConfigError
from mllmtool.models.encoding import Encoder
from mllmtool.models.loading import disk_names, load_model
from mllmtool.models.parts import partition
from mllmtool.training.adapters import merge_adapters
from mllmtool.training.selection import select, trainable

Selected = tuple[Any, dict[str, Part], dict[Part, list[str]]]


@pytest.fixture
def selected(llava: Path) -> Callable[..., Selected]:
    def make(*train: str, base: Path = llava) -> Selected:
        model = load_model(base)
        parts = partition(model)
        values = {"model": "b", "samples": "s", "steps": 1, "train": list(train)}
        selection = select(model, parts, FinetuneConfig.parse(values), seed=0)
        return model, parts, selection.targets

    return make


@pytest.mark.parametrize("part", ["vision", "projector", "language"])
def test_full_part_learns_whole_and_alone(part: str, selected: Callable[..., Selected]) -> None:
    model, parts, targets = selected(f"{part}=full")
    assert set(trainable(model)) == {name for name, owner in parts.items() if owner == part}
    assert targets == {}


def test_adapters_are_on_the_linear_layers_of_their_part(
    selected: Callable[..., Selected],
) -> None:
    model, _, targets = selected("language=lora:4")
    layers = [f"model.language_model.layers.{n}" for n in range(2)]
    attention = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    linear = [*attention, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    assert targets == {"language": [f"{layer}.{name}" for layer in layers for name in linear]}
    assert set(trainable(model)) == {
        f"{name}.{matrix}.language.weight"
        for name in targets["language"]
        for matrix in ("lora_A", "lora_B")
    }


def test_no_adapter_lands_in_a_frozen_part(selected: Callable[..., Selected]) -> None:
    # the vision tower has q_proj, k_proj and v_proj too
    model, _, _ = selected("language=lora")
    assert not [n for n in trainable(model) if "vision_tower" in n or "projector" in n]


def test_tied_head_is_not_adapted(llama: Path, selected: Callable[..., Selected]) -> None:
    _, _, targets = selected("language=lora", base=llama)
    assert len(targets["language"]) == 14
    assert "lm_head" not in targets["language"]


def test_parts_may_be_adapted_and_full_side_by_side(
    llava: Path, colours: Path, selected: Callable[..., Selected]
) -> None:
    model, parts, targets = selected("vision=lora:2", "language=lora:4", "projector=full")
    assert len(targets["vision"]) == 12
    full = {name for name, part in parts.items() if part == "projector"}
    assert full < set(trainable(model))
    samples = list(read_samples(colours))[:2]
    model(**Encoder.load(llava).train_batch(samples, colours.parent)).loss.backward()
    # B is zero, so A has no gradient at first; the gradient of every B shows that all are awake
    dead = [name for name, p in trainable(model).items() if p.grad is None or not p.grad.any()]
    assert {name.split(".")[-3] for name in dead} == {"lora_A"}
    assert model.get_submodule(targets["vision"][0]).r == {"vision": 2}
    assert model.get_submodule(targets["language"][0]).scaling == {"language": 2.0}


def test_adapters_change_nothing_at_first(
    llava: Path, colours: Path, selected: Callable[..., Selected]
) -> None:
    batch = Encoder.load(llava).train_batch(list(read_samples(colours))[:2], colours.parent)
    model, _, _ = selected("language=lora")
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, load_model(llava)(**batch).logits)


def test_merged_model_gives_the_adapted_models_logits_under_the_bases_names(
    llava: Path, colours: Path, selected: Callable[..., Selected]
) -> None:
    batch = Encoder.load(llava).train_batch(list(read_samples(colours))[:2], colours.parent)
    model, parts, _ = selected("vision=lora", "language=lora")
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
        adapted = model(**batch).logits
        merge_adapters(model)
        merged = model(**batch).logits
        untouched = load_model(llava)(**batch).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=1e-5)
    assert (merged - untouched).abs().max() > 0.01
    assert [name for name, _ in model.named_parameters(remove_duplicate=False)] == list(parts)
    assert set(disk_names(model, Checkpoint.open(llava))) == set(model.state_dict())


def test_part_that_the_model_lacks(llama: Path, selected: Callable[..., Selected]) -> None:
    with pytest.raises(ConfigError) as caught:
        selected("vision=full", base=llama)
    assert str(caught.value) == "--train vision: the model has no such part; it has language"


def test_adapters_are_drawn_from_the_seed(selected: Callable[..., Selected]) -> None:
    torch.manual_seed(1)
    one = trainable(selected("language=lora")[0])
    torch.manual_seed(2)
    two = trainable(selected("language=lora")[0])
    assert all(torch.equal(one[name], two[name]) for name in one)


def learning(selected: Callable[..., Selected], *train: str) -> set[str]:
    return set(trainable(selected(*train)[0]))


def test_modules_of_a_part(selected: Callable[..., Selected]) -> None:
    # the vision tower has a q_proj and a v_proj in each of its layers too
    assert learning(selected, "language=full:q_proj,v_proj") == {
        f"model.language_model.layers.{n}.self_attn.{name}.weight"
        for n in range(2)
        for name in ("q_proj", "v_proj")
    }


def test_last_blocks_of_a_part(selected: Callable[..., Selected]) -> None:
    names = learning(selected, "language={full: {last: 1}}")
    assert len(names) == 9  # four of attention, three of the MLP, two norms
    assert all(name.startswith("model.language_model.layers.1.") for name in names)
    both = learning(selected, "language={full: {last: 1, modules: [mlp]}}")
    assert both == {name for name in names if ".mlp." in name}


def test_bitfit_and_norm(selected: Callable[..., Selected]) -> None:
    biases = learning(selected, "vision=bitfit")
    assert biases
    assert all("vision_tower" in name and name.endswith(".bias") for name in biases)
    norms = learning(selected, "language=norm")
    layers = [
        f"layers.{n}.{name}_layernorm" for n in range(2) for name in ("input", "post_attention")
    ]
    assert norms == {f"model.language_model.{name}.weight" for name in [*layers, "norm"]}


def test_adapters_on_chosen_layers(selected: Callable[..., Selected]) -> None:
    _, _, targets = selected("language={lora: {rank: 2, modules: [up_proj], last: 1}}")
    assert targets == {"language": ["model.language_model.layers.1.mlp.up_proj"]}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            "language=full:qq_proj",
            "--train language: no qq_proj in it; its layers are down_proj, embed_tokens, gate_proj,"
            " input_layernorm, k_proj, lm_head, norm, o_proj, post_attention_layernorm, q_proj,"
            " up_proj, v_proj",
        ),
        ("language={full: {last: 3}}", "--train language: the last 3 blocks of 2"),
        ("projector={full: {last: 1}}", "--train projector: the last 1 blocks of 0"),
        ("language=bitfit", "--train language=bitfit: the part has no bias"),
        ("projector=norm", "--train projector=norm: the part has no norm"),
    ],
)
def test_choice_of_nothing(train: str, message: str, selected: Callable[..., Selected]) -> None:
    with pytest.raises(ConfigError) as caught:
        selected(train)
    assert str(caught.value) == message


def test_tied_head_learns_by_either_name(llama: Path, selected: Callable[..., Selected]) -> None:
    one = selected("language=full:lm_head", base=llama)[0]
    other = selected("language=full:embed_tokens", base=llama)[0]
    assert list(trainable(one)) == list(trainable(other)) == ["model.embed_tokens.weight"]


def test_what_learns_is_float32_and_what_is_frozen_stays(llava: Path) -> None:
    for precision, learns in (("bf16-mixed", torch.float32), ("bf16", torch.bfloat16)):
        model = load_model(llava, torch.bfloat16)
        values = {"model": "b", "samples": "s", "steps": 1, "lr": 1e-3, "precision": precision}
        train = ["language=full", "vision=lora"]
        select(model, partition(model), FinetuneConfig.parse({**values, "train": train}), seed=0)
        frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
        assert frozen == {torch.bfloat16}
        assert {p.dtype for p in model.model.language_model.parameters()} == {learns}
