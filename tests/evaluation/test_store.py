"""Predictions that outlive a kill and that several processes make together."""

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from suite_factory import colour_suite

from mllmtool.checkpoints import Checkpoint
from mllmtool.context import Context
from mllmtool.data.suites import Task, read_suite
from mllmtool.errors import DataError, OutputError
from mllmtool.evaluation.labelled import Labelled
from mllmtool.evaluation.predictions import Prediction
from mllmtool.evaluation.runs import Found, Settings, assist, run
from mllmtool.evaluation.store import Store, opened

KEYS = [f"{n:015x}".ljust(64, "0") for n in range(1, 5)]
FORK = multiprocessing.get_context("fork")


def prediction(response: str = "é\n\u2028") -> Prediction:
    return Prediction(item="a", response=response, finish="end", logprobs=(-0.5, -1.0))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "kept") as found:
        yield found


def file_of(store: Store) -> Path:
    [path] = store.folder.glob("*.jsonl")
    return path


def test_what_is_added_is_found_by_all(store: Store) -> None:
    with closing(Store(store.folder)) as other:
        store.add(KEYS[0], prediction())
        assert KEYS[0] not in other
        other.refresh()
        assert other[KEYS[0]] == prediction()
        other.add(KEYS[0], prediction("another"))
        store.add(KEYS[1], prediction())
        other.refresh()
    assert [key in store for key in KEYS] == [True, True, False, False]
    assert len(file_of(store).read_bytes().splitlines()) == 2


def test_a_torn_last_line_is_dropped(store: Store) -> None:
    for key in KEYS[:2]:
        store.add(key, prediction())
    path = file_of(store)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        with closing(Store(store.folder)) as again:
            assert [key in again for key in KEYS[:2]] == [length >= first, length == len(whole)]


@pytest.mark.parametrize(
    ("line", "message"),
    [(b'{"key": 1}', "has no key"), (b"\0" * 9, "is not JSON"), (b'{"key": "a"}', "item: ")],
)
def test_a_whole_line_that_is_no_prediction(store: Store, line: bytes, message: str) -> None:
    store.add(KEYS[0], prediction())
    path = file_of(store)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DataError) as caught:
        Store(store.folder)
    assert str(caught.value).startswith(f"{path}:2: {message}")
    assert str(caught.value).endswith("; remove the line to predict its item again")


def test_a_full_disk_keeps_what_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "kept"

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        with closing(Store(folder)) as store:
            store.add(KEYS[0], prediction())
            try:
                store.add(KEYS[1], prediction("long" * 100))
            except OutputError as error:
                (tmp_path / "message").write_text(str(error))

    ended(FORK.Process(target=fill))
    assert (tmp_path / "message").read_text() == (
        f"{folder}: cannot be written: No space left on device"
    )
    with closing(Store(folder)) as store:
        assert [key in store for key in KEYS[:2]] == [True, False]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        Store(tmp_path / "file/kept")
    assert str(caught.value) == f"{tmp_path}/file/kept: cannot be written: Not a directory"


def test_a_claim_is_held_alone_and_freed_by_death(store: Store) -> None:
    held = FORK.Event()

    def hold() -> None:
        with closing(Store(store.folder)) as other, other.claim(KEYS[0], wait=True):
            held.set()
            time.sleep(60)

    process = FORK.Process(target=hold)
    process.start()
    assert held.wait(10)
    for key, free in zip(KEYS[:2], (False, True), strict=True):
        with store.claim(key, wait=False) as mine:
            assert mine is free
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    with store.claim(KEYS[0], wait=True) as mine:
        assert mine
    process.join()


def ended(process: multiprocessing.process.BaseProcess) -> None:
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, ...]:
    return read_suite(colour_suite(tmp_path_factory.mktemp("suite"), number=12)).tasks


def predicted(tasks: tuple[Task, ...], base: Path, folder: Path, helping: bool = False) -> Found:
    """By one process, which may only help others."""
    torch.set_num_threads(1)
    checkpoints = [Labelled("base", Checkpoint.open(base))]
    with closing(Store(folder)) as store:
        settings, context = Settings(store, batch=2), Context(quiet=True)
        if helping:
            assist(checkpoints, tasks, settings, context)
            return {}
        [(_, found)] = run(checkpoints, tasks, settings, context)
    return found


def test_killed_again_and_again_nothing_is_lost_or_doubled(
    tasks: tuple[Task, ...], llava: Path, tmp_path: Path
) -> None:
    expected, folder = predicted(tasks, llava, tmp_path / "whole"), tmp_path / "killed"
    number, rng, sizes = len(keys(tmp_path / "whole")), random.Random(0), []
    for turn in range(6):
        working = [
            FORK.Process(target=predicted, args=(tasks, llava, folder, place > 0))
            for place in range(1 + turn % 3)
        ]
        for process in working:
            process.start()
        goal = len(keys(folder)) + rng.randint(1, number // 6)
        while len(keys(folder)) < goal and any(process.is_alive() for process in working):
            time.sleep(0.001)
        for process in working:
            process.kill()
        for process in working:
            process.join()
        sizes.append(len(keys(folder)))
    assert predicted(tasks, llava, folder) == expected
    found = keys(folder)
    assert sorted(found) == sorted(keys(tmp_path / "whole"))
    assert len(found) == len(set(found))
    assert 0 < sizes[0] < number


def keys(folder: Path) -> list[str]:
    """Of every whole line."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_bytes().splitlines(True)]
    return [line.split(b'"')[3].decode() for line in lines if line.endswith(b"\n")]
