"""`tailor` where the tuned checkpoint's tokens are not the base's."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from commandline import Done, mllmtool
from safetensors.torch import load_file, save_file
from weights import same_bits

from mllmtool.checkpoints import Checkpoint

Tensors = dict[str, torch.Tensor]
EMBEDDINGS, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


def tensors(path: Path) -> Tensors:
    return load_file(path / "model.safetensors")


def tuned(base: Path, into: Path, rows: int, *tokens: str) -> Path:
    """A copy with noise on every tensor, with more vocabulary rows and tokens."""
    shutil.copytree(base, into)
    rng, stored = torch.Generator().manual_seed(1), tensors(base)
    for name in (n for n in (EMBEDDINGS, HEAD, "model.embed_tokens.weight") if n in stored):
        stored[name] = torch.cat([stored[name], torch.zeros(rows, stored[name].shape[1])])
    noisy = {n: t + 0.05 * torch.randn(t.shape, generator=rng) for n, t in stored.items()}
    save_file(noisy, into / "model.safetensors", metadata={"format": "pt"})
    tokenizer = transformers.AutoTokenizer.from_pretrained(into)
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(into)
    config = json.loads((into / "config.json").read_text())
    config.get("text_config", config)["vocab_size"] += rows
    (into / "config.json").write_text(json.dumps(config))
    return into


def tailor(out: Path, pre: Path, sft: Path, *flags: object) -> Done:
    return mllmtool("tailor", "--pre", pre, "--sft", sft, "--out", out, "--quiet", *flags)


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_added_rows_stay_tuned(tmp_path: Path, llava: Path, colours: Path, density: float) -> None:
    ft = tuned(llava, tmp_path / "ft", 3, "<box>", "<point>")
    out = tmp_path / "o"
    done = tailor(out, llava, ft, "--calibration", colours, "--sparsity", density)
    assert done.status == 0, done.err
    before, after, ours = tensors(llava), tensors(ft), tensors(out)
    for name, tensor in ours.items():
        rows = len(before[name])
        assert tensor.shape == after[name].shape
        assert same_bits(tensor[rows:], after[name][rows:]), name
        if density == 1:
            assert same_bits(tensor, after[name]), name
        else:
            differs = tensor[:rows] != before[name]
            assert float(differs.double().mean()) < 0.12, name
    found = json.loads((out / "report.json").read_text())["inputs"][0]
    assert found["sha256"] == Checkpoint.open(llava).fingerprint()
    _, info = transformers.AutoModelForImageTextToText.from_pretrained(
        out, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert "<box>" in transformers.AutoProcessor.from_pretrained(out).tokenizer.get_vocab()


def test_a_token_in_a_row_that_the_base_never_used_stays_tuned(
    tmp_path: Path, llama: Path, sums: Path
) -> None:
    base = tuned(llama, tmp_path / "base", 6)
    ft = tuned(base, tmp_path / "ft", 0, "<box>")
    done = tailor(tmp_path / "o", base, ft, "--calibration", sums)
    assert done.status == 0, done.err
    ours, after = (tensors(tmp_path / name)["model.embed_tokens.weight"] for name in ("o", "ft"))
    assert same_bits(ours[-6:], after[-6:])
    assert not same_bits(ours, after)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--format", "patch"),
            "--format patch: a patch cannot hold the tokens that DIR/ft adds; write a checkpoint",
        ),
        (
            ("--sweep", "density=0.1"),
            "--sweep: a patch cannot hold the tokens that DIR/ft adds; write a checkpoint",
        ),
    ],
)
def test_a_patch_of_added_tokens_is_refused(
    tmp_path: Path, llama: Path, sums: Path, flags: tuple[str, ...], message: str
) -> None:
    ft = tuned(llama, tmp_path / "ft", 2, "<box>")
    done = tailor(tmp_path / "o", llama, ft, "--calibration", sums, *flags)
    assert (done.status, done.err.replace(str(tmp_path), "DIR")) == (2, f"mllmtool: {message}\n")
    assert {path.name for path in tmp_path.iterdir()} == {"ft"}


def test_what_adds_tokens_is_tailored_alone(tmp_path: Path, llama: Path, sums: Path) -> None:
    ft = tuned(llama, tmp_path / "ft", 2, "<box>")
    data = ("--calibration", sums, "--sft", ft, "--calibration", sums)
    done = tailor(tmp_path / "o", llama, ft, *data)
    assert (done.status, done.err) == (
        3,
        f"mllmtool: {ft}: adds tokens to {llama}; tailor it alone, as several --sft must have one"
        " vocabulary\n",
    )


def test_fewer_rows_are_refused(tmp_path: Path, llama: Path, sums: Path) -> None:
    base = tuned(llama, tmp_path / "base", 6)
    done = tailor(tmp_path / "o", base, llama, "--calibration", sums)
    rows = len(tensors(llama)["model.embed_tokens.weight"])
    assert (done.status, done.err) == (
        3,
        f"mllmtool: model.embed_tokens.weight: shape ({rows}, 32) in {llama}, ({rows + 6}, 32) in"
        f" {base}\n",
    )


def test_another_vocabulary_of_the_same_size_is_refused(
    tmp_path: Path, llama: Path, sums: Path
) -> None:
    ft = tuned(llama, tmp_path / "ft", 0)
    text = (ft / "tokenizer.json").read_text()
    ours = json.loads(text)
    vocabulary = ours["model"]["vocab"]
    first, second = (next(t for t, n in vocabulary.items() if n == place) for place in (40, 41))
    vocabulary[first], vocabulary[second] = 41, 40
    (ft / "tokenizer.json").write_text(json.dumps(ours))
    done = tailor(tmp_path / "o", llama, ft, "--calibration", sums)
    assert (done.status, done.err) == (
        3,
        f"mllmtool: {ft}: its tokenizer gives {first!r} the id 41, that of {llama} the id 40; both"
        " must come from the same base\n",
    )
    assert {path.name for path in tmp_path.iterdir()} == {"ft"}
