"""Reading reports back."""

from pathlib import Path

import pytest

from mllmtool.errors import DataError
from mllmtool.reports import read_report


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "mllmtool.report/2"}', "\xff"])
def test_not_a_report(tmp_path: Path, text: str) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read_report(file)
    assert str(caught.value) == f"{file}: is not a report of schema mllmtool.report/1"


def test_no_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such report$"):
        read_report(tmp_path / "report.json")
