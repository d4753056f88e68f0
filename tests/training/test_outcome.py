"""What is written, and how far it is from the base."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mllmtool.checkpoints import Checkpoint
from mllmtool.configs.base import Part
from mllmtool.errors import NumericError
from mllmtool.models.loading import disk_names, load_model
from mllmtool.models.parts import part_of
from mllmtool.training.outcome import moved_by_part, write_tuned


def bf16_copy(base: Path, into: Path) -> Path:
    """The checkpoint rounded to bfloat16."""
    into.mkdir()
    tensors = {k: v.bfloat16() for k, v in load_file(base / "model.safetensors").items()}
    save_file(tensors, into / "model.safetensors")
    (into / "config.json").write_text((base / "config.json").read_text())
    return into


def of_part(base: Checkpoint, part: Part) -> set[str]:
    """Names on disk of a part's tensors."""
    return {name for name in base.names if part_of(name) == part}


def test_only_what_learnt_is_written_from_memory(llava: Path, tmp_path: Path) -> None:
    base, model = Checkpoint.open(llava), load_model(llava)
    with torch.no_grad():
        model.model.multi_modal_projector.linear_1.bias.add_(1)
    write_tuned(model, disk_names(model, base), base, of_part(base, "projector"), tmp_path)
    tuned = Checkpoint.open(tmp_path)
    assert tuned.names == base.names
    changed = [name for name in base.names if not torch.equal(base[name], tuned[name])]
    assert changed == ["multi_modal_projector.linear_1.bias"]
    assert (tmp_path / "processor_config.json").is_file()


def test_frozen_weight_that_moved_is_a_bug(llava: Path, tmp_path: Path) -> None:
    base, model = Checkpoint.open(llava), load_model(llava)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    with pytest.raises(RuntimeError) as caught:
        write_tuned(model, disk_names(model, base), base, of_part(base, "projector"), tmp_path)
    assert str(caught.value) == "language_model.lm_head.weight: moved, though it is frozen"


def test_nan_is_refused(llava: Path, tmp_path: Path) -> None:
    base, model = Checkpoint.open(llava), load_model(llava)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(NumericError, match=r"lm_head\.weight: became NaN or Inf"):
        write_tuned(model, disk_names(model, base), base, of_part(base, "language"), tmp_path)


def test_drift_counts_the_rounding_of_the_file(llava: Path, tmp_path: Path) -> None:
    path = bf16_copy(llava, tmp_path / "base")
    base, model = Checkpoint.open(path), load_model(path)
    bias = model.model.multi_modal_projector.linear_1.bias
    with torch.no_grad():
        bias.copy_(torch.ones(32))
    for folder in ("ones", "tuned"):
        (tmp_path / folder).mkdir()
    moving = of_part(base, "projector")
    write_tuned(model, disk_names(model, base), base, moving, tmp_path / "ones")
    ones = Checkpoint.open(tmp_path / "ones")
    with torch.no_grad():
        bias[:8] += 0.5
        bias[8:] += 1e-4  # less than half a step of bfloat16 at 1
    write_tuned(model, disk_names(model, ones), ones, moving, tmp_path / "tuned")
    parts = moved_by_part(ones, Checkpoint.open(tmp_path / "tuned"), moving)
    drifts = {part: row.drift for part, row in parts.items()}
    assert (parts["projector"].frozen, parts["language"].frozen > 0) == (0, True)
    assert drifts["projector"].changed == 8
    assert drifts["projector"].entries == 2112
    squares = sum(
        ones[name].double().square().sum().item()
        for name in ones.names
        if name.startswith("multi_modal_projector")
    )
    described = drifts["projector"].describe()
    assert described["relative_l2"] == pytest.approx((8 * 0.25 / squares) ** 0.5, rel=1e-5)
    assert described["max"] == 0.5
    assert drifts["vision"].changed == drifts["language"].changed == 0
