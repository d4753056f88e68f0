"""Every family and layout of names: complete, loads clean, and is a merge of what is in memory."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import families
import pytest
import torch
import transformers
from commandline import mllmtool
from safetensors.torch import load_file, save_file
from weights import retuned, same_bits

WEIGHTS = "model.safetensors"
MAKERS: dict[str, Callable[[Path], Path]] = {
    "llava_next": families.tiny_llava_next,
    "qwen2_vl": families.tiny_qwen2_vl,
    "qwen2_5_vl": families.tiny_qwen2_5_vl,
    "instructblip": families.tiny_instructblip,
    "idefics3": families.tiny_idefics3,
}
ORIGINAL = (  # names of LLaVA's own files
    (r"^language_model\.model\.", "model."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^vision_tower\.", "model.vision_tower.vision_tower.vision_model."),
    (r"^multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
    (r"^multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, llava: Path) -> Callable[[str], Path]:
    """A family's tiny checkpoint."""
    folder, made = tmp_path_factory.mktemp("families"), {"llava": llava}

    def base(kind: str) -> Path:
        if kind not in made:
            made[kind] = MAKERS[kind](folder / kind)
        return made[kind]

    return base


def renamed(path: Path, into: Path, rules: tuple[tuple[str, str], ...]) -> Path:
    """A copy under other names."""
    shutil.copytree(path, into)
    tensors = load_file(path / WEIGHTS)
    for pattern, replacement in rules:
        tensors = {re.sub(pattern, replacement, name): t for name, t in tensors.items()}
    save_file(tensors, into / WEIGHTS, metadata={"format": "pt"})
    return into


def fuse(base: Path, models: list[Path], out: Path, *flags: object) -> dict[str, torch.Tensor]:
    """Add the task vectors up; the base's names come back, or it fails."""
    repeated = [argument for model in models for argument in ("--model", model)]
    argv = ("--method", "task-arithmetic", "--scale", 1, "--out", out, "--quiet", *flags)
    done = mllmtool("fuse", "--base", base, *repeated, *argv)
    assert (done.status, done.err) == (0, ""), done.err
    fused, before = load_file(out / WEIGHTS), load_file(base / WEIGHTS)
    assert {n: (t.shape, t.dtype) for n, t in fused.items()} == {
        n: (t.shape, t.dtype) for n, t in before.items()
    }
    return fused


def logits(path: Path, *adding: Path) -> torch.Tensor:
    """Of a loaded checkpoint, to which the task vectors of others are added in memory."""
    load = transformers.AutoModelForImageTextToText.from_pretrained
    model, info = load(path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    states = [load(other).state_dict() for other in adding]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            change = sum(state[name].double() - parameter.double() for state in states)
            parameter.copy_(parameter.double() + change)
        inner = getattr(model, "language_model", model)
        part = inner if model.config.model_type == "instructblip" else model
        found: torch.Tensor = part(input_ids=torch.tensor([[5, 7, 9]])).logits
    return found


@pytest.mark.parametrize("kind", ["llava", *MAKERS])
def test_a_family_is_complete_and_its_logits_are_those_of_a_merge_in_memory(
    kind: str, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    base = bases(kind)
    models = [retuned(tmp_path / str(seed), base, seed) for seed in (1, 2)]
    fuse(base, models, tmp_path / "out")
    assert torch.equal(logits(tmp_path / "out"), logits(base, *models))


@pytest.mark.parametrize("layout", ["memory", "hub", "original"])
@pytest.mark.parametrize("of_base", [False, True])
def test_layouts_of_names_may_differ(
    layout: str, of_base: bool, llava: Path, tmp_path: Path
) -> None:
    model, base = retuned(tmp_path / "model", llava, 1), llava
    expected = sorted(fuse(base, [model], tmp_path / "expected").items())
    other = base if of_base else model
    if layout == "original":
        other = renamed(other, tmp_path / layout, ORIGINAL)
    else:
        other = families.laid_out(other, tmp_path / layout, layout)
    found = fuse(other if of_base else base, [model if of_base else other], tmp_path / "out")
    assert same_tensors(found, [tensor for _, tensor in expected])
    if of_base and layout != "original":  # which transformers does not load
        assert torch.equal(logits(tmp_path / "out"), logits(base, model))


def same_tensors(found: dict[str, torch.Tensor], expected: list[torch.Tensor]) -> bool:
    """Whether the tensors are the same, whatever their names."""
    key = lambda t: (t.dim(), tuple(t.shape), t.flatten().tolist())  # noqa: E731 (used twice)
    pairs = zip(sorted(found.values(), key=key), sorted(expected, key=key), strict=True)
    return all(same_bits(a, b) for a, b in pairs)


def test_a_text_model_goes_into_the_decoder(bases: Callable[[str], Path], tmp_path: Path) -> None:
    base = bases("llava_next")
    text = retuned(tmp_path / "tuned", base, 3)
    tensors = {
        re.sub(r"^language_model\.", "", name): tensor
        for name, tensor in load_file(text / WEIGHTS).items()
        if name.startswith("language_model.")
    }
    save_file(tensors, text / WEIGHTS, metadata={"format": "pt"})
    found = fuse(base, [text], tmp_path / "out", "--parts", "language")
    before = load_file(base / WEIGHTS)
    for name, tensor in found.items():
        plain = re.sub(r"^language_model\.", "", name)
        assert torch.allclose(tensor, tensors.get(plain, before[name]), atol=1e-6), name
    done = mllmtool(
        *("fuse", "--base", base, "--model", text, "--method", "linear", "--out", tmp_path / "no")
    )
    assert done.status == 3
    assert f"{text}: lacks image_newline" in done.err


def test_a_tied_head_may_be_left_out_or_written_twice(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    base = tmp_path / "base"
    transformers.Qwen2ForCausalLM(config).save_pretrained(base)
    model = retuned(tmp_path / "model", base, 1)
    twice = load_file(model / WEIGHTS)
    twice["lm_head.weight"] = twice["model.embed_tokens.weight"].clone()
    both = shutil.copytree(model, tmp_path / "both")
    save_file(twice, both / WEIGHTS, metadata={"format": "pt"})
    one, two = (fuse(base, [path], tmp_path / f"{path.name}-out") for path in (model, both))
    assert "lm_head.weight" not in one
    assert all(same_bits(one[name], two[name]) for name in one)
    back = fuse(both, [model], tmp_path / "back")
    assert same_bits(back["lm_head.weight"], back["model.embed_tokens.weight"])


def test_an_adapter_is_a_model(llava: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    prefix = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
    before = load_file(llava / WEIGHTS)
    name = "language_model.model.layers.0.self_attn.q_proj.weight"
    out_features, in_features = before[name].shape
    a, b = torch.randn(2, in_features), torch.randn(out_features, 2)
    tensors = {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    found = fuse(llava, [folder], tmp_path / "out")
    for key, tensor in before.items():
        expected = tensor + 2 * b @ a if key == name else tensor
        assert torch.allclose(found[key], expected, rtol=1e-5, atol=1e-6), key
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [each["role"] for each in report["inputs"]] == ["base", "adapter"]
