"""Which state a run goes on from."""

from pathlib import Path

import pytest

from mllmtool.checkpoints.states import drop_states, latest_state, read_marker, write_marker
from mllmtool.errors import ConfigError

JOB = {"lr": 0.1, "seed": 0}


def state(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    return path


def test_newest_whole_state_by_number(tmp_path: Path) -> None:
    for step in (9, 10):
        write_marker(state(tmp_path, step), {"job": JOB})
    state(tmp_path, 11)  # a kill cut it short
    assert latest_state(tmp_path, JOB) == tmp_path / "checkpoint-10"


def test_no_state(tmp_path: Path) -> None:
    state(tmp_path, 5)
    assert latest_state(tmp_path, JOB) is None
    assert latest_state(tmp_path / "absent", JOB) is None


def test_state_of_another_job_is_refused(tmp_path: Path) -> None:
    write_marker(state(tmp_path, 5), {"job": JOB})
    with pytest.raises(ConfigError) as caught:
        latest_state(tmp_path, {"lr": 0.2, "seed": 0})
    assert str(caught.value) == (
        f"--resume auto: {tmp_path} holds the state of another run: lr is 0.1 there, 0.2 here;"
        " start anew with --resume never, or choose another --out"
    )


def test_marker_keeps_its_values_and_states_can_be_dropped(tmp_path: Path) -> None:
    path = state(tmp_path / "work", 5)
    write_marker(path, {"job": JOB, "sources": [[1.5], [2.0]]})
    assert read_marker(path) == {"job": JOB, "sources": [[1.5], [2.0]]}
    drop_states(tmp_path / "work")
    assert latest_state(tmp_path / "work", JOB) is None
