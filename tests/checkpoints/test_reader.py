"""Reading checkpoints: what the library wrote comes back, and nothing else gets in."""

import hashlib
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3
from safetensors.torch import save_file
from weights import same_bits, save_checkpoint

from mllmtool.checkpoints import Checkpoint, TensorInfo
from mllmtool.checkpoints import reader as reader_module
from mllmtool.errors import CheckpointError, NumericError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
}


def every_dtype() -> dict[str, torch.Tensor]:
    tensors = {name: torch.arange(6).reshape(2, 3).to(dtype) for name, dtype in DTYPES.items()}
    empty, scalar = torch.zeros(0, 4), torch.tensor(-0.0, dtype=torch.bfloat16)
    return {**tensors, "empty": empty, "scalar": scalar, "größe": torch.ones(1)}


@pytest.mark.parametrize("num_shards", [1, 3])
def test_every_dtype_comes_back_as_the_library_saved_it(tmp_path: Path, num_shards: int) -> None:
    tensors = every_dtype()
    checkpoint = Checkpoint.open(save_checkpoint(tmp_path / "c", tensors, num_shards))
    assert checkpoint.names == tuple(sorted(tensors))
    assert {name: checkpoint.info(name).dtype for name in DTYPES} == {n: n for n in DTYPES}
    for name, tensor in tensors.items():
        assert same_bits(checkpoint[name], tensor), name
        assert checkpoint.info(name).num_bytes == tensor.nbytes
    assert checkpoint.config == {"model_type": "llama"}
    assert "empty" in checkpoint
    assert "other" not in checkpoint


def test_golden_bytes(tmp_path: Path) -> None:
    """A file put together here by hand: length, header, then 1.0 and -2.0 as bfloat16."""
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = b"\x80\x3f" + b"\x00\xc0"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", len(header)) + header + data)
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.info("w") == TensorInfo("BF16", (2,))
    assert checkpoint["w"].tolist() == [1.0, -2.0]
    assert checkpoint.read("w").tolist() == [0x3F80, 0xC000]
    assert checkpoint.read("w", first=1, count=1).tolist() == [0xC000]


def test_pieces_are_the_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "PIECE", 4)
    checkpoint = Checkpoint.open(
        save_checkpoint(tmp_path / "c", {"w": torch.arange(10.0), "empty": torch.zeros(0)})
    )
    pieces = [piece.copy() for piece in checkpoint.pieces("w")]
    assert [piece.size for piece in pieces] == [4, 4, 2]
    assert np.concatenate(pieces).tolist() == list(range(10))
    assert list(checkpoint.pieces("empty")) == []


def test_what_is_read_may_be_written_to_without_touching_the_file(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_checkpoint(tmp_path / "c", {"w": torch.ones(3)}))
    checkpoint["w"].zero_()
    assert checkpoint["w"].tolist() == [1.0, 1.0, 1.0]


def test_fingerprint_depends_on_bits_and_not_on_shards(tmp_path: Path) -> None:
    tensors = every_dtype()
    whole = Checkpoint.open(save_checkpoint(tmp_path / "whole", tensors)).fingerprint()
    sharded = Checkpoint.open(save_checkpoint(tmp_path / "sharded", tensors, 3)).fingerprint()
    tensors["scalar"] = torch.tensor(0.0, dtype=torch.bfloat16)
    other = Checkpoint.open(save_checkpoint(tmp_path / "other", tensors)).fingerprint()
    assert whole == sharded != other


def test_a_fingerprint_is_of_a_list_of_the_tensors(tmp_path: Path) -> None:
    tensors = {"b": torch.tensor([1.0, -2.0], dtype=torch.bfloat16), "a": torch.zeros(2, 0)}
    checkpoint = Checkpoint.open(save_checkpoint(tmp_path / "c", tensors))
    listed = f"a F32 (2, 0) {blake3().hexdigest()}\n"
    listed += f"b BF16 (2,) {blake3(bytes([0x80, 0x3F, 0, 0xC0])).hexdigest()}\n"
    assert checkpoint.fingerprint() == hashlib.sha256(listed.encode()).hexdigest()


def test_a_whole_checkpoint_is_opened_without_reading_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_checkpoint(tmp_path / "c", {"w": torch.ones(3)})
    monkeypatch.setattr(Checkpoint, "_fill", lambda *_: pytest.fail("read a tensor"))
    Checkpoint.open(path).info("w")


# Failures: the whole message each time.


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path)
    assert caught.value.status == 3
    return str(caught.value)


