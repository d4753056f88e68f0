"""`tailor` in two processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from commandline import mllmtool, wait_until
from test_moments_kept import tune

from mllmtool.checkpoints import Checkpoint


def test_two_processes_tailor_as_one(
    tmp_path: Path, llava: Path, colours: Path, sums: Path
) -> None:
    """Killed on the way, too. Anchors have no pictures and are one batch: a process has none."""
    sft = tune(tmp_path / "ft", llava)
    flags = ["--pre", llava, "--sft", sft, "--calibration", colours, "--anchor", sums]
    argv = [str(flag) for flag in ("tailor", *flags, "--sparsity", 0.2, "--quiet")]
    done = mllmtool(*argv, "--out", tmp_path / "one")
    assert done.status == 0, done.err
    launch = ("torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "mllmtool")
    command = [sys.executable, "-m", *launch, *argv, "--out", str(tmp_path / "two")]
    with begun(command) as process:
        wait_until((tmp_path / ".two.work/unit-3/whole.json").exists, process)
        kill(process)
    assert not (tmp_path / "two").exists()
    with begun(command) as process:
        out, err = process.communicate(timeout=180)
    assert (process.returncode, out) == (0, f"{tmp_path}/two\n"), err
    base, one, two = (Checkpoint.open(path) for path in (llava, tmp_path / "one", tmp_path / "two"))
    for name in base.names:
        assert torch.equal(one[name] != base[name], two[name] != base[name]), name
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
    reports = [json.loads((tmp_path / n / "report.json").read_text()) for n in ("one", "two")]
    assert reports[1]["run"]["resumed_from"].startswith("unit-")
    rows = [report["results"]["maps"] for report in reports]
    assert [[t["tokens"] for t in row["tasks"]] for row in rows[0]] == [
        [t["tokens"] for t in row["tasks"]] for row in rows[1]
    ]
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".two.")}
    assert left == {"ft", "one", "two"}
    assert not (tmp_path / ".two.work").exists()


def begun(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill torchrun and the processes that it started, which have sessions of their own."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for number in (process.pid, *map(int, children)):
        os.kill(number, signal.SIGKILL)
    process.communicate()


def test_a_sample_longer_than_the_context_is_named(tmp_path: Path, llama: Path, sums: Path) -> None:
    lines = sums.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows[3]["id"] = "long"
    rows[3]["messages"][0]["content"] = "zero one two " * 120
    (tmp_path / "long.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    sft = tune(tmp_path / "ft", llama)
    argv = ("--pre", llama, "--sft", sft, "--calibration", tmp_path / "long.jsonl")
    done = mllmtool("tailor", *argv, "--out", tmp_path / "o", "--quiet")
    assert done.status == 3
    assert done.err.startswith("mllmtool: sample long: ")
    assert done.err.endswith(" tokens, more than the 256 positions of the model; leave it out\n")
    assert not (tmp_path / "o").exists()
