"""Where the images of a file are: what a flag says, what the file's report says, beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mllmtool.data.samples import images_root
from mllmtool.reports import Artifact, Report, write_report


def report(folder: Path, made: str, run: dict[str, Any]) -> None:
    write_report(
        Report(
            command="mix-data",
            version="0",
            seed=0,
            config={},
            inputs=[],
            outputs=[Artifact(role="output", path=made, sha256="0")],
            results={},
            warnings=[],
            run=run,
        ),
        folder,
    )


def test_a_flag_wins(tmp_path: Path) -> None:
    report(tmp_path, "s.jsonl", {"images_root": "../pictures"})
    assert images_root(tmp_path / "s.jsonl", "here") == Path("here")


def test_the_report_of_the_file(tmp_path: Path) -> None:
    report(tmp_path, "s.jsonl", {"images_root": "../pictures"})
    assert images_root(tmp_path / "s.jsonl") == tmp_path / "../pictures"


def test_the_folder_of_the_file(tmp_path: Path) -> None:
    assert images_root(tmp_path / "s.jsonl") == tmp_path


@pytest.mark.parametrize("run", [{}, {"images_root": 3}])
def test_a_report_without_images(tmp_path: Path, run: dict[str, Any]) -> None:
    report(tmp_path, "s.jsonl", run)
    assert images_root(tmp_path / "s.jsonl") == tmp_path


def test_a_report_that_did_not_make_the_file(tmp_path: Path) -> None:
    report(tmp_path, "other.jsonl", {"images_root": "../pictures"})
    assert images_root(tmp_path / "s.jsonl") == tmp_path


def test_a_report_of_another_tool(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"images_root": "/"}))
    assert images_root(tmp_path / "s.jsonl") == tmp_path