def test_a_missing_directory(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no") == f"{tmp_path}/no: no such checkpoint directory"


def test_a_directory_without_config(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: has no config.json; is it a checkpoint?"


def test_an_adapter_beside_the_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert refusal(tmp_path) == (
        f"{tmp_path}: has an adapter beside its weights (adapter_config.json);"
        " merge it, or remove the file"
    )


def test_a_directory_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert refusal(tmp_path) == f"{tmp_path}: has neither {SINGLE} nor {INDEX}"


def test_pickled_weights_are_named_and_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert refusal(tmp_path) == (
        f"{tmp_path}: holds pickled weights only (pytorch_model.bin), which can run code when read;"
        " convert them to safetensors"
    )
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_without_tensors(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", {})
    assert refusal(path) == f"{path}: holds no tensors"


@pytest.mark.parametrize("cut", [1, 100, 170])
def test_a_truncated_file(tmp_path: Path, cut: int) -> None:
    path = save_checkpoint(tmp_path / "c", {"w": torch.ones(10)})
    whole = (path / SINGLE).read_bytes()
    (path / SINGLE).write_bytes(whole[:-cut])
    message = refusal(path)
    assert message.startswith(f"{path}/{SINGLE}: is not a whole safetensors file (")
    assert message.endswith("); copy or download it again")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'  # overlapping
        b'"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}',
        b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'  # a hole
        b'"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}',
        b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,6]}}',  # a shape that is too large
        b'{"a":{"dtype":"U8","shape":[6],"data_offsets":[6,0]}}',  # backwards
        b'{"a":{"dtype":"U8","shape":[-6],"data_offsets":[0,6]}}',
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,6]}}',
        b'{"a":6}',
        b"[]",
        b"not JSON",
        b"",
    ],
)
def test_a_header_that_lies(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", len(header)) + header + bytes(6))
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}/{SINGLE}: is not a whole safetensors file (")


def test_a_header_longer_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", 2**63) + b"{}")
    assert "is not a whole safetensors file" in refusal(tmp_path)


def test_a_quantised_tensor(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", {"w": torch.ones(2).to(torch.float8_e4m3fn)})
    assert refusal(path) == (
        f"w: dtype F8_E4M3 in {path}/{SINGLE} is not one that can be computed with;"
        " convert the checkpoint to BF16, F16 or F32"
    )


def test_a_missing_shard(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", {"a": torch.ones(1), "b": torch.ones(1)}, 2)
    (path / "model-00002-of-00002.safetensors").unlink()
    assert refusal(path) == (
        f"{path}/model-00002-of-00002.safetensors: is missing, though {INDEX} names it"
    )


def test_a_shard_without_a_tensor_of_the_index(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", {"a": torch.ones(1), "b": torch.ones(1)}, 2)
    shard = path / "model-00002-of-00002.safetensors"
    save_file({"c": torch.ones(1)}, shard)
    assert refusal(path) == f"{shard}: lacks b that {INDEX} promises"


def test_a_shard_with_a_tensor_that_the_index_does_not_name(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", {"a": torch.ones(1), "b": torch.ones(1)}, 2)
    shard = path / "model-00002-of-00002.safetensors"
    save_file({"b": torch.ones(1), "c": torch.ones(1)}, shard)
    assert refusal(path) == f"{shard}: holds c that {INDEX} does not name"


@pytest.mark.parametrize(
    "file",
    [
        *("../w.safetensors", "/w.safetensors", "sub/w.safetensors", "..", "", ".", "w.bin"),
        *("a\0.safetensors", "tokenizer.json"),
    ],
)
def test_an_index_that_points_elsewhere(tmp_path: Path, file: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"w": file}}))
    assert refusal(tmp_path) == (
        f"{tmp_path}/{INDEX}: names {file!r}, which is no safetensors file beside it"
    )


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{}", "has no weight_map of tensor names to file names"),
        ('{"weight_map": []}', "has no weight_map of tensor names to file names"),
        ('{"weight_map": {"w": 1}}', "has no weight_map of tensor names to file names"),
        ('{"weight_map": {}}', "names no tensors"),
        ("[]", "is not a JSON object"),
        ("{", "is not readable JSON (Expecting property name enclosed in double quotes"),
    ],
)
def test_a_broken_index(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / INDEX).write_text(text)
    assert refusal(tmp_path).startswith(f"{tmp_path}/{INDEX}: {wrong}")


def test_a_single_file_beside_an_index(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", {"a": torch.ones(1), "b": torch.ones(1)}, 2)
    save_file({"a": torch.ones(1)}, path / SINGLE)
    assert refusal(path) == (
        f"{path}: holds both {SINGLE} and {INDEX}, so which one counts is unclear;"
        " remove the stale one"
    )


def test_a_config_that_is_no_object(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", {"w": torch.ones(1)})
    (path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config.json: is not a JSON object$"):
        _ = Checkpoint.open(path).config


def test_a_tensor_that_is_not_there(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", {"w": torch.ones(1)})
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path)["v"]
    assert str(caught.value) == f"v: is not in {path}"


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_with_nan(tmp_path: Path, dtype: str, bad: float) -> None:
    tensor = torch.zeros(5, dtype=DTYPES[dtype])
    tensor[3] = bad
    checkpoint = Checkpoint.open(save_checkpoint(tmp_path / "c", {"w": tensor}))
    with pytest.raises(NumericError) as caught:
        checkpoint["w"]
    assert str(caught.value) == f"w: holds NaN or Inf in {tmp_path}/c"
    assert caught.value.status == 5


def test_the_largest_numbers_are_no_infinities(tmp_path: Path) -> None:
    largest = {name: torch.finfo(DTYPES[name]).max for name in ("F64", "F32", "F16", "BF16")}
    tensors = {name: torch.tensor([x, -x], dtype=DTYPES[name]) for name, x in largest.items()}
    checkpoint = Checkpoint.open(save_checkpoint(tmp_path / "c", tensors))
    for name, tensor in tensors.items():
        assert same_bits(checkpoint[name], tensor)


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", {"w": torch.ones(1000)})
    checkpoint = Checkpoint.open(path)
    with (path / SINGLE).open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(CheckpointError) as caught:
        checkpoint["w"]
    assert str(caught.value) == f"{path}/{SINGLE}: was cut while it was read"


def test_a_file_that_vanishes_while_it_is_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", {"w": torch.ones(3)})
    checkpoint = Checkpoint.open(path)
    (path / SINGLE).unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoint["w"]
    file = f"{path}/{SINGLE}"
    expected = f"{file}: cannot be read: [Errno 2] No such file or directory: '{file}'"
    assert str(caught.value) == expected
