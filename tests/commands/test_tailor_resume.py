"""`tailor` killed by real signals, and started again."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import mllmtool, wait_until
from safetensors.torch import load_file, save_file

Start = Callable[..., "subprocess.Popen[str]"]


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


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `mllmtool tailor` by itself; whatever still runs at the end is killed."""
    started = []

    def begin(*flags: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "mllmtool", "tailor", *map(str, flags)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def killed(process: "subprocess.Popen[str]", state: Path) -> None:
    """Kill it once the state is whole."""
    wait_until((state / "whole.json").exists, process)
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the report."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "report.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def report(folder: Path) -> tuple[Any, Any]:
    """The report's `run`, and all else."""
    whole = json.loads((folder / "report.json").read_text())
    return whole.pop("run"), whole


def same(tmp_path: Path, *flags: object) -> None:
    """A run that goes on in `o` ends as one that was never killed, in `whole`."""
    for name in ("o", "whole"):
        done = mllmtool("tailor", *flags, "--out", tmp_path / name, "--quiet")
        assert (done.status, done.out) == (0, f"{tmp_path / name}\n"), done.err
    assert contents(tmp_path / "o") == contents(tmp_path / "whole")
    (ours, resumed), (theirs, whole) = report(tmp_path / "o"), report(tmp_path / "whole")
    assert resumed == whole
    assert ours["resumed_from"].startswith("unit-")
    assert theirs["resumed_from"] is None
    assert not (tmp_path / ".o.work").exists()


def test_a_killed_run_goes_on_to_the_same_bytes(
    tmp_path: Path, llava: Path, colours: Path, start: Start
) -> None:
    sft = tune(tmp_path / "ft", llava)
    argv = ("--pre", llava, "--sft", sft, "--calibration", colours)
    killed(start(*argv, "--out", tmp_path / "o"), tmp_path / ".o.work" / "unit-3")
    assert not (tmp_path / "o").exists()

    done = mllmtool("tailor", *argv, "--damping", 0.1, "--out", tmp_path / "o")
    assert (done.status, done.err) == (
        2,
        f"mllmtool: --resume auto: {tmp_path}/.o.work holds the state of another run: damping is"
        " 0.01 there, 0.1 here; start anew with --resume never, or choose another --out\n",
    )
    same(tmp_path, *argv)


def test_a_sweep_that_saves_moments_goes_on_too(
    tmp_path: Path, llava: Path, sums: Path, start: Start
) -> None:
    """Samples without pictures: no pass reaches the tower, whose maps come last."""
    sft = tune(tmp_path / "ft", llava)
    argv: tuple[object, ...] = ("--pre", llava, "--sft", sft, "--calibration", sums)
    argv += ("--parts", "language", "--sweep", "density=0.1,0.3")
    moments = ("--save-moments", tmp_path / "m")
    killed(start(*argv, *moments, "--out", tmp_path / "o"), tmp_path / ".o.work" / "unit-1")
    assert not (tmp_path / "m").exists()
    done = mllmtool("tailor", *argv, *moments, "--out", tmp_path / "o", "--quiet")
    assert done.status == 0, done.err
    assert report(tmp_path / "o")[0]["resumed_from"] is not None
    again = ("--save-moments", tmp_path / "n", "--out", tmp_path / "whole", "--quiet")
    assert mllmtool("tailor", *argv, *again).status == 0
    assert contents(tmp_path / "m") == contents(tmp_path / "n")
    assert contents(tmp_path / "o") == contents(tmp_path / "whole")


def test_a_broken_model_leaves_no_states(tmp_path: Path, llama: Path, sums: Path) -> None:
    """What overflows in the last block does so after the first was tailored and kept."""
    sft = tune(tmp_path / "ft", llama)
    weights = load_file(sft / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] *= 1e38
    weights["model.layers.1.mlp.gate_proj.weight"] *= 1e38
    save_file(weights, sft / "model.safetensors", metadata={"format": "pt"})
    before = sorted(tmp_path.iterdir())
    argv = ("--pre", llama, "--sft", sft, "--calibration", sums, "--out", tmp_path / "o", "--quiet")
    done = mllmtool("tailor", *argv)
    message = "model.layers.1.mlp.down_proj.weight: its input is NaN or Inf on these samples"
    assert (done.status, done.err) == (5, f"mllmtool: {message}\n")
    assert sorted(tmp_path.iterdir()) == before


def test_several_tuned_models_go_on_each_on_its_own_weights(
    tmp_path: Path, llama: Path, sums: Path, start: Start
) -> None:
    one, two = (tune(tmp_path / str(seed), llama, seed) for seed in (1, 2))
    argv: tuple[object, ...] = ("--pre", llama, "--sft", one, "--sft", two, "--sparsity", 0.3)
    argv += ("--calibration", sums, "--calibration", sums)
    killed(start(*argv, "--out", tmp_path / "o"), tmp_path / ".o.work" / "unit-1")
    same(tmp_path, *argv)


def test_a_state_can_be_dropped(tmp_path: Path, llama: Path, sums: Path) -> None:
    sft, state = tune(tmp_path / "ft", llama), tmp_path / ".o.work" / "unit-0"
    state.mkdir(parents=True)
    (state / "whole.json").write_text('{"job": {"seed": 9}, "rows": {}}')
    argv = ("--pre", llama, "--sft", sft, "--calibration", sums, "--out", tmp_path / "o")
    assert mllmtool("tailor", *argv, "--quiet").status == 2
    assert mllmtool("tailor", *argv, "--quiet", "--resume", "never").status == 0
    assert report(tmp_path / "o")[0]["resumed_from"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ft", "o"]


def test_a_broken_model_leaves_the_states_of_another_run(
    tmp_path: Path, llama: Path, sums: Path
) -> None:
    sft, state = tune(tmp_path / "ft", llama), tmp_path / ".o.work" / "unit-0"
    state.mkdir(parents=True)
    (state / "whole.json").write_text('{"job": {"seed": 9}, "rows": {}}')
    weights = load_file(sft / "model.safetensors")
    weights["model.norm.weight"][3] = float("inf")
    save_file(weights, sft / "model.safetensors", metadata={"format": "pt"})
    argv = ("--pre", llama, "--sft", sft, "--calibration", sums, "--out", tmp_path / "o")
    assert mllmtool("tailor", *argv, "--quiet").status == 5
    assert (state / "whole.json").exists()
