"""`patch apply|remove|stack|info|verify`: bit for bit, or one line and nothing left behind."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import mllmtool
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from weights import same_bits, save_checkpoint

from mllmtool.checkpoints import Checkpoint, PatchBuilder, tensor_sha256

BASE = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor([1.0, -0.0, 2.0, 4.0], dtype=torch.bfloat16),
    "c": torch.ones(2),
}
ONE = {"a": ([[1, 1, 0], [0, 0, 0]], [[2.0, 3.0, 0.0], [0.0, 0.0, 0.0]])}
TWO = {
    "a": ([[0, 1, 1], [0, 0, 0]], [[0.0, -1.0, 7.0], [0.0, 0.0, 0.0]]),
    "b": ([1, 0, 0, 1], [5.0, 0.0, 0.0, 6.0]),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base in two shards, with a file beside the weights."""
    path = save_checkpoint(tmp_path / "base", BASE, num_shards=2)
    (path / "tokenizer.json").write_text("{}")
    return path


@pytest.fixture
def patches(tmp_path: Path, base: Path) -> list[Path]:
    """Two patches that overlap in one entry, where their changes are opposed."""
    return [write(tmp_path / f"{n}.safetensors", base, e) for n, e in (("one", ONE), ("two", TWO))]


def write(path: Path, base: Path, entries: Any) -> Path:
    checkpoint = Checkpoint.open(base)
    builder = PatchBuilder(checkpoint)
    for name, (mask, values) in entries.items():
        builder.add(name, torch.tensor(mask).bool(), torch.tensor(values))
    builder.write(path, checkpoint.fingerprint(), {"command": "by hand"})
    return path


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return {k: t for file in sorted(path.glob("*.safetensors")) for k, t in load_file(file).items()}


def report(path: Path) -> Any:
    return json.loads((path / "report.json").read_text())


def test_apply_and_remove_bring_the_base_back(base: Path, patches: list[Path]) -> None:
    applied = patches[1].parent / "two-applied"
    done = mllmtool("patch", "apply", patches[1], "--base", base)
    assert (done.status, done.out) == (0, f"{applied}\n")
    found = tensors(applied)
    assert found["a"].tolist() == [[0.0, -1.0, 7.0], [3.0, 4.0, 5.0]]
    assert same_bits(found["b"], torch.tensor([5.0, -0.0, 2.0, 6.0], dtype=torch.bfloat16))
    assert same_bits(found["c"], BASE["c"])
    names = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json")
    assert {path.name for path in applied.iterdir()} >= {*names, "config.json", "report.json"}
    assert report(applied)["results"] == {"tensors": 3, "patched_tensors": 2, "replaced": 4}

    done = mllmtool("patch", "remove", patches[1], "--model", applied, "--base", base)
    restored = Path(done.out.strip())
    assert (done.status, restored.name) == (0, "two-applied-restored")
    assert Checkpoint.open(restored).fingerprint() == Checkpoint.open(base).fingerprint()
    assert all(same_bits(tensor, BASE[name]) for name, tensor in tensors(restored).items())


def test_stack_takes_the_mean_where_patches_overlap(base: Path, patches: list[Path]) -> None:
    out = base.parent / "stacked"
    done = mllmtool("patch", "stack", *patches, "--base", base, "--out", out)
    assert (done.status, done.out) == (0, f"{out}\n")
    applied = base.parent / "applied"
    mllmtool("patch", "apply", out / "patch.safetensors", "--base", base, "--out", applied)
    # the overlap: 3 and -1 give 1; elsewhere the one patch's value
    assert tensors(applied)["a"].tolist() == [[2.0, 1.0, 7.0], [3.0, 4.0, 5.0]]
    assert tensors(applied)["b"].tolist() == [5.0, 0.0, 2.0, 6.0]
    # 1 of 5 entries in both; +2 against -2 on a base of 1
    (pair,) = report(out)["results"]["pairs"]
    assert pair == {
        "patches": [str(path) for path in patches],
        "overlap": 1,
        "jaccard": 0.2,
        "opposed_share": 1.0,
    }


def test_whoever_may_read_a_new_file_may_read_a_patch(base: Path, patches: list[Path]) -> None:
    (base / "new").touch()
    assert patches[0].stat().st_mode == (base / "new").stat().st_mode


def test_info_and_verify_print_json(base: Path, patches: list[Path]) -> None:
    done = mllmtool("patch", "info", patches[0])
    fingerprint = Checkpoint.open(base).fingerprint()
    assert done.status == 0
    assert json.loads(done.out) == {
        "patch": str(patches[0]),
        "bytes": patches[0].stat().st_size,
        "base": fingerprint,
        "origin": {"command": "by hand"},
        "kept": 2,
        "share": 2 / 6,
        "tensors": {"a": {"dtype": "F32", "shape": [2, 3], "kept": 2, "share": 2 / 6}},
    }
    done = mllmtool("patch", "verify", patches[1], "--base", base)
    assert json.loads(done.out) == {
        "patch": str(patches[1]),
        "base": str(base),
        "sha256": fingerprint,
        "tensors": 2,
        "kept": 4,
        "changed": 4,
        "fits": True,
    }


def test_dry_runs_check_and_write_nothing(base: Path, patches: list[Path]) -> None:
    before = set(base.parent.iterdir())
    done = mllmtool("patch", "apply", patches[0], "--base", base, "--dry-run")
    assert json.loads(done.out)["replaced"] == 2
    argv = (*patches, "--base", base, "--out", base.parent / "s", "--dry-run")
    assert json.loads(mllmtool("patch", "stack", *argv).out)["kept"] == [2, 4]
    assert set(base.parent.iterdir()) == before


