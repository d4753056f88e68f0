"""Writing checkpoints: the library's bytes, the base's layout, complete or an error."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from weights import same_bits, save_checkpoint

from mllmtool.checkpoints import Checkpoint, CheckpointWriter, copy_sidecars
from mllmtool.errors import MismatchError, NumericError, OutputError
from mllmtool.reports import file_sha256

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def mixed() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {str(d): torch.randn(3, 4, generator=generator).to(d) for d in FLOATS}
    tensors |= {str(dtype): torch.arange(5).to(dtype) for dtype in INTEGERS}
    return {**tensors, "empty": torch.zeros(2, 0), "scalar": torch.tensor(3.0), "é": torch.ones(2)}


def written(into: Path, like: Checkpoint, backwards: bool = False) -> Path:
    into.mkdir()
    writer = CheckpointWriter(into, like)
    for name in reversed(like.names) if backwards else like.names:
        writer.add(name, like[name])
    writer.finish()
    return into


@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize("backwards", [False, True])
def test_bytes_are_those_of_the_library(tmp_path: Path, num_shards: int, backwards: bool) -> None:
    theirs = save_checkpoint(tmp_path / "theirs", mixed(), num_shards)
    ours = written(tmp_path / "ours", Checkpoint.open(theirs), backwards)
    names = sorted(path.name for path in theirs.iterdir() if path.name != "config.json")
    assert sorted(path.name for path in ours.iterdir()) == names
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    tensors = mixed()
    like = Checkpoint.open(save_checkpoint(tmp_path / "theirs", tensors))
    read = load_file(written(tmp_path / "ours", like) / "model.safetensors")
    assert all(same_bits(read[name], tensor) for name, tensor in tensors.items())


def test_transformers_loads_what_was_written(tmp_path: Path, llava: Path) -> None:
    base = Checkpoint.open(llava)
    into = written(tmp_path / "ours", base)
    copy_sidecars(llava, into)
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
        into, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert transformers.AutoProcessor.from_pretrained(into).tokenizer is not None
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(llava).state_dict()
    assert all(same_bits(model.state_dict()[name], tensor) for name, tensor in theirs.items())


def test_entries_are_cast_to_the_dtype_on_disk_to_nearest_even(tmp_path: Path) -> None:
    """1 + 2^-8 lies between 1 and 1 + 2^-7 in bfloat16: even is 1. Three times it: up, to even."""
    like = save_checkpoint(tmp_path / "like", {"w": torch.zeros(2, dtype=torch.bfloat16)})
    writer = CheckpointWriter(tmp_path, Checkpoint.open(like))
    writer.add("w", torch.tensor([1 + 2**-8, 1 + 3 * 2**-8]))
    assert load_file(tmp_path / "model.safetensors")["w"].tolist() == [1.0, 1 + 2**-6]


def test_a_tensor_may_come_in_pieces(tmp_path: Path) -> None:
    like = Checkpoint.open(save_checkpoint(tmp_path / "like", {"w": torch.zeros(2, 3)}))
    writer = CheckpointWriter(tmp_path, like)
    writer.write("w", np.arange(4, dtype=np.float32))
    with pytest.raises(MismatchError) as caught:
        writer.finish()
    assert str(caught.value) == f"{tmp_path}: not written: w"
    with pytest.raises(MismatchError) as caught:
        writer.write("w", np.zeros(3, dtype=np.float32))
    assert str(caught.value) == "w: more entries than its shape (2, 3) holds"
    writer.write("w", np.arange(4, 6, dtype=np.float32))
    writer.finish()
    assert load_file(tmp_path / "model.safetensors")["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_copy_keeps_every_bit(tmp_path: Path) -> None:
    tensors = {"w": torch.tensor([-0.0, 0.0, 1e-40]), "n": torch.arange(3), "empty": torch.ones(0)}
    like = Checkpoint.open(save_checkpoint(tmp_path / "like", tensors))
    writer = CheckpointWriter(tmp_path, like)
    for name in like.names:
        writer.copy(name, like)
    writer.finish()
    read = load_file(tmp_path / "model.safetensors")
    assert all(same_bits(read[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("order", ["abc", "cab", "bca"])
def test_files_are_hashed_while_they_are_written_in_any_order(tmp_path: Path, order: str) -> None:
    tensors = {name: torch.full((5,), ord(name)) for name in "abc"} | {"empty": torch.ones(0)}
    like = Checkpoint.open(save_checkpoint(tmp_path / "like", tensors))
    writer = CheckpointWriter(tmp_path, like, {**dict.fromkeys("abc", "one"), "empty": "two"})
    hashes = writer.hashes()
    for begin in (0, 3):  # the tensors come in two pieces, by turns
        for name in order:
            writer.write(name, like.read(name, begin, 3 - begin // 3))
    found = {file: growing.hexdigest() for file, growing in hashes.items()}
    assert found == {file: file_sha256(tmp_path / file) for file in ("one", "two")}


def test_a_hash_of_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    hashes = writer.hashes()
    writer.add("a", torch.ones(2))
    with pytest.raises(OutputError) as caught:
        hashes["model.safetensors"].hexdigest()
    assert str(caught.value) == f"{tmp_path}/model.safetensors: b was not written"


def writer_of(tmp_path: Path, dtype: torch.dtype = torch.float32) -> CheckpointWriter:
    tensors = {name: torch.ones(2, dtype=dtype) for name in "abcde"}
    return CheckpointWriter(tmp_path, Checkpoint.open(save_checkpoint(tmp_path / "like", tensors)))


def test_an_incomplete_checkpoint_is_refused(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    writer.add("c", torch.ones(2))
    with pytest.raises(MismatchError) as caught:
        writer.finish()
    assert str(caught.value) == f"{tmp_path}: not written: a, b, d and 1 more"


def test_an_unknown_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchError) as caught:
        writer_of(tmp_path).add("z", torch.ones(2))
    assert str(caught.value) == "z: is not a tensor that is still to be written"


def test_a_tensor_is_written_once(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    writer.add("a", torch.ones(2))
    with pytest.raises(MismatchError) as caught:
        writer.add("a", torch.ones(2))
    assert str(caught.value) == "a: is not a tensor that is still to be written"


def test_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchError) as caught:
        writer_of(tmp_path).add("a", torch.ones(2, 1))
    assert str(caught.value) == "a: shape (2, 1), expected (2,)"


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NumericError) as caught:
        writer_of(tmp_path).add("a", torch.tensor([0.0, float("nan")]))
    assert str(caught.value) == "a: became NaN or Inf as F32"


@pytest.mark.parametrize(
    ("dtype", "name", "value"), [(torch.float16, "F16", 65520.0), (torch.bfloat16, "BF16", 3.4e38)]
)
def test_overflow_in_the_cast_is_refused(
    tmp_path: Path, dtype: torch.dtype, name: str, value: float
) -> None:
    with pytest.raises(NumericError) as caught:
        writer_of(tmp_path, dtype).add("a", torch.tensor([0.0, value]))
    assert str(caught.value) == f"a: became NaN or Inf as {name}"


def test_a_copy_of_nan_is_refused(tmp_path: Path) -> None:
    tensors = {"w": torch.tensor([float("nan")])}
    like = Checkpoint.open(save_checkpoint(tmp_path / "like", tensors))
    with pytest.raises(NumericError) as caught:
        CheckpointWriter(tmp_path, like).copy("w", like)
    assert str(caught.value) == f"w: holds NaN or Inf in {tmp_path}/like"


def test_sidecars_are_all_but_weights_and_reports(tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    source.mkdir()
    into.mkdir()
    kept = ["LICENSE", "chat_template.jinja", "config.json", "modeling.py", "tokenizer.json"]
    left = ["adapter_config.json", "adapter_model.safetensors", "model-00001-of-00002.safetensors"]
    left += ["model.safetensors", "model.safetensors.index.json", "optimizer.pt", "report.json"]
    left += ["pytorch_model.bin", "pytorch_model.bin.index.json", "training_args.bin"]
    for name in kept + left:
        (source / name).write_text(name)
    (source / "folder").mkdir()
    (source / "qformer_tokenizer").mkdir()
    for name in ("tokenizer_config.json", "vocab.txt", "weights.bin"):
        (source / "qformer_tokenizer" / name).write_text(name)
    (source / "loop").symlink_to(source)
    copy_sidecars(source, into)
    assert sorted(p.name for p in into.iterdir()) == sorted([*kept, "qformer_tokenizer"])
    assert all((into / name).read_text() == name for name in kept)
    further = sorted(path.name for path in (into / "qformer_tokenizer").iterdir())
    assert further == ["tokenizer_config.json", "vocab.txt"]
