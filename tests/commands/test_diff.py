"""`diff`: what differs, by how much, as text and as JSON."""

import json
from pathlib import Path

import pytest
import torch
from commandline import mllmtool
from weights import Tensors, save_checkpoint

A = {
    "vision_tower.w": torch.tensor([3.0, 4.0]),
    "lm_head.weight": torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
    "model.norm.weight": torch.ones(1, dtype=torch.bfloat16),
}


def diff(tmp_path: Path, b: Tensors, *flags: str) -> str:
    paths = [save_checkpoint(tmp_path / name, t) for name, t in (("a", A), ("b", b))]
    done = mllmtool("diff", *paths, *flags)
    assert (done.status, done.err) == (0 if b is A else 1, "")
    return done.out.replace(str(tmp_path), "DIR")


def test_equal_checkpoints(tmp_path: Path) -> None:
    assert diff(tmp_path, A) == "A  DIR/a\nB  DIR/b\n\nequal: all 3 tensors, bit for bit\n"


def test_the_table(tmp_path: Path) -> None:
    # vision: change (0, 1) on a norm of 5; language: changes of 2 and 1 on 3 entries of 5,
    # norm sqrt 2 before
    b = {
        "vision_tower.w": torch.tensor([3.0, 5.0]),
        "lm_head.weight": torch.tensor([[-1.0, 0.0], [0.0, 1.0]]),
        "model.norm.weight": A["model.norm.weight"],
    }
    assert diff(tmp_path, b) == (
        "A  DIR/a\n"
        "B  DIR/b\n"
        "\n"
        "part      differ  entries  changed  relative_l2  max\n"
        "vision    1 of 1        2   50.00%          0.2    1\n"
        "language  1 of 2        5   40.00%         1.58    2\n"
        "\n"
        "tensor          entries  changed  relative_l2  max\n"
        "lm_head.weight        4   50.00%         2.24    2\n"
        "vision_tower.w        2   50.00%          0.2    1\n"
    )


def test_json(tmp_path: Path) -> None:
    b = {**A, "vision_tower.w": torch.tensor([3.0, 5.0])}
    found = json.loads(diff(tmp_path, b, "--json"))
    change = {"entries": 2, "relative_l2": 0.2, "max": 1.0, "changed": 0.5}
    still = {"entries": 5, "relative_l2": 0.0, "max": 0.0, "changed": 0.0}
    assert found == {
        "a": "DIR/a",
        "b": "DIR/b",
        "equal": False,
        "only_in_a": [],
        "only_in_b": [],
        "shapes": {},
        "dtypes": {},
        "parts": {
            "vision": {"tensors": 1, "differing": 1, **change},
            "language": {"tensors": 2, "differing": 0, **still},
        },
        "blocks": [],
        "tensors": {"vision_tower.w": change},
    }


def test_blocks_by_depth_and_their_picture(tmp_path: Path) -> None:
    names = [f"model.layers.{i}.mlp.{m}_proj.weight" for i in range(11) for m in ("up", "down")]
    a = {name: torch.tensor([3.0, 4.0]) for name in names}
    b = {**a, "model.layers.10.mlp.up_proj.weight": torch.tensor([3.0, 5.0])}
    paths = [save_checkpoint(tmp_path / name, t) for name, t in (("a", a), ("b", b))]
    found = json.loads(mllmtool("diff", *paths, "--json", "--plot", tmp_path / "one.png").out)
    assert [row["block"] for row in found["blocks"]] == list(range(11))
    assert found["blocks"][10] == {
        "part": "language",
        "stack": "model.layers",
        "block": 10,
        "entries": 4,
        "relative_l2": 0.141421,
        "max": 1.0,
        "changed": 0.25,  # 1 / sqrt 50
    }
    again = mllmtool("diff", tmp_path / "a", tmp_path / "b", "--plot", tmp_path / "two.png")
    assert again.status == 1
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one == two
    assert one.startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_made(tmp_path: Path) -> None:
    paths = [save_checkpoint(tmp_path / name, A) for name in "ab"]
    for plot, reason in (
        (tmp_path / "a", "exists; choose another --plot, or remove it"),
        (tmp_path / "no/p.png", "cannot be written: No such file or directory"),
    ):
        done = mllmtool("diff", *paths, "--plot", plot)
        assert (done.status, done.out) == (4, "")
        assert done.err == f"mllmtool: {plot}: {reason}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_tensors_that_do_not_line_up(tmp_path: Path) -> None:
    b = {
        "vision_tower.w": torch.ones(3),
        "lm_head.weight": A["lm_head.weight"].half(),
        "other": torch.zeros(2),
    }
    assert diff(tmp_path, b) == (
        "A  DIR/a\n"
        "B  DIR/b\n"
        "\n"
        "only in A: model.norm.weight\n"
        "only in B: other\n"
        "vision_tower.w: shape (2,) in A, (3,) in B\n"
        "lm_head.weight: dtype F32 in A, F16 in B\n"
        "part      differ  entries  changed  relative_l2  max\n"
        "language  0 of 1        4    0.00%            0    0\n"
    )


def test_bits_count_and_not_only_values(tmp_path: Path) -> None:
    b = {**A, "lm_head.weight": torch.tensor([[1.0, -0.0], [0.0, 0.0]])}
    found = json.loads(diff(tmp_path, b, "--json"))
    assert not found["equal"]
    assert found["tensors"]["lm_head.weight"]["changed"] == 0.25
    assert found["tensors"]["lm_head.weight"]["max"] == 0.0


def test_tensors_of_no_known_part_are_compared(tmp_path: Path) -> None:
    paths = [
        save_checkpoint(tmp_path / name, {"audio.w": torch.tensor([value]), "n": torch.arange(3)})
        for name, value in (("a", 0.0), ("b", 1.0))
    ]
    found = json.loads(mllmtool("diff", *paths, "--json").out)
    assert found["parts"]["other"] == {
        "tensors": 2,
        "differing": 1,
        "entries": 4,
        "changed": 0.25,
        "max": 1.0,
        "relative_l2": pytest.approx(1 / 5**0.5, rel=1e-5),
    }
    assert found["tensors"]["audio.w"]["relative_l2"] is None


@pytest.mark.parametrize(
    ("b", "status", "message"),
    [
        ("no", 3, "DIR/no: no such checkpoint directory"),
        ("nan", 5, "model.norm.weight: holds NaN or Inf in DIR/nan"),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, b: str, status: int, message: str) -> None:
    nan = torch.full((1,), float("nan"), dtype=torch.bfloat16)
    save_checkpoint(tmp_path / "a", A)
    save_checkpoint(tmp_path / "nan", {**A, "model.norm.weight": nan})
    done = mllmtool("diff", tmp_path / "a", tmp_path / b)
    assert (done.status, done.out) == (status, "")
    assert done.err.replace(str(tmp_path), "DIR") == f"mllmtool: {message}\n"