def test_the_same_bytes_again(base: Path, patches: list[Path]) -> None:
    outs = [base.parent / name for name in ("first", "second")]
    for out in outs:
        assert mllmtool("patch", "stack", *patches, "--base", base, "--out", out).status == 0
    assert len({(out / "patch.safetensors").read_bytes() for out in outs}) == 1


def test_a_wrong_base_leaves_nothing(base: Path, patches: list[Path]) -> None:
    other = save_checkpoint(base.parent / "other", {**BASE, "a": BASE["a"] + 1})
    before = set(base.parent.iterdir())
    hashes = [tensor_sha256(Checkpoint.open(path)["a"])[:12] for path in (other, base)]
    expected = (
        f"mllmtool: a: sha256 {hashes[0]} in {other}, {hashes[1]} in the base of {patches[0]};"
        " give the base that it was made for\n"
    )
    for verb in ("apply", "verify"):
        done = mllmtool("patch", verb, patches[0], "--base", other)
        assert (done.status, done.out, done.err) == (3, "", expected)
    assert set(base.parent.iterdir()) == before


def test_applying_twice_leaves_nothing(base: Path, patches: list[Path]) -> None:
    applied = base.parent / "once"
    assert mllmtool("patch", "apply", patches[0], "--base", base, "--out", applied).status == 0
    before = set(base.parent.iterdir())
    hashes = [tensor_sha256(Checkpoint.open(path)["a"])[:12] for path in (applied, base)]
    done = mllmtool("patch", "apply", patches[0], "--base", applied, "--out", base.parent / "o")
    assert (done.status, done.out, done.err) == (
        3,
        "",
        f"mllmtool: a: sha256 {hashes[0]} in {applied}, {hashes[1]} in the base of {patches[0]};"
        " the patch is on it already\n",
    )
    assert set(base.parent.iterdir()) == before


def test_the_folder_of_a_patch_is_no_patch(base: Path, patches: list[Path]) -> None:
    done = mllmtool("patch", "verify", patches[0].parent, "--base", base)
    message = f"{patches[0].parent}: is a directory; name the patch file in it"
    assert done == (3, "", f"mllmtool: {message}\n")


@pytest.mark.parametrize("verb", ["apply", "verify", "remove", "stack"])
def test_a_truncated_patch_leaves_nothing(base: Path, patches: list[Path], verb: str) -> None:
    whole = patches[0].read_bytes()
    patches[0].write_bytes(whole[:-1])
    before = set(base.parent.iterdir())
    further = {"remove": ("--model", base), "stack": (patches[1],)}.get(verb, ())
    out = () if verb == "verify" else ("--out", base.parent / "o")
    done = mllmtool("patch", verb, patches[0], *further, "--base", base, *out)
    assert (done.status, done.out) == (3, "")
    assert done.err.startswith(f"mllmtool: {patches[0]}: is not a whole safetensors file (")
    assert done.err.endswith("; copy or download it again\n")
    assert done.err.count("\n") == 1
    assert set(base.parent.iterdir()) == before


@pytest.mark.parametrize("header_too", [False, True])
def test_a_renamed_tensor_leaves_nothing(base: Path, patches: list[Path], header_too: bool) -> None:
    with safe_open(patches[0], "pt") as file:
        metadata = file.metadata()
        found = {key.replace("a.", "z."): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if header_too:
        metadata = {key: text.replace('"a"', '"z"') for key, text in metadata.items()}
    save_file(found, patches[0], metadata=metadata)
    before = set(base.parent.iterdir())
    done = mllmtool("patch", "apply", patches[0], "--base", base, "--out", base.parent / "o")
    message = (
        f"z: is in {patches[0]} but not in {base}; give the base that it was made for"
        if header_too
        else f"{patches[0]}: its header and its tensors disagree on a.bitmap, a.values, z.bitmap"
        " and 1 more; make or copy it again"
    )
    assert (done.status, done.out, done.err) == (3, "", f"mllmtool: {message}\n")
    assert set(base.parent.iterdir()) == before


def test_removing_what_is_not_there(base: Path, patches: list[Path]) -> None:
    before = set(base.parent.iterdir())
    done = mllmtool("patch", "remove", patches[0], "--model", base, "--base", base)
    assert (done.status, done.err) == (
        3,
        f"mllmtool: a: {base} does not hold the values of {patches[0]}\n",
    )
    assert set(base.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["a", "c"])
def test_a_model_that_was_changed_besides(base: Path, patches: list[Path], name: str) -> None:
    patched = torch.tensor([[2.0, 3.0, 2.0], [3.0, 4.0, 5.0]])
    changed = {**BASE, "a": patched.clone(), "c": BASE["c"].clone()}
    changed[name].view(-1)[-1] += 1
    model = save_checkpoint(base.parent / "model", changed)
    argv = ("remove", patches[0], "--model", model, "--base", base, "--quiet")
    done = mllmtool("patch", *argv)
    unpatched = torch.cat([BASE["a"].view(-1)[:-1], torch.tensor([6.0])])
    found = hashlib.sha256((unpatched if name == "a" else changed["c"]).numpy().tobytes())
    assert (done.status, done.err) == (
        3,
        f"mllmtool: {name}: sha256 {found.hexdigest()[:12]} in {model} without the patch,"
        f" {tensor_sha256(Checkpoint.open(base)[name])[:12]} in {base}; the model was changed"
        " besides the patch\n",
    )
    assert not (base.parent / "model-restored").exists()
