"""Rows of an .xlsx file, which is zipped XML; VLMEvalKit writes its results so by default."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mllmtool.errors import DataError

SPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
SHEET, STRINGS = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"
LARGEST = 1 << 30  # bytes of XML; a small file may unpack to any size
CUT = 32_767  # characters that a cell holds; longer texts are cut when they are written
FAULTS = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    RuntimeError,  # of zipfile: a password, or an unknown compression
    zlib.error,
    zipfile.BadZipFile,
    ElementTree.ParseError,
)


def read_sheet(path: Path) -> Iterator[dict[str, Any]]:
    """The first sheet's rows by its first row's names; an empty cell is None.

    Raises:
        DataError: it is no such file, or a text in it was cut.
    """
    try:
        rows = _rows(path)
    except FAULTS as error:
        raise DataError(f"{path}: cannot be read as .xlsx: {error}") from error
    if not rows:
        return
    names = {place: str(name) for place, name in rows[0].items()}
    for row in rows[1:]:
        for place, text in row.items():
            if len(text) >= CUT:
                raise DataError(
                    f"{path}: {names.get(place, place)} is cut at {CUT} characters;"
                    " run VLMEvalKit with PRED_FORMAT=tsv"
                )
        yield {name: row.get(place) for place, name in names.items()}


def _rows(path: Path) -> list[dict[str, str]]:
    """Texts by column letters, a row each."""
    with zipfile.ZipFile(path) as archive:
        known = STRINGS in archive.namelist()
        strings = [_joined(entry) for entry in _parse(archive, STRINGS)] if known else []
        sheet = _parse(archive, SHEET)
    return [
        {(cell.get("r") or "").rstrip("0123456789"): _shown(cell, strings) for cell in row}
        for row in sheet.iter(f"{SPACE}row")
    ]


def _parse(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if archive.getinfo(name).file_size > LARGEST:
        raise ValueError(f"{name} unpacks to more than {LARGEST} bytes")
    with archive.open(name) as file:
        return ElementTree.parse(file).getroot()


def _shown(cell: ElementTree.Element, strings: list[str]) -> str:
    if cell.find(f"{SPACE}f") is not None:
        raise ValueError(
            f"cell {cell.get('r')} is a formula, for its text began with =;"
            " run VLMEvalKit with PRED_FORMAT=tsv"
        )
    value = cell.findtext(f"{SPACE}v", "")
    if cell.get("t") == "s":
        return strings[int(value)]
    return _joined(cell) if cell.get("t") == "inlineStr" else value


def _joined(entry: ElementTree.Element) -> str:
    """The text of an entry, of all its runs; `_x000D_` stands for a control character."""
    text = "".join(run.text or "" for run in entry.iter(f"{SPACE}t"))
    return re.sub(r"_x([0-9A-Fa-f]{4})_", lambda match: chr(int(match[1], 16)), text)
