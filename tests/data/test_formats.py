"""Rows of other formats: what they become, and what is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mllmtool.data.formats import detect, to_sample
from mllmtool.data.samples import locate_samples
from mllmtool.errors import DataError

TURNS = [
    {"role": "user", "content": "<image>\nWhat?"},
    {"role": "assistant", "content": "A cat."},
]
OURS = {"id": "7", "images": ["a.png"], "messages": TURNS}
CONVERSATIONS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
PARTS = [{"type": "image"}, {"type": "text", "text": "What?"}]


def asked(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts)}, TURNS[1]]


TEXT = {"type": "text", "text": "What?"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "messages": ("messages", OURS),
    "one image": ("messages", {"id": "7", "image": "a.png", "messages": TURNS}),
    "an id that is a number": ("messages", {"id": 7, "image": "a.png", "messages": TURNS}),
    "roles of ShareGPT": (
        "messages",
        {
            "id": "7",
            "images": ["a.png"],
            "messages": [{**TURNS[0], "role": "human"}, {**TURNS[1], "role": "gpt"}],
        },
    ),
    "a part with an address": (
        "messages",
        {
            "id": "7",
            "messages": asked({"type": "image_url", "image_url": {"url": "a.png"}}, TEXT),
        },
    ),
    "a part with a name": (
        "messages",
        {"id": "7", "messages": asked({"type": "image", "image": "a.png"}, TEXT)},
    ),
    "an image of datasets, not embedded": (
        "messages",
        {"id": "7", "images": [{"bytes": None, "path": "a.png"}], "messages": TURNS},
    ),
    "llava": ("llava", {"id": "7", "image": "a.png", "conversations": CONVERSATIONS}),
    "llava, a list": ("llava", {"id": "7", "image": ["a.png"], "conversations": CONVERSATIONS}),
    "sharegpt": ("sharegpt", {"id": "7", "images": ["a.png"], "conversations": CONVERSATIONS}),
    "sharegpt with role and content": (
        "sharegpt",
        {"id": "7", "images": ["a.png"], "conversations": TURNS},
    ),
    "alpaca": (
        "alpaca",
        {"id": "7", "images": ["a.png"], "instruction": "What?", "input": "", "output": "A cat."},
    ),
    "prompt and response": (
        "prompt-response",
        {"id": "7", "image": "a.png", "prompt": "<image>\nWhat?", "response": "A cat."},
    ),
    "question and answer": (
        "prompt-response",
        {"id": "7", "image": "a.png", "question": "What?", "answer": "A cat."},
    ),
    "prompt and completion, turns": (
        "prompt-response",
        {"id": "7", "images": ["a.png"], "prompt": TURNS[:1], "completion": TURNS[1:]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_row_becomes_ours(case: str) -> None:
    form, values = CASES[case]
    found = detect(values, "f:1")
    assert found == form
    before = json.dumps(values)
    assert to_sample(values, found, "x") == OURS
    assert json.dumps(values) == before


def test_a_row_of_our_shape_is_the_same_object() -> None:
    for content in ("<image>What?", PARTS):
        values = {"id": "7", "images": ["a.png"], "messages": asked(), "more": 1}
        values["messages"][0]["content"] = content  # type: ignore[index]
        assert to_sample(values, "messages", "x") is values


def test_further_keys_systems_history_and_names() -> None:
    row = {"instruction": "b", "input": "c", "output": "d", "history": [["a", "A"]], "system": "s"}
    assert to_sample({**row, "level": 3}, "alpaca", "set-0") == {
        "id": "set-0",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "A"},
            {"role": "user", "content": "b\nc"},
            {"role": "assistant", "content": "d"},
        ],
        "level": 3,
    }


def test_text_after_an_image_part_stays_as_it_is() -> None:
    """A mark takes one newline after it, so a part's own newline is doubled."""
    part = {"type": "image", "image": "a.png"}
    row = {"id": "1", "messages": asked(part, {"type": "text", "text": "\nWhat?"})}
    assert to_sample(row, "messages", "x")["messages"][0]["content"] == "<image>\n\nWhat?"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no format": ({"a": 1, "b": 2}, "f:1: its keys (a, b) are those of no format among messages"),
    "no keys": ({}, "f:1: its keys (none) are those of no format among messages"),
    "a role": (
        {"conversations": [{"from": "narrator", "value": "x"}]},
        "is no row of format llava (the role 'narrator' is none of user, human,",
    ),
    "a turn without value": (
        {"conversations": [{"from": "human", "weight": 1}]},
        "lacks 'value', which a row of format llava has",
    ),
    "a further key in a turn": (
        {"conversations": [{"from": "human", "value": "x", "weight": 1}]},
        "is no row of format llava (a turn has from, value, weight)",
    ),
    "turns that are none": ({"conversations": 5}, "is no row of format llava ("),
    "a web address": (
        {"image": "https://a/b.png", "prompt": "a", "response": "b"},
        "is no row of format prompt-response ('https://a/b.png' is not a local file; fetch it",
    ),
    "embedded": (
        {"images": [{"bytes": "eA==", "path": None}], "prompt": "a", "response": "b"},
        "is no row of format prompt-response (an image is embedded as bytes; write it to a file",
    ),
    "a text that is none": (
        {"prompt": "a", "response": None},
        "is no row of format prompt-response (None is not a text)",
    ),
    "images twice": (
        {"images": ["b.png"], "messages": asked({"type": "image", "image": "a.png"})},
        "is no row of format messages (its images are named in parts and in a column)",
    ),
    "a part of sound": (
        {"messages": asked({"type": "audio", "audio": "a.wav"})},
        "is no row of format messages (a part of type 'audio')",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row(case: str) -> None:
    values, message = BAD[case]
    with pytest.raises(DataError) as caught:
        to_sample(values, detect(values, "f:1"), "x")
    assert str(caught.value).startswith(message)


# Files of each kind, read by `locate_samples`, as by every command that takes samples.

ROWS = [{"id": str(i), "image": "a.png", "conversations": CONVERSATIONS} for i in range(3)]
LINES = "\n".join(json.dumps(row) for row in ROWS) + "\n"


def write_file(folder: Path, name: str) -> Path:
    path, array = folder / name, json.dumps(ROWS, indent=1)
    if name.endswith(".zst"):
        path.write_bytes(pa.compress(LINES.encode(), "zstd", asbytes=True))
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress((array if ".json." in name else LINES).encode()))
    elif name.lower().endswith(".parquet"):
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif name == "hub":
        path.mkdir()
        for number, rows in enumerate((ROWS[:1], ROWS[1:])):
            file = path / f"train-{number:05}-of-00002.parquet"
            parquet.write_table(pa.Table.from_pylist(rows), file)
    elif name == "folder":
        datasets = pytest.importorskip("datasets")
        datasets.Dataset.from_list(ROWS).save_to_disk(path)
    else:
        path.write_text(array if name.endswith(".json") else LINES)
    return path


