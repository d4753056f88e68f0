"""`tailor --save-moments` and `--moments`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import Done, mllmtool
from safetensors.torch import load_file, save_file

from mllmtool.checkpoints import Checkpoint


def tune(path: Path, base: Path, seed: int = 1) -> Path:
    """A copy of `base` with noise on every tensor."""
    shutil.copytree(base, path)
    rng = torch.Generator().manual_seed(seed)
    tuned = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=rng)
        for name, tensor in load_file(base / "model.safetensors").items()
    }
    save_file(tuned, path / "model.safetensors", metadata={"format": "pt"})
    return path


def tailor(out: Path, pre: Path, sft: Path, *flags: object) -> Done:
    return mllmtool("tailor", "--pre", pre, "--sft", sft, "--out", out, "--quiet", *flags)


def print_of(done: Done) -> str:
    """The made checkpoint's fingerprint."""
    assert done.status == 0, done.err
    return Checkpoint.open(done.out.strip()).fingerprint()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, llava: Path, colours: Path) -> Path:
    """A folder of a tuned LLaVA `ft` and its moments in `kept`, on samples and anchors."""
    root = tmp_path_factory.mktemp("kept")
    flags = ("--calibration", colours, "--anchor", colours, "--num-samples", 6)
    sft = tune(root / "ft", llava)
    done = tailor(root / "first", llava, sft, *flags, "--save-moments", root / "kept")
    assert done.status == 0, done.err
    return root


@pytest.mark.parametrize(
    "flags",
    [
        ("--sparsity", 0.1, "--preset", "anchored"),
        ("--sparsity", 0.4, "--preset", "anchored", "--anchor-weight", 0.3),
        ("--sparsity", 0.2, "--salience-weight", 0.9),
        ("--sparsity", 0.2, "--preset", "released"),
        ("--parts", "vision", "--others", "pre"),
    ],
)
def test_kept_moments_are_the_passes(
    tmp_path: Path, kept: Path, llava: Path, colours: Path, flags: tuple[Any, ...]
) -> None:
    """To the last bit, at any density, weight, anchor weight, preset and part."""
    samples = ("--calibration", colours, "--num-samples", 6, "--inputs", "tuned")
    anchors = ("--anchor", colours) if "anchored" in flags else ()
    passes = tailor(tmp_path / "a", llava, kept / "ft", *samples, *anchors, *flags)
    read = tailor(tmp_path / "b", llava, kept / "ft", "--moments", kept / "kept", *flags)
    assert print_of(read) == print_of(passes)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in "ab"]
    for report in reports:
        report["results"] |= {"parts": None, "wise_ft": None}
        for row in report["results"]["maps"]:
            for task in row["tasks"]:  # a run without anchors knows of no drift
                task.pop("anchor_drift")
    assert reports[0]["results"] == reports[1]["results"]
    assert [each["role"] for each in reports[1]["inputs"]] == ["pre", "sft", "moments"]


def test_saving_changes_nothing(tmp_path: Path, kept: Path, llava: Path, colours: Path) -> None:
    flags = ("--calibration", colours, "--anchor", colours, "--num-samples", 6, "--inputs", "tuned")
    done = tailor(tmp_path / "o", llava, kept / "ft", *flags)
    assert print_of(done) == Checkpoint.open(kept / "first").fingerprint()


def test_layers_with_one_input_share_one_matrix(kept: Path) -> None:
    index = json.loads((kept / "kept" / "moments.json").read_text())
    full = {
        found["names"][0]: (found["file"], found["moments"][0]["full"]) for found in index["maps"]
    }
    block = "language_model.model.layers.0"
    attention = {full[f"{block}.self_attn.{name}_proj.weight"] for name in "qkv"}
    assert len(attention) == 1
    assert full[f"{block}.mlp.gate_proj.weight"] == full[f"{block}.mlp.up_proj.weight"]
    assert full[f"{block}.self_attn.o_proj.weight"] not in attention


