"""Files of samples are checked as a whole, with file and line in every message."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mllmtool.configs.mix_data import MixDataConfig
from mllmtool.context import Context
from mllmtool.data.rows import Rows
from mllmtool.data.sources import open_sources
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


def scan(path: Path, images: Path, **more: Any) -> Rows:
    """The rows of a file of samples whose images lie under `images`."""
    source = {"name": "a", "file": str(path), "share": 1}
    config = MixDataConfig.parse({"source": [source], "images": str(images), "total": 1, **more})
    opened = open_sources(config, Context(quiet=True), path.parent / "unpacked")
    return opened.rows["a"]


def texts(rows: Rows) -> list[bytes]:
    found = []
    for index, (begin, length) in enumerate(rows.fields[["begin", "length"]].tolist()):
        data = rows.part_of(index).layout.path.read_bytes()
        found.append(data[begin : begin + length])
    return found


def test_rows_come_back_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "i.png").touch()
    answer = b'{"role":"assistant","content":"\xc3\xa9"}'
    odd = (
        b'  {"id" : "\\u00e9", "x": 1.0e5, "messages": [{"role":"user","content":""},%b]}\t'
        % answer
    )
    path = written(tmp_path, GOOD, b"", odd, with_images("i.png"))
    rows = scan(path, tmp_path)
    assert len(rows) == 3
    assert texts(rows) == [
        json.dumps(GOOD).encode(),
        odd.strip(),
        json.dumps(with_images("i.png")).encode(),
    ]
    assert rows.fields["images"].tolist() == [0, 0, 1]
    assert rows.fields["ours"].all()
    assert rows.sha256 == [sha256(path.read_bytes()).hexdigest()]


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
    "no messages": ({"id": "1"}, "lacks 'messages', which a row of format messages has"),
    "messages that are none": ({"id": "1", "messages": 5}, "messages: Input should be a valid"),
    "a turn that is none": ({"id": "1", "messages": [5]}, "messages.0: Input should be a valid"),
    "no turns": ({"id": "1", "messages": []}, "messages: Tuple should have at least 1 item"),
    "two turns of one": (
        {"id": "1", "messages": [ANSWER, ANSWER]},
        "messages.0.role: is assistant where user is due",
    ),
    "no answer": (
        {"id": "1", "messages": [{"role": "user", "content": "x"}]},
        "messages: the last turn is the user's, not the assistant's",
    ),
    "nested too deeply": (b"[" * 100_000, "is not JSON (maximum recursion depth exceeded"),
    "an unknown role": (
        {"id": "1", "messages": [{"role": "tool", "content": "x"}]},
        "messages.0.role: Input should be 'system', 'user' or 'assistant'",
    ),
    "a mark without image": (
        {"id": "1", "messages": [{"role": "user", "content": "<image>"}, ANSWER]},
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
