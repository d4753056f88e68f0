"""`tailor` and `diff` of adapters that PEFT saved, against the checkpoints that merging gives."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from commandline import mllmtool
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from weights import same_bits

from mllmtool.checkpoints import Checkpoint
from mllmtool.checkpoints.adapter import AdaptedCheckpoint

# PEFT asks transformers by a name that it will lose
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
}


def adapter(base: Path, into: Path, **settings: Any) -> Path:
    """An adapter of two kinds of layers of the language model, with random numbers."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(base)
    targets = r".*language_model.*(q_proj|down_proj)"
    adapted = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=6, target_modules=targets, **settings)
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    adapted.save_pretrained(str(into))
    return into


def merged(base: Path, path: Path, into: Path) -> Path:
    """What PEFT merges, with the base's processor."""
    shutil.copytree(base, into)
    model = transformers.AutoModelForImageTextToText.from_pretrained(base)
    PeftModel.from_pretrained(model, path).merge_and_unload().save_pretrained(into)
    return into


def tailored(out: Path, pre: Path, sft: Path, *flags: object) -> dict[str, torch.Tensor]:
    done = mllmtool("tailor", "--pre", pre, "--sft", sft, "--out", out, "--quiet", *flags)
    assert (done.status, done.out) == (0, f"{out}\n"), done.err
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_tailored_as_what_it_merges_to(
    tmp_path: Path, llava: Path, colours: Path, kind: str
) -> None:
    path = adapter(llava, tmp_path / "adapter", **KINDS[kind])
    flags = ("--calibration", colours, "--sparsity", 0.1)
    ours = tailored(tmp_path / "ours", llava, path, *flags)

    # to the bit, of the tensors as they are read here
    shutil.copytree(llava, tmp_path / "read")
    read = AdaptedCheckpoint(Checkpoint.open(llava), path)
    save_file({name: read[name] for name in read.names}, tmp_path / "read/model.safetensors")
    same = tailored(tmp_path / "same", llava, tmp_path / "read", *flags)
    assert all(same_bits(ours[name], tensor) for name, tensor in same.items())
    results = [json.loads((tmp_path / n / "report.json").read_text()) for n in ("ours", "same")]
    assert results[0]["results"] == results[1]["results"]

    # PEFT merges in float32, and we in float64: the last bit of a weight may differ
    theirs = tailored(tmp_path / "theirs", llava, merged(llava, path, tmp_path / "peft"), *flags)
    base = load_file(llava / "model.safetensors")
    for name, tensor in theirs.items():
        assert torch.equal(ours[name] != base[name], tensor != base[name]), name
        assert torch.allclose(ours[name], tensor, rtol=1e-4, atol=1e-5), name
    moved = {name for name in base if not torch.equal(ours[name], base[name])}
    assert len(moved) == 4
    assert all("q_proj" in name or "down_proj" in name for name in moved)


def test_the_report_of_an_adapter_names_the_samples(
    tmp_path: Path, llava: Path, colours: Path
) -> None:
    train = ("--train", "language=lora:4", "--steps", 1, "--lr", "1e-2", "--batch", 2)
    argv = ("--model", llava, "--samples", colours, *train, "--out", tmp_path / "ft", "--quiet")
    assert mllmtool("finetune", *argv).status == 0
    path = tmp_path / "ft" / "adapter-language"
    done = mllmtool("tailor", "--pre", llava, "--sft", path, "--dry-run")
    assert done.status == 0, done.err
    assert json.loads(done.out)["calibration"][0]["samples"] == str(colours)

    alone = tmp_path / "alone" / "adapter"
    shutil.copytree(path, alone)
    done = mllmtool("tailor", "--pre", llava, "--sft", alone, "--dry-run")
    assert (done.status, done.err) == (
        2,
        f"mllmtool: --calibration: is required, as {alone} has no report.json to name its training"
        " data; or pass --solver none, which needs no samples\n",
    )


def test_an_adapter_that_adds_nothing_is_refused(
    tmp_path: Path, llava: Path, colours: Path
) -> None:
    path = adapter(llava, tmp_path / "adapter")
    weights = load_file(path / "adapter_model.safetensors")
    zeros = {name: torch.zeros_like(t) if "lora_B" in name else t for name, t in weights.items()}
    save_file(zeros, path / "adapter_model.safetensors")
    argv = ("--pre", llava, "--sft", path, "--calibration", colours, "--out", tmp_path / "o")
    done = mllmtool("tailor", *argv)
    assert (done.status, done.err) == (
        3,
        f"mllmtool: {path}: equals {llava} in every tensor; nothing to tailor\n",
    )
    assert not (tmp_path / "o").exists()


def test_diff_shows_what_an_adapter_changes(tmp_path: Path, llava: Path) -> None:
    path = adapter(llava, tmp_path / "adapter")
    found = json.loads(mllmtool("diff", llava, path, "--json").out)
    theirs = merged(llava, path, tmp_path / "peft")
    expected = json.loads(mllmtool("diff", llava, theirs, "--json").out)
    assert found["tensors"].keys() == expected["tensors"].keys()
    for name, row in found["tensors"].items():
        assert row == pytest.approx(expected["tensors"][name], rel=1e-3)