def test_moments_that_do_not_fit(tmp_path: Path, kept: Path, llava: Path, colours: Path) -> None:
    def refused(pre: Path, sft: Path, *flags: object) -> tuple[int, str]:
        done = tailor(tmp_path / "o", pre, sft, *flags)
        assert not (tmp_path / "o").exists()
        assert done.out == ""
        return done.status, done.err.replace(str(tmp_path), "DIR").replace(str(kept), "KEPT")

    ours = Checkpoint.open(kept / "ft").fingerprint()[:12]
    other = tune(tmp_path / "other", llava, seed=2)
    theirs = Checkpoint.open(other).fingerprint()[:12]
    moments = ("--moments", kept / "kept")
    assert refused(llava, other, *moments) == (
        3,
        f"mllmtool: KEPT/kept: holds the moments of a model {ours}, and DIR/other is {theirs};"
        " record its own with --save-moments\n",
    )
    assert refused(llava, kept / "ft", "--moments", tmp_path) == (
        3,
        "mllmtool: DIR: holds no moments.json; make it with tailor --save-moments\n",
    )
    samples = ("--calibration", colours)
    assert refused(llava, kept / "ft", *samples, "--save-moments", kept / "kept") == (
        4,
        "mllmtool: KEPT/kept: exists; choose another --save-moments, or remove it\n",
    )
    shutil.copytree(kept / "kept", tmp_path / "cut")
    (tmp_path / "cut" / "00003.safetensors").write_bytes(b"12345678")
    status, message = refused(llava, kept / "ft", "--moments", tmp_path / "cut")
    assert status == 3
    assert message.startswith("mllmtool: DIR/cut/00003.safetensors: is not a whole safetensors")
    (tmp_path / "cut" / "moments.json").write_text("{}")
    assert refused(llava, kept / "ft", "--moments", tmp_path / "cut") == (
        3,
        "mllmtool: DIR/cut/moments.json: is not an index of moments\n",
    )


def test_moments_without_a_tensor_or_anchors(tmp_path: Path, llama: Path, sums: Path) -> None:
    sft = tune(tmp_path / "ft", llama)
    shutil.copytree(llama, tmp_path / "near")  # a base from which fewer tensors differ
    tensors = load_file(llama / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = load_file(sft / "model.safetensors")[name]
    save_file(tensors, tmp_path / "near" / "model.safetensors", metadata={"format": "pt"})
    flags = ("--calibration", sums, "--save-moments", tmp_path / "kept")
    assert tailor(tmp_path / "a", tmp_path / "near", sft, *flags).status == 0
    moments = ("--moments", tmp_path / "kept")
    assert tailor(tmp_path / "b", llama, sft, *moments).err == (
        f"mllmtool: {tmp_path}/kept: holds no moments of {name}, which differ from the base; record"
        " them with --save-moments\n"
    )
    assert tailor(tmp_path / "c", llama, sft, *moments, "--preset", "anchored").err == (
        f"mllmtool: {tmp_path}/kept: holds no moments of anchors; record them with --anchor\n"
    )


def test_a_failed_run_keeps_no_moments(tmp_path: Path, llama: Path, sums: Path) -> None:
    sft = tune(tmp_path / "ft", llama)
    tensors = load_file(sft / "model.safetensors")
    tensors["model.layers.0.self_attn.v_proj.weight"] *= 1e38
    save_file(tensors, sft / "model.safetensors", metadata={"format": "pt"})
    flags = ("--calibration", sums, "--save-moments", tmp_path / "kept")
    done = tailor(tmp_path / "o", llama, sft, *flags)
    assert (done.status, done.err) == (
        5,
        "mllmtool: model.layers.0.self_attn.o_proj.weight: its input is NaN or Inf on these"
        " samples\n",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ft"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--moments", "m", "--anchor", "a"), "--anchor: is not read with --moments, which are"),
        (("--moments", "m", "--calibration", "a"), "--calibration: is not read with --moments"),
        (("--moments", "m", "--save-moments", "n"), "--save-moments: is not read with --moments"),
        (("--save-moments", "m", "--inputs", "tailored"), "--inputs tailored: moments that are"),
    ],
)
def test_flags_that_cannot_be(
    tmp_path: Path, llama: Path, flags: tuple[str, ...], message: str
) -> None:
    done = tailor(tmp_path / "o", llama, llama, *flags)
    assert done.status == 2
    assert done.err.startswith(f"mllmtool: {message}")
