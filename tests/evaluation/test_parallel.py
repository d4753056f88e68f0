"""Several processes on one evaluation."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest
from suite_factory import colour_suite

from mllmtool.commands import eval_matrix
from mllmtool.configs.base import RunConfig
from mllmtool.configs.eval_matrix import EvalMatrixConfig
from mllmtool.context import is_main_process
from mllmtool.errors import ConfigError
from mllmtool.models.devices import chosen_device
from mllmtool.reports import read_report
from mllmtool.runner import execute

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_suite(tmp_path_factory.mktemp("suite"), number=6)


def evaluated(out: Path, suite: Path, base: Path, workers: int) -> Path:
    config = EvalMatrixConfig(
        suite=str(suite), base=str(base), batch=2, bootstrap=500, workers=workers
    )
    return execute("eval-matrix", eval_matrix.run, config, RunConfig(out=str(out), quiet=True))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, suite: Path, llava: Path) -> Path:
    return evaluated(tmp_path_factory.mktemp("alone") / "out", suite, llava, 1)


def check_same(out: Path, alone: Path) -> None:
    ours, theirs = (read_report(made / "report.json") for made in (out, alone))
    assert ours.model_dump(exclude={"run"}) == theirs.model_dump(exclude={"run"})
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_workers_change_nothing_but_the_run(
    alone: Path, suite: Path, llava: Path, tmp_path: Path
) -> None:
    out = evaluated(tmp_path / "out", suite, llava, 2)
    check_same(out, alone)
    assert read_report(out / "report.json").run["workers"] == 2


def test_a_killed_run_goes_on_to_the_same_report(
    alone: Path, suite: Path, llava: Path, tmp_path: Path
) -> None:
    out, kept = tmp_path / "out", tmp_path / ".out.work/predictions"
    process = FORK.Process(target=evaluated, args=(out, suite, llava, 1))
    process.start()
    while process.is_alive() and not any(path.stat().st_size for path in kept.glob("*.jsonl")):
        time.sleep(0.001)
    process.kill()
    process.join()
    assert not out.exists()
    [file] = kept.glob("*.jsonl")
    before = file.read_bytes()
    assert 0 < before.count(b"\n") < 24
    shutil.rmtree(tmp_path / f".out.{process.pid}")  # what a kill leaves behind
    check_same(evaluated(out, suite, llava, 1), alone)


def evaluated_at(place: dict[str, str], out: Path, suite: Path, base: Path) -> None:
    os.environ |= place
    made = evaluated(out, suite, base, 1)
    assert made == out


def test_the_first_of_many_processes_reports(
    alone: Path, suite: Path, llava: Path, tmp_path: Path
) -> None:
    """As SLURM starts them, and as torchrun does."""
    out = tmp_path / "out"
    started = [
        FORK.Process(target=evaluated_at, args=(place, out, suite, llava))
        for place in ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, {"RANK": "0", "WORLD_SIZE": "2"})
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0
    check_same(out, alone)


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_main_process()
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert not is_main_process()
    monkeypatch.setenv("RANK", "0")  # torchrun on a node of SLURM's
    assert is_main_process()


def test_a_device_that_is_none() -> None:
    with pytest.raises(ConfigError) as caught:
        chosen_device("nosuch")
    assert str(caught.value).startswith("--device: nosuch cannot be used: Expected one of cpu, ")
