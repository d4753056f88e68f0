"""Patch files: exact bytes, round trips, and refusals of broken or foreign ones."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from weights import same_bits, save_checkpoint

from mllmtool.checkpoints import (
    Checkpoint,
    Patch,
    PatchBuilder,
    fuse_masked,
    overlap_mean,
    tensor_sha256,
)
from mllmtool.configs.patch import Overlap
from mllmtool.errors import CheckpointError, MismatchError, NumericError

BASE = {
    "a": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b": torch.tensor([1.0, -0.0, 2.0], dtype=torch.bfloat16),
    "c": torch.ones(2),
}
MASK_A = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0]], dtype=torch.bool)


def make(tmp_path: Path) -> tuple[Checkpoint, Path]:
    """A base and a patch of its tensors `a` and `b`."""
    base = Checkpoint.open(save_checkpoint(tmp_path / "base", BASE))
    builder = PatchBuilder(base)
    builder.add("a", MASK_A, BASE["a"] + 100)
    builder.add("b", torch.tensor([False, True, True]), torch.tensor([9.0, 8.0, 7.0]))
    builder.write(tmp_path / "p.safetensors", base.fingerprint(), {"by": "hand"})
    return base, tmp_path / "p.safetensors"


def parts(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The header of mllmtool and the tensors, as the safetensors library reads them."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    text = json.loads(data[8 : 8 + length])["__metadata__"]["mllmtool.patch"]
    return json.loads(text), load_file(path)


def rewrite(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """Another patch file with these."""
    save_file(tensors, path, metadata={"mllmtool.patch": json.dumps(header)})
    return path


def test_the_format(tmp_path: Path) -> None:
    base, path = make(tmp_path)
    header, tensors = parts(path)
    sha = {name: hashlib.sha256(raw(BASE[name])).hexdigest() for name in "ab"}
    assert header == {
        "schema": "mllmtool.patch/1",
        "base": base.fingerprint(),
        "tensors": {
            "a": {"dtype": "F32", "shape": [3, 4], "sha256": sha["a"]},
            "b": {"dtype": "BF16", "shape": [3], "sha256": sha["b"]},
        },
        "origin": {"by": "hand"},
    }
    # row-major bits, lowest first: 1001 0000 -> 0b00001001, 1010 -> 0b0101
    assert tensors["a.bitmap"].tolist() == [0b00001001, 0b0101]
    assert tensors["a.values"].tolist() == [100.0, 103.0, 108.0, 110.0]
    assert tensors["b.bitmap"].tolist() == [0b110]
    assert tensors["b.values"].tolist() == [8.0, 7.0]
    assert tensors["b.values"].dtype == torch.bfloat16
    assert set(tensors) == {"a.bitmap", "a.values", "b.bitmap", "b.values"}


def test_two_writes_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    _, one = make(tmp_path / "one")
    _, two = make(tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()


def test_apply_changes_the_masked_entries_alone(tmp_path: Path) -> None:
    base, path = make(tmp_path)
    patch = Patch.open(path)
    patch.check_base(base)
    assert patch.names == ("a", "b")
    assert "c" not in patch
    assert torch.equal(patch.apply("a", base["a"]), BASE["a"] + 100 * MASK_A)
    assert same_bits(
        patch.apply("b", base["b"]), torch.tensor([1.0, 8.0, 7.0], dtype=torch.bfloat16)
    )
    assert torch.equal(patch.mask("a"), MASK_A)
    assert patch.num_kept("a") == 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.sampled_from([torch.float32, torch.bfloat16]))
def test_any_mask_comes_back(
    tmp_path_factory: pytest.TempPathFactory, bits: list[bool], dtype: torch.dtype
) -> None:
    folder, mask = tmp_path_factory.mktemp("any"), torch.tensor(bits, dtype=torch.bool)
    tensor = torch.randn(len(bits), generator=torch.Generator().manual_seed(0)).to(dtype)
    base = Checkpoint.open(save_checkpoint(folder / "base", {"w": tensor, "x": torch.ones(1)}))
    builder = PatchBuilder(base)
    builder.add("w", mask, 3 * tensor)
    builder.write(folder / "p", base.fingerprint(), {})
    patch = Patch.open(folder / "p")
    assert torch.equal(patch.mask("w"), mask)
    expected = torch.where(mask, (3 * tensor).to(dtype), tensor)
    assert same_bits(patch.apply("w", tensor), expected)


def test_overlap_is_the_mean() -> None:
    masks = [torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([0, 1, 1, 0]).bool()]
    mask, mean = overlap_mean(masks, [torch.full((4,), 2.0), torch.full((4,), 5.0)])
    assert mask.tolist() == [True, True, True, False]
    assert mean[mask].tolist() == [2.0, 3.5, 5.0]


def test_rules_of_overlap() -> None:
    # changes of +3, +1 and -2 on a base of 1; the last entry is the first model's alone
    base, masks = torch.ones(2), [torch.tensor([1, 1]).bool()] + [torch.tensor([1, 0]).bool()] * 2
    tensors = [torch.tensor([value, value]) for value in (4.0, 2.0, -1.0)]
    found = {
        rule: fuse_masked(base, masks, tensors, rule, 3)[1].tolist() for rule in get_args(Overlap)
    }
    assert found == {
        "mean": [pytest.approx(5 / 3), 4.0],
        "sum": [3.0, 4.0],
        "average": [pytest.approx(1 + 2 / 3), 2.0],
        "ties": [3.0, 4.0],  # +3 and +1 have the sign of the sum
    }


def test_a_patch_at_a_tenth_is_a_sixth_of_the_tensor(tmp_path: Path) -> None:
    tensor = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    base = Checkpoint.open(save_checkpoint(tmp_path / "base", {"w": tensor}))
    mask = torch.arange(10**6).reshape(1000, 1000) % 10 == 0
    builder = PatchBuilder(base)
    builder.add("w", mask, 2 * tensor)
    builder.write(tmp_path / "p", base.fingerprint(), {})
    assert (tmp_path / "p").stat().st_size <= 0.17 * tensor.nbytes


def test_a_builder_refuses_what_the_base_is_not(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(3, dtype=torch.float16), "n": torch.ones(3, dtype=torch.int64)}
    base = Checkpoint.open(save_checkpoint(tmp_path / "base", tensors))
    builder, mask = PatchBuilder(base), torch.tensor([True, False, True])
    with pytest.raises(MismatchError, match=r"^w: shape \(2,\), expected \(3,\)$"):
        builder.add("w", mask[:2], torch.ones(2))
    with pytest.raises(MismatchError, match=r"^n: dtype I64 cannot be patched$"):
        builder.add("n", mask, torch.ones(3))
    with pytest.raises(NumericError, match=r"^w: became NaN or Inf as F16$"):
        builder.add("w", mask, torch.full((3,), 1e9))


def test_another_base_is_refused_with_both_hashes(tmp_path: Path) -> None:
    base, path = make(tmp_path)
    other = Checkpoint.open(save_checkpoint(tmp_path / "other", {**BASE, "a": BASE["a"] + 1}))
    with pytest.raises(MismatchError) as raised:
        Patch.open(path).check_base(other)
    hashes = [tensor_sha256(each["a"])[:12] for each in (other, base)]
    assert str(raised.value) == (
        f"a: sha256 {hashes[0]} in {other.path}, {hashes[1]} in the base"
        f" of {path}; give the base that it was made for"
    )


def test_applying_twice_is_refused(tmp_path: Path) -> None:
    base, path = make(tmp_path)
    patched = {name: Patch.open(path).apply(name, BASE[name]) for name in "ab"}
    again = Checkpoint.open(save_checkpoint(tmp_path / "again", {**BASE, **patched}))
    with pytest.raises(MismatchError) as raised:
        Patch.open(path).check_base(again)
    hashes = [tensor_sha256(each["a"])[:12] for each in (again, base)]
    assert str(raised.value) == (
        f"a: sha256 {hashes[0]} in {again.path}, {hashes[1]} in the base"
        f" of {path}; the patch is on it already"
    )


def test_a_base_that_differs_elsewhere_is_refused(tmp_path: Path) -> None:
    base, path = make(tmp_path)
    other = Checkpoint.open(save_checkpoint(tmp_path / "other", {**BASE, "c": torch.zeros(2)}))
    with pytest.raises(MismatchError) as raised:
        Patch.open(path).check_base(other)
    assert str(raised.value) == (
        f"{path}: was made for the base {base.fingerprint()[:12]}, but {other.path} is"
        f" {other.fingerprint()[:12]}; they differ in tensors that the patch does not touch"
    )


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"b": BASE["b"]},
            "a: is in {patch} but not in {base}; give the base that it was made for",
        ),
        (
            {**BASE, "a": BASE["a"].reshape(4, 3)},
            "a: F32 (3, 4) in {patch}, F32 (4, 3) in {base}",
        ),
        ({**BASE, "a": BASE["a"].half()}, "a: F32 (3, 4) in {patch}, F16 (3, 4) in {base}"),
    ],
)
def test_a_base_of_other_tensors(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    _, path = make(tmp_path)
    other = Checkpoint.open(save_checkpoint(tmp_path / "other", tensors))
    with pytest.raises(MismatchError) as raised:
        Patch.open(path).check_base(other)
    assert str(raised.value) == message.format(patch=path, base=other.path)


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        (
            "a.bitmap",
            torch.zeros(3, dtype=torch.uint8),
            "a: bitmap is U8 (3,), expected U8 (2,) for shape (3, 4)",
        ),
        (
            "a.bitmap",
            torch.zeros(2, dtype=torch.int8),
            "a: bitmap is I8 (2,), expected U8 (2,) for shape (3, 4)",
        ),
        (
            "a.values",
            torch.zeros(4, dtype=torch.float16),
            "a: values are F16 (4,), expected one axis of F32",
        ),
        ("a.values", torch.zeros(2, 2), "a: values are F32 (2, 2), expected one axis of F32"),
        (
            "a.extra",
            torch.zeros(1),
            "its header and its tensors disagree on a.extra; make or copy it again",
        ),
        (
            "b.values",
            None,
            "its header and its tensors disagree on b.values; make or copy it again",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_on_opening(
    tmp_path: Path, key: str, tensor: torch.Tensor | None, message: str
) -> None:
    _, path = make(tmp_path)
    header, tensors = parts(path)
    tensors.pop(key, None)
    if tensor is not None:
        tensors[key] = tensor
    bad = rewrite(tmp_path / "bad.safetensors", header, tensors)
    with pytest.raises(CheckpointError) as raised:
        Patch.open(bad)
    assert str(raised.value) == f"{bad}: {message}"


@pytest.mark.parametrize(
    ("bitmap", "message"),
    [
        ([0b00001001, 0b0001], "a: 3 bits are set for 4 values"),
        ([0b00001001, 0b10010000], "a: bits are set past its last entry"),
    ],
)
def test_bits_that_do_not_fit_are_refused_on_reading(
    tmp_path: Path, bitmap: list[int], message: str
) -> None:
    _, path = make(tmp_path)
    header, tensors = parts(path)
    tensors["a.bitmap"] = torch.tensor(bitmap, dtype=torch.uint8)
    bad = rewrite(tmp_path / "bad.safetensors", header, tensors)
    with pytest.raises(CheckpointError) as raised:
        Patch.open(bad).mask("a")
    assert str(raised.value) == f"{bad}: {message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "mllmtool.patch/2"}, "schema: Input should be 'mllmtool.patch/1'"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        (
            {"tensors": {"a": {"dtype": "F32", "shape": [-3, 4], "sha256": ""}}},
            "tensors.a.shape.0: Input should be greater than or equal to 0",
        ),
        (
            {"tensors": {"a": {"dtype": "I64", "shape": [3, 4], "sha256": ""}}},
            "tensors.a.dtype: Input should be 'F64', 'F32', 'F16' or 'BF16'",
        ),
    ],
)
def test_a_header_that_does_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    _, path = make(tmp_path)
    header, tensors = parts(path)
    bad = rewrite(tmp_path / "bad.safetensors", {**header, **change}, tensors)
    with pytest.raises(CheckpointError) as raised:
        Patch.open(bad)
    assert str(raised.value) == f"{bad}: patch header: {message}"


def test_a_shape_too_large_to_be_real_allocates_nothing(tmp_path: Path) -> None:
    _, path = make(tmp_path)
    header, tensors = parts(path)
    header["tensors"]["a"]["shape"] = [10**9, 10**9]
    bad = rewrite(tmp_path / "bad.safetensors", header, tensors)
    with pytest.raises(CheckpointError, match=r"a: bitmap is U8 \(2,\), expected U8"):
        Patch.open(bad)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    base, path = make(tmp_path)
    header, tensors = parts(path)
    tensors["a.values"][1] = float("nan")
    bad = rewrite(tmp_path / "bad.safetensors", header, tensors)
    with pytest.raises(NumericError) as raised:
        Patch.open(bad).apply("a", base["a"])
    assert str(raised.value) == f"a: holds NaN or Inf in {bad}"


def test_files_that_are_no_patch(tmp_path: Path) -> None:
    base, path = make(tmp_path)
    with pytest.raises(CheckpointError) as raised:
        Patch.open(tmp_path / "none")
    assert str(raised.value) == f"{tmp_path / 'none'}: no such patch file"
    weights = base.path / "model.safetensors"
    with pytest.raises(CheckpointError) as raised:
        Patch.open(weights)
    assert str(raised.value) == f"{weights}: is a safetensors file, but not a patch of mllmtool"
    short = tmp_path / "short.safetensors"
    short.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"short.safetensors: is not a whole safetensors"):
        Patch.open(short)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
