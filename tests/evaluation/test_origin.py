"""What lies beside a checkpoint and tells how it was made."""

import json
from pathlib import Path
from typing import Any

import pytest

from mllmtool.evaluation.origin import Origin, origin_of


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-20000", 20000),
        ("step_300", 300),
        ("iter12", 12),
        ("checkpoint", None),
        ("llava-1.5-7b", None),
        ("checkpoint-7b", None),
    ],
)
def test_a_folders_name_may_tell_the_step(tmp_path: Path, name: str, step: int | None) -> None:
    assert origin_of(tmp_path / name) == Origin(step=step)


@pytest.mark.parametrize(
    ("state", "step"), [({"global_step": 40}, 40), ({"global_step": "x"}, None), ({}, 7), ([], 7)]
)
def test_a_trainers_state_goes_before_the_name(
    tmp_path: Path, state: Any, step: int | None
) -> None:
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    (folder / "trainer_state.json").write_text(json.dumps(state))
    assert origin_of(folder) == Origin(step=step)
