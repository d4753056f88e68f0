"""Files of samples are checked as a whole, with file and line in every message."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mllmtool.data.rows import scan
from mllmtool.errors import DataError

ANSWER = {"role": "assistant", "content": "x"}
GOOD: dict[str, Any] = {"id": "1", "messages": [{"role": "user", "content": "hello"}, ANSWER]}


def with_images(*names: str) -> dict[str, Any]:
    turn = {"role": "user", "content": "<image>" * len(names) + "what?"}
    return {"id": "2", "images": list(names), "messages": [turn, ANSWER]}


def written(folder: Path, *rows: Any) -> Path:
    """Rows as JSON, text or bytes, one a line."""
    path = folder / "s.jsonl"
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_rows_come_back_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "i.png").touch()
    odd = b'  {"id" : "\\u00e9", "x": 1.0e5, "messages": [{"role":"user","content":"\xc3\xa9"}]}\t'
    path = written(tmp_path, GOOD, b"", odd, with_images("i.png"))
    rows = scan(path, tmp_path)
    assert len(rows) == 3
    with path.open("rb") as file:
        assert [rows.line(file, index) for index in (2, 0, 1)] == [
            json.dumps(with_images("i.png")).encode(),
            json.dumps(GOOD).encode(),
            odd.strip(),
        ]
    assert list(rows.with_images) == [False, False, True]
    assert rows.sha256 == sha256(path.read_bytes()).hexdigest()


def test_links_and_subfolders_inside_the_folder_are_fine(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/i.png").touch()
    (tmp_path / "link.png").symlink_to("sub/i.png")
    path = written(tmp_path, with_images("sub/i.png", "link.png", "sub/../sub/i.png"))
    assert len(scan(path, tmp_path)) == 1


def refusal(path: Path, images: Path) -> str:
    with pytest.raises(DataError) as caught:
        scan(path, images)
    return str(caught.value).replace(str(images.parent), "DIR")


BAD: dict[str, tuple[Any, str]] = {
    "not JSON": (b"{", "is not JSON (Expecting property name enclosed in double quotes: "),
    "not an object": ([1], "is not a JSON object"),
    "not UTF-8": (b'{"id": "\xff"}', "is not JSON ('utf-8' codec can't decode byte 0xff in"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "is not JSON (Unexpected UTF-8 BOM"),
    "no messages": ({"id": "1"}, "messages: Field required"),
    "an id that is a number": ({**GOOD, "id": 1}, "id: Input should be a valid string"),
    "an unknown role": (
        {"id": "1", "messages": [{"role": "human", "content": "x"}]},
        "messages.0.role: Input should be 'system', 'user' or 'assistant'",
    ),
    "a mark without image": (
        {"id": "1", "messages": [{"role": "user", "content": "<image>"}]},
        "1 <image> marks for 0 images",
    ),
    "an image without mark": ({**GOOD, "images": ["i.png"]}, "0 <image> marks for 1 images"),
    "an image that is missing": (with_images("no.png"), "DIR/images/no.png: no such image"),
    "an image that is a folder": (with_images("sub"), "DIR/images/sub: no such image"),
    "an image above": (
        with_images("../s.jsonl"),
        "../s.jsonl: leads out of the image folder DIR/images; set --images",
    ),
    "an absolute image": (
        with_images("/etc/passwd"),
        "/etc/passwd: leads out of the image folder DIR/images; set --images",
    ),
    "a link that leads out": (
        with_images("out.png"),
        "out.png: leads out of the image folder DIR/images; set --images",
    ),
    "a folder that leads out": (
        with_images("away/s.jsonl"),
        "away/s.jsonl: leads out of the image folder DIR/images; set --images",
    ),
    "a loop of links": (with_images("loop"), "'loop': cannot be an image's name: "),
    "a null byte": (with_images("a\0"), "'a\\x00': cannot be an image's name: embedded null byte"),
    "a name that is too long": (with_images("a" * 300), f"'{'a' * 300}': cannot be an image's"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row(tmp_path: Path, case: str) -> None:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    (images / "out.png").symlink_to("../s.jsonl")
    (images / "away").symlink_to("..")
    (images / "loop").symlink_to("loop")
    row, message = BAD[case]
    found = refusal(written(tmp_path, GOOD, b"", row), images)
    assert found.startswith(f"DIR/s.jsonl:3: {message}")


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no", tmp_path / "i").startswith("DIR/no: cannot be read: [Errno 2]")


def test_an_empty_file(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, b" "), tmp_path / "i") == "DIR/s.jsonl: holds no samples"


def test_a_file_that_changes(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    rows = scan(path, tmp_path)
    rows.check_unchanged()
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError) as caught:
        rows.check_unchanged()
    assert str(caught.value) == f"{path}: changed while it was read; run again"