PLACES = {
    "s.jsonl": "{}:2",
    "s.json": "{} (row 1)",
    "s.jsonl.gz": "{}:2",
    "s.json.gz": "{} (row 1)",
    "s.jsonl.zst": "{}:2",
    "s.parquet": "{} (row 1)",
    "S.PARQUET": "{} (row 1)",
    "folder": "{}/data-00000-of-00001.arrow (row 1)",
    "hub": "{}/train-00001-of-00002.parquet (row 0)",
}


@pytest.mark.parametrize("name", PLACES)
def test_a_file_of_each_kind(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path, name)
    found = list(locate_samples(path))
    assert [sample.id for _, sample in found] == ["0", "1", "2"]
    assert found[1][0] == PLACES[name].format(path)
    assert [turn.content for turn in found[2][1].messages] == ["<image>\nWhat?", "A cat."]
    assert found[0][1].images == ("a.png",)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("s.jsonl.gz", "cannot be unpacked: Compressed file ended before the end-of-stream"),
        ("s.jsonl.zst", "cannot be unpacked: Truncated compressed stream"),
        ("s.parquet", "cannot be read: Parquet magic bytes not found"),
    ],
)
def test_a_file_that_is_cut_off(tmp_path: Path, name: str, reason: str) -> None:
    path = write_file(tmp_path, name)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DataError) as caught:
        list(locate_samples(path))
    assert str(caught.value).startswith(f"{path}: {reason}")


def test_embedded_images_are_refused_by_row(tmp_path: Path) -> None:
    rows = [{"images": [{"bytes": b"x", "path": "a"}], "prompt": "a", "response": "b"}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "s.parquet")
    with pytest.raises(DataError) as caught:
        list(locate_samples(tmp_path / "s.parquet"))
    assert str(caught.value) == (
        f"{tmp_path}/s.parquet (row 0): images: an image is embedded as bytes;"
        " write it to a file and name that in its place"
    )


def test_a_folder_without_rows_names_its_splits(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "state.json").touch()
    with pytest.raises(DataError) as caught:
        list(locate_samples(tmp_path / "d"))
    assert str(caught.value) == (
        f"{tmp_path}/d: holds the splits test, train; name the folder of one"
    )


def test_a_folder_of_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError) as caught:
        list(locate_samples(tmp_path / "d"))
    assert str(caught.value) == (
        f"{tmp_path}/d: is a folder without state.json of `datasets` or Parquet files"
    )


def test_a_state_that_leads_out_of_its_folder(tmp_path: Path) -> None:
    path = write_file(tmp_path, "folder")
    (path / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    with pytest.raises(DataError) as caught:
        list(locate_samples(path))
    assert str(caught.value) == f"{path}/state.json: names no data files beside it"
