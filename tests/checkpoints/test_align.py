"""Whether checkpoints belong together is decided from headers, with both values in the message."""

from pathlib import Path

import pytest
import torch
from weights import Tensors, save_checkpoint

from mllmtool.checkpoints import Checkpoint, check_aligned
from mllmtool.errors import MismatchError

BASE = {"a": torch.ones(2, 3), "b": torch.ones(4), "n": torch.arange(3)}


def refusal(tmp_path: Path, other: Tensors) -> str:
    base = Checkpoint.open(save_checkpoint(tmp_path / "base", BASE))
    with pytest.raises(MismatchError) as caught:
        check_aligned(base, [base, Checkpoint.open(save_checkpoint(tmp_path / "other", other))])
    assert caught.value.status == 3
    return str(caught.value).replace(str(tmp_path), "DIR")


def test_equal_names_and_shapes_line_up_whatever_the_float_dtype_or_the_shards(
    tmp_path: Path,
) -> None:
    base = Checkpoint.open(save_checkpoint(tmp_path / "base", BASE))
    other = {**BASE, "a": torch.zeros(2, 3, dtype=torch.bfloat16)}
    check_aligned(base, [base, Checkpoint.open(save_checkpoint(tmp_path / "other", other, 2))])


def test_missing_and_extra_tensors(tmp_path: Path) -> None:
    assert refusal(tmp_path, {"a": BASE["a"], "c": BASE["b"], "d": BASE["b"]}) == (
        "DIR/other: lacks b, n and has c, d besides, against DIR/base;"
        " both must come from the same base"
    )


def test_another_shape(tmp_path: Path) -> None:
    assert refusal(tmp_path, {**BASE, "a": torch.ones(3, 2)}) == (
        "a: shape (3, 2) in DIR/other, (2, 3) in DIR/base"
    )


def test_weights_in_one_and_integers_in_the_other(tmp_path: Path) -> None:
    assert refusal(tmp_path, {**BASE, "n": torch.ones(3)}) == "n: F32 in DIR/other, I64 in DIR/base"
