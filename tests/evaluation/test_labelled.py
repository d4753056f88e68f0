"""Labels of checkpoints, from what the command line names."""

from pathlib import Path

import pytest

from mllmtool.errors import ConfigError
from mllmtool.evaluation.labelled import labelled_paths


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("a/checkpoint-90", "a/checkpoint-100", "b/checkpoint-90", "b/logs"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_a_pattern_names_checkpoints_in_the_order_of_their_steps(runs: Path) -> None:
    found = labelled_paths("base", [f"{runs}/a/checkpoint-*"])
    assert list(found) == ["base", "checkpoint-90", "checkpoint-100"]
    assert found["checkpoint-100"] == str(runs / "a/checkpoint-100")


def test_a_pattern_over_runs_gives_labels_that_differ(runs: Path) -> None:
    found = labelled_paths("base", [f"{runs}/*/checkpoint-*"])
    assert list(found) == ["base", "a-checkpoint-90", "a-checkpoint-100", "b-checkpoint-90"]


def test_a_folder_that_is_named_as_a_pattern_is_taken_as_it_is(runs: Path) -> None:
    (runs / "[a]").mkdir()
    assert labelled_paths("base", [f"ft={runs}/[a]"]) == {"base": "base", "ft": f"{runs}/[a]"}
    with pytest.raises(ConfigError, match=r"--checkpoint: '\[a\]' cannot be a label"):
        labelled_paths("base", [f"{runs}/[a]"])


def test_a_pattern_that_matches_nothing_is_refused(runs: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        labelled_paths("base", [f"{runs}/*/step-*"])
    assert str(caught.value) == f"--checkpoint: {runs}/*/step-* matches nothing"
