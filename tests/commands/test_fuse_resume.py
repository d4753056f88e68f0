"""`fuse` killed by a real signal, and started again."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commandline import mllmtool, wait_until
from weights import save_checkpoint

Start = Callable[..., list[object]]
JOURNAL = Path(".out.work/fused/journal.jsonl")


@pytest.fixture
def killed(tmp_path: Path) -> Start:
    """Start `mllmtool fuse`, kill it after some tensors, and return its arguments."""
    generator = torch.Generator().manual_seed(0)
    base = {f"model.layers.{i}.w": torch.randn(1 << 18, generator=generator) for i in range(24)}
    for name, factor in (("base", 0.0), ("a", 0.5), ("b", -0.25)):
        noise = {n: factor * torch.randn(t.shape, generator=generator) for n, t in base.items()}
        save_checkpoint(tmp_path / name, {n: t + noise[n] for n, t in base.items()}, 2)
    models = [word for name in "ab" for word in ("--model", tmp_path / name)]

    def kill(*flags: object) -> list[object]:
        argv = ["--base", tmp_path / "base", *models, *flags, "--out", tmp_path / "out", "--quiet"]
        process = subprocess.Popen(
            [sys.executable, "-m", "mllmtool", "fuse", *map(str, argv)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        journal = tmp_path / JOURNAL
        wait_until(lambda: journal.exists() and lines(journal) > 4, process)
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        assert not (tmp_path / "out").exists()
        return argv

    return kill


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def contents(out: Path) -> dict[str, Any]:
    """Every file's bytes; of the report what may not differ between two runs."""
    found: dict[str, Any] = {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }
    report = json.loads(found.pop("report.json"))
    return {**found, "report": {k: v for k, v in report.items() if k != "run"}}


@pytest.mark.parametrize(
    "flags",
    [
        ("--method", "dare-ties", "--density", 0.4, "--workers", 2),
        ("--method", "ties", "--sweep", "scale=0.5,1", "--except", r"\.3\."),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    killed: Start, tmp_path: Path, flags: tuple[object, ...]
) -> None:
    argv = killed(*flags)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"tensor": "model.lay')  # as a kill may leave it
    (hidden,) = [path for path in tmp_path.iterdir() if path.name.startswith(".out.")
                 and path.name != ".out.work"]  # fmt: skip
    hidden.rmdir()  # empty; the only trace of the kill but the work
    done = mllmtool("fuse", *argv)
    assert (done.status, done.err) == (0, "")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert 4 <= report["run"]["resumed_tensors"] < 24
    whole = [tmp_path / "whole" if word == tmp_path / "out" else word for word in argv]
    assert mllmtool("fuse", *whole).status == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "a", "b", "out", "whole"}


def test_another_run_or_input_begins_anew(killed: Start, tmp_path: Path) -> None:
    argv = killed("--method", "linear")
    os.utime(tmp_path / "a/model-00001-of-00002.safetensors", (0, 0))
    assert mllmtool("fuse", *argv, "--shard-size", "4MB").status == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["run"]["resumed_tensors"] == 0
    shards = {path.name for path in (tmp_path / "out").glob("*.safetensors")}
    assert shards == {f"model-{i:05d}-of-00008.safetensors" for i in range(1, 9)}


def test_the_order_of_weights_by_expression_is_another_run(killed: Start, tmp_path: Path) -> None:
    argv = killed("--method", "linear", "--weight", "{layers: 0.2, w: 1}", "--weight", 1)
    argv[argv.index("{layers: 0.2, w: 1}")] = "{w: 1, layers: 0.2}"
    assert mllmtool("fuse", *argv).status == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["run"]["resumed_tensors"] == 0


def test_two_runs_of_one_output_are_refused(killed: Start, tmp_path: Path) -> None:
    argv = killed("--method", "linear")
    before = (tmp_path / JOURNAL).read_bytes()
    with (tmp_path / JOURNAL).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = mllmtool("fuse", *argv)
    assert done.status == 4
    assert done.err == (
        f"mllmtool: {tmp_path}/.out.work/fused: another process writes there; wait for it, or"
        " choose another --out\n"
    )
    assert (tmp_path / JOURNAL).read_bytes() == before
