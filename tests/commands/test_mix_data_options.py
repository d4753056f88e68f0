"""`mix-data`: budgets, modes, orders, controls, what is left out, shards, workers, Parquet."""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from commandline import mllmtool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_mix_data import mix, row, source
from tokenizers import Tokenizer, models, pre_tokenizers

from mllmtool.commands import mix_data
from mllmtool.data import splitting, writing
from mllmtool.data.samples import images_root, read_samples
from mllmtool.data.sources import row_counts


def of(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(each["_mix"]["source"] for each in rows)


def two(folder: Path, a: int = 30, b: int = 30) -> list[object]:
    """Sources `a`, which has images, and `b`, with shares of 0.6 and 0.4."""
    paths = source(folder, "a", a, "images"), source(folder, "b", b)
    return ["--source", f"a={paths[0]}:0.6", "--source", f"b={paths[1]}:0.4"]


def test_budgets_around_a_source(tmp_path: Path) -> None:
    argv = two(tmp_path)
    rows, _ = mix(tmp_path / "1", *argv, "--all-of", "a")  # 30 * 0.4 / 0.6
    assert of(rows) == {"a": 30, "b": 20}
    rows, _ = mix(tmp_path / "2", *argv, "--keep-target", 10)  # 10 * 0.4 / 0.6 = 6.67
    assert of(rows) == {"a": 10, "b": 7}
    argv = ["--source", f"a={tmp_path}/a.jsonl:0.3", "--source", f"b={tmp_path}/b.jsonl:0.1"]
    rows, _ = mix(tmp_path / "3", *argv, "--normalize", "--total", 20)
    assert of(rows) == {"a": 15, "b": 5}


def test_a_recipe_caps_the_passes_of_each_source(tmp_path: Path) -> None:
    a, b = source(tmp_path, "a", 10), source(tmp_path, "b", 2)
    recipe = tmp_path / "mix.yaml"
    lines = (f"- {{name: a, file: {a}, share: 0.5}}", f"- {{name: b, file: {b}, share: 0.5, %s}}")
    recipe.write_text("total: 12\nsource:\n" + "\n".join(lines) % "max_repeat: 3")
    rows, _ = mix(tmp_path / "1", "--recipe", recipe)
    assert of(rows) == {"a": 6, "b": 6}
    recipe.write_text("total: 12\nsource:\n" + "\n".join(lines) % "max_repeat: 2")
    done = mllmtool("mix-data", "--recipe", recipe, "--out", tmp_path / "2", "--quiet")
    assert (done.status, done.err) == (
        2,
        f"mllmtool: --source b: 6 rows are to come from {b}, which has 2: 2 are missing with"
        " --max-repeat 2; 3 would do, or a smaller share or --total\n",
    )


def test_replay_takes_all_of_the_last_stage_and_some_of_each_before(tmp_path: Path) -> None:
    paths = [source(tmp_path, name, 25) for name in "xyz"]
    argv = [word for path in paths for word in ("--source", f"{path.stem}={path}")]
    rows, report = mix(tmp_path / "mix", *argv, "--mode", "replay", "--replay", 20)
    assert of(rows) == {"x": 20, "y": 20, "z": 25}
    assert report["results"]["sources"]["x"]["share_asked"] is None
    rows, _ = mix(tmp_path / "2", *argv, "--mode", "replay", "--replay", 2, "--order", "source")
    assert [each["_mix"]["source"] for each in rows] == [*"xxyy", *"z" * 25]


def test_concat_is_every_row_in_its_order(tmp_path: Path) -> None:
    b, a = source(tmp_path, "b", 3), source(tmp_path, "a", 2)
    rows, _ = mix(tmp_path / "mix", "--source", f"b={b}", "--source", f"a={a}", "--mode", "concat")
    assert [each["id"] for each in rows] == ["b0", "b1", "b2", "a0", "a1"]


def test_a_pattern_is_one_source(tmp_path: Path) -> None:
    source(tmp_path, "p2", 3)
    source(tmp_path, "p1", 2)
    argv = ("--source", f"p={tmp_path}/p*.jsonl", "--mode", "concat")
    rows, report = mix(tmp_path / "mix", *argv)
    assert [each["id"] for each in rows] == ["p10", "p11", "p20", "p21", "p22"]
    assert [each["_mix"]["index"] for each in rows] == [0, 1, 2, 3, 4]
    assert [each["role"] for each in report["inputs"]] == ["p", "p"]


def test_blocks_hold_the_shares(tmp_path: Path) -> None:
    rows, _ = mix(
        tmp_path / "mix", *two(tmp_path), "--all-of", "a", "--order", "blocks", "--block", 10
    )
    for start in range(0, 50, 10):
        assert of(rows[start : start + 10]) == {"a": 6, "b": 4}


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(total=st.integers(1, 40), order=st.sampled_from(["shuffle", "source", "blocks"]))
def test_shards_and_ranges_change_no_byte(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    total: int,
    order: str,
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    argv = [*two(folder), "--total", total, "--order", order]
    argv += ["--block", 7] if order == "blocks" else []
    mix(folder / "whole", *argv)
    monkeypatch.setattr(splitting, "RANGE", 333)
    monkeypatch.setattr(writing, "CHUNK", 3)
    parts = b""
    for index in range(3):
        _, report = mix(folder / str(index), *argv, "--shard", f"{index}/3")
        parts += (folder / str(index) / "samples.jsonl").read_bytes()
    monkeypatch.undo()
    assert parts == (folder / "whole/samples.jsonl").read_bytes()
    assert report["results"]["rows"] == total


def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [*two(tmp_path, 300, 300), "--total", 200, "--duplicates", "drop"]
    _, one = mix(tmp_path / "1", *argv)
    monkeypatch.setattr(splitting, "RANGE", 3000)
    monkeypatch.setattr(writing, "CHUNK", 30)
    _, other = mix(tmp_path / "2", *argv, "--workers", 2)
    del one["run"], other["run"]
    assert one == other


def llava(folder: Path, count: int, name: str = "llava.json") -> Path:
    """A JSON array of LLaVA's rows, each of an image of its own."""
    rows = []
    for number in range(count):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(folder / f"l{number}.png")
        turns = [{"from": "human", "value": f"<image>\nq{number}"}, {"from": "gpt", "value": "é"}]
        rows.append({"id": str(number), "image": f"l{number}.png", "conversations": turns})
    (folder / name).write_text(json.dumps(rows))
    return folder / name


def test_other_formats_become_ours(tmp_path: Path) -> None:
    rows, report = mix(tmp_path / "mix", "--source", f"l={llava(tmp_path, 3)}", "--mode", "concat")
    assert [each.pop("_mix")["index"] for each in rows] == [0, 1, 2]
    assert rows[1] == {
        "id": "1",
        "images": ["l1.png"],
        "messages": [
            {"role": "user", "content": "<image>\nq1"},
            {"role": "assistant", "content": "é"},
        ],
    }
    assert report["results"]["sources"]["l"]["format"] == "llava"


@pytest.mark.parametrize("indent", [None, 2])
def test_rows_of_an_array_over_several_lines_become_lines(
    tmp_path: Path, indent: int | None
) -> None:
    lines = source(tmp_path, "a", 3).read_text().splitlines()
    given = [json.loads(line) for line in lines]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(given, indent=indent))
    rows, _ = mix(tmp_path / "mix", "--source", f"a={path}", "--mode", "concat")
    assert [{key: row[key] for key in row if key != "_mix"} for row in rows] == given


def test_an_image_without_a_name_is_none(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    path = tmp_path / "l.json"
    path.write_text(json.dumps([{"id": "1", "image": "", "conversations": turns}]))
    rows, _ = mix(tmp_path / "mix", "--source", f"l={path}", "--mode", "concat")
    assert not rows[0].get("images")


def test_compressed_sources_leave_nothing_unpacked(tmp_path: Path) -> None:
    plain = llava(tmp_path, 4)
    (tmp_path / "z.json.gz").write_bytes(gzip.compress(plain.read_bytes()))
    mix(tmp_path / "1", "--source", f"l={plain}", "--mode", "concat")
    mix(tmp_path / "2", "--source", f"l={tmp_path}/z.json.gz", "--mode", "concat")
    assert {path.name for path in (tmp_path / "2").iterdir()} == {
        *("samples.jsonl", "report.json", "composition.png", "dataset_info.json")
    }
    one, two = ((tmp_path / n / "samples.jsonl").read_bytes() for n in "12")
    assert one == two


@pytest.mark.parametrize("kind", ["other-text", "other-image", "other-both"])
def test_controls_pair_nothing_as_it_was(tmp_path: Path, kind: str) -> None:
    path = llava(tmp_path, 9)
    argv = ("--source", f"t={path}", "--source", f"c={path}", "--mode", "concat")
    rows, _ = mix(tmp_path / "mix", *argv, "--control", f"c={kind}")
    assert rows[:9] == mix(tmp_path / "2", *argv)[0][:9]
    for number, each in enumerate(rows[9:]):
        text = int(each["messages"][0]["content"].removeprefix("<image>\nq"))
        image = int(each["images"][0].removeprefix("l").removesuffix(".png"))
        assert text != image
        assert (text == number) == (kind == "other-image")
        assert (image == number) == (kind == "other-text")
        assert each["_mix"]["turns_of"] == text
        assert each["_mix"]["images_of"] == image
        assert (each["id"], each["_mix"]["control"]) == (str(number), kind)
    for column in ("turns_of", "images_of"):  # each row's is used once
        assert sorted(each["_mix"][column] for each in rows[9:]) == list(range(9))


def test_a_control_needs_a_partner(tmp_path: Path) -> None:
    path = llava(tmp_path, 1)
    argv = ("--source", f"c={path}", "--mode", "concat", "--control", "c=other-text")
    done = mllmtool("mix-data", *argv, "--out", tmp_path / "mix", "--quiet")
    assert (done.status, done.err) == (
        3,
        f"mllmtool: {path}:1 (row 0): has 1 images, and no partner for --control other-text among"
        " the rows with as many; leave such rows out with --on-invalid drop\n",
    )


def test_invalid_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    good = [json.dumps(row(str(number))) for number in range(4)]
    lines = [good[0], "{", good[1], json.dumps(row("x", "none.png")), "[]", *good[2:], "\xff"]
    (tmp_path / "a.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    argv = ("--source", f"a={tmp_path}/a.jsonl", "--mode", "concat")
    rows, report = mix(tmp_path / "mix", *argv, "--on-invalid", "drop")
    assert [(each["id"], each["_mix"]["index"]) for each in rows] == [
        *(("0", 0), ("1", 2), ("2", 5), ("3", 6))
    ]
    found = report["results"]["sources"]["a"]
    assert (found["rows_read"], found["rows_invalid"], found["rows_usable"]) == (8, 4, 4)


def test_a_dropped_row_moves_no_other(tmp_path: Path) -> None:
    argv = ("--source", f"a={source(tmp_path, 'a', 20)}:1")
    before, _ = mix(tmp_path / "1", *argv, "--total", 20)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    (tmp_path / "a.jsonl").write_text("\n".join(["{}", *lines[1:]]))
    drop = (*argv, "--format", "messages", "--on-invalid", "drop")
    after, _ = mix(tmp_path / "2", *drop, "--total", 19)
    chosen = [each["id"] for each in before if each["id"] != "a0"]
    assert sorted(each["id"] for each in after) == sorted(chosen)


def test_duplicates_are_of_equal_text_and_equal_pictures(tmp_path: Path) -> None:
    for name, colour in (("1.png", "red"), ("2.png", "red"), ("3.png", "blue")):
        Image.new("RGB", (2, 2), colour).save(tmp_path / name)
    turns = row("x", "1.png")["messages"]
    conversations = [
        {"from": "human", "value": turns[0]["content"]},
        {"from": "gpt", "value": turns[1]["content"]},
    ]
    a = [{**row("x", name), "id": name} for name in ("1.png", "2.png", "3.png")]
    b = [{"image": "2.png", "conversations": conversations}, {"conversations": CHAT}]
    for name, rows in (("a", a), ("b", b)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    both = ("--source", f"a={tmp_path}/a.jsonl", "--source", f"b={tmp_path}/b.jsonl")
    argv = (*both, "--mode", "concat")
    found, report = mix(tmp_path / "mix", *argv, "--duplicates", "drop")
    assert [each["id"] for each in found] == ["1.png", "3.png", "b-1"]
    assert [s["rows_duplicate"] for s in report["results"]["sources"].values()] == [1, 1]
    done = mllmtool("mix-data", *argv, "--duplicates", "error", "--out", tmp_path / "2", "--quiet")
    assert (done.status, done.err) == (
        3,
        f"mllmtool: {tmp_path}/a.jsonl:2: has the text and images of {tmp_path}/a.jsonl:1;"
        " leave such rows out with --duplicates drop\n",
    )


CHAT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]


def test_evaluation_samples_stay_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(6):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(data / f"{number}.png")
    (data / "copy.png").write_bytes((data / "0.png").read_bytes())
    items = [
        {"id": "e0", "images": ["0.png"], "question": "What?", "options": ["a", "b"], "answer": 0},
        {"id": "e1", "question": "Is  IT?", "options": ["a", "b"], "answer": 1},
    ]
    (data / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    (data / "eval.jsonl").write_text(json.dumps(row("e2", "1.png")))

    def asked(name: str, text: str, *images: str) -> dict[str, Any]:
        turns = [{"role": "user", "content": "<image>" * len(images) + text}, ANSWER]
        return {"id": name, "images": list(images), "messages": turns}

    rows = [
        asked("0", "what?", "copy.png"),  # the item's text and image
        asked("1", "What?\nA. a\nB. b", "0.png"),  # with its options
        asked("2", "What?", "2.png"),  # the text on another image
        asked("3", "is it?"),  # an item without images
        asked("4", "Else?", "1.png"),  # an image of a sample
        asked("e2", "Else?", "3.png"),  # an id
        asked("6", "Else?", "4.png"),
    ]
    (data / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = ("--exclude", data / "items.jsonl", "--exclude", data / "eval.jsonl")
    argv = ("--source", f"a={data}/a.jsonl", "--mode", "concat", *out)
    found, report = mix(tmp_path / "1", *argv)
    assert [each["id"] for each in found] == ["2", "6"]
    excluded = report["results"]["sources"]["a"]["rows_excluded"]
    assert excluded == {"text": 3, "image": 1, "id": 1}
    assert [each["role"] for each in report["inputs"]] == ["a", "exclude", "exclude"]
    found, _ = mix(tmp_path / "2", *argv, "--exclude-by", "text")
    assert [each["id"] for each in found] == ["2", "4", "e2", "6"]


ANSWER = {"role": "assistant", "content": "yes"}


def test_units_of_images_and_tokens(tmp_path: Path) -> None:
    count = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    count.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    count.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "i.png").touch()
    rows = []
    for number in range(12):
        text = "<image>" * (number % 3) + "word " * (number % 4 + 1)
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]
        rows.append({"id": str(number), "images": ["i.png"] * (number % 3), "messages": turns})
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    argv = ["--source", f"a={tmp_path}/a.jsonl:1", "--total"]
    found, report = mix(tmp_path / "1", *argv, 6, "--unit", "images")
    images = [len(each["images"]) for each in found]
    assert sum(images) in (6, 7)
    assert report["results"]["sources"]["a"]["images"] == sum(images)
    tokens = ("--unit", "tokens", "--tokenizer", tmp_path)
    found, report = mix(tmp_path / "2", *argv, 20, *tokens)
    said = [int(each["id"]) % 4 + 2 for each in found]
    assert 20 <= sum(said) < 25
    assert report["results"]["sources"]["a"]["tokens"] == sum(said)
    assert report["inputs"][-1]["path"] == str(tmp_path / "tokenizer.json")


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    argv = [*two(tmp_path), "--total", 20]
    rows, _ = mix(tmp_path / "1", *argv)
    mllmtool("mix-data", *argv, "--write", "parquet", "--out", tmp_path / "2", "--quiet")
    path = tmp_path / "2/samples.parquet"
    read = list(read_samples(path))
    assert [sample.id for sample in read] == [each["id"] for each in rows]
    assert [sample.model_extra["_mix"]["hash"] for sample in read if sample.model_extra] == [
        each["_mix"]["hash"] for each in rows
    ]
    assert images_root(path).resolve() == images_root(tmp_path / "1/samples.jsonl").resolve()


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_datasets_loads_a_mix(tmp_path: Path, kind: str) -> None:
    datasets = pytest.importorskip("datasets")
    argv = [*two(tmp_path), "--total", 20]
    mllmtool("mix-data", *argv, "--write", kind, "--out", tmp_path / "mix", "--quiet")
    info = json.loads((tmp_path / "mix/dataset_info.json").read_text())["mix"]
    loaded = datasets.load_dataset(
        {"jsonl": "json"}.get(kind, kind),
        data_files=str(tmp_path / "mix" / info["file_name"]),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(loaded) == 20
    assert loaded[0][info["columns"]["messages"]][0][info["tags"]["role_tag"]] == "user"


def test_check_images_decodes_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "a.jsonl").write_text(json.dumps(row("1", "a.png")))
    argv = ("--source", f"a={tmp_path}/a.jsonl", "--mode", "concat")
    mix(tmp_path / "1", *argv)
    done = mllmtool("mix-data", *argv, "--check-images", "--out", tmp_path / "2", "--quiet")
    assert done.status == 3
    assert done.err.startswith(
        f"mllmtool: {tmp_path}/a.jsonl:1: {tmp_path}/a.png: is not a readable image: "
    )


def test_a_source_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path, "a", 5)

    def read(fd: int, length: int, at: int) -> bytes:
        os.utime(path, ns=(1, 1))
        found = bytearray(length)
        return bytes(found[: os.preadv(fd, [found], at)])

    monkeypatch.setattr(os, "pread", read)
    done = mllmtool("mix-data", "--source", f"a={path}:1", "--total", 5, "--out", tmp_path / "m")
    assert (done.status, done.err) == (
        3,
        f"mllmtool: {path}: changed while it was read; run again\n",
    )
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(("cut", "named"), [(b"", "DIR/a.jsonl"), (b"x" * 9999, "a")])
def test_a_source_that_is_overwritten_between_reading_and_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: bytes, named: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"conversations": CHAT}) for _ in range(5)))
    real = row_counts

    def overwrite(*args: Any) -> Any:
        path.write_bytes(cut)
        return real(*args)

    monkeypatch.setattr(mix_data, "row_counts", overwrite)
    done = mllmtool("mix-data", "--source", f"a={path}:1", "--total", 5, "--out", tmp_path / "m")
    message = f"mllmtool: {named}: changed while it was read; run again\n"
    assert (done.status, done.err) == (3, message.replace("DIR", str(tmp_path)))
    assert not (tmp_path / "m").exists()


def test_a_thousand_rows_are_quick_and_need_no_model_library(tmp_path: Path) -> None:
    source(tmp_path, "a", 1000)
    code = (
        "import sys, time, mllmtool.cli as c\n"
        "sys.argv = ['mllmtool', *sys.argv[1:]]\n"
        "try:\n    c.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'matplotlib', 'tokenizers'}\n"
        "sys.stderr.write(f'{heavy & set(sys.modules) or None}')"
    )
    argv = ["mix-data", "--source", f"a={tmp_path}/a.jsonl:1", "--total", "1000", "--quiet"]
    for words in ([*argv, "--out", str(tmp_path / "mix")], ["mix-data", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=True)
        assert done.stderr.decode() == "None"


# Failures: status, the whole message, nothing left behind.

A, B = "--source=a=DIR/a.jsonl:0.5", "--source=b=DIR/b.jsonl:0.5"
FAILURES: dict[str, tuple[int, list[str], str]] = {
    "no budget": (
        2,
        [A, B],
        "--mode hybrid: takes one of --total, --all-of, --keep-target; given: none",
    ),
    "two budgets": (
        2,
        [A, B, "--total=5", "--all-of=a"],
        "--mode hybrid: takes one of --total, --all-of, --keep-target; given: --total, --all-of",
    ),
    "a budget of concat": (
        2,
        [A, B, "--mode=concat", "--total=5"],
        "--mode concat: takes no budget; given: --total",
    ),
    "all of a stranger": (
        2,
        [A, B, "--all-of=c"],
        "--all-of: c is not among the sources a, b",
    ),
    "around a share of 0": (
        2,
        ["--source=a=DIR/a.jsonl:0", "--source=b=DIR/b.jsonl:1", "--keep-target=5"],
        "--keep-target: the share of a is 0, so no number follows from it",
    ),
    "tokens without a tokenizer": (
        2,
        [A, B, "--total=5", "--unit=tokens"],
        "--tokenizer: goes with --unit tokens, and that needs it",
    ),
    "blocks without a size": (
        2,
        [A, B, "--total=5", "--order=blocks"],
        "--block: goes with --order blocks, and that needs it",
    ),
    "a shard beyond": (
        2,
        [A, B, "--total=5", "--shard=3/3"],
        "--shard: '3/3': is not I/N with I below N",
    ),
    "a control of a stranger": (
        2,
        [A, B, "--total=5", "--control=c=other-text"],
        "--control: 'c=other-text' is not NAME=other-text, other-image or other-both with a NAME"
        " among a, b",
    ),
    "replay beyond a stage": (
        2,
        ["--source=a=DIR/a.jsonl", "--source=b=DIR/b.jsonl", "--mode=replay", "--replay=30"],
        "--source a: 30 rows are to come from DIR/a.jsonl, which has 20: 10 are missing with"
        " --max-repeat 1; 2 would do, or a smaller --replay",
    ),
    "a pattern of no file": (
        3,
        ["--source=a=DIR/no*.jsonl:1", "--total=5"],
        "DIR/no*.jsonl: no file matches",
    ),
    "an empty source": (
        3,
        ["--source=a=DIR/empty.jsonl:1", "--total=5"],
        "DIR/empty.jsonl: holds no samples",
    ),
    "an empty array": (
        3,
        ["--source=a=DIR/empty.json:1", "--total=5"],
        "DIR/empty.json: holds no samples",
    ),
    "a loop of links": (
        3,
        ["--source=a=DIR/loop:1", "--total=5"],
        "DIR/loop: cannot be read: [Errno 40] Too many levels of symbolic links: 'DIR/loop'",
    ),
    "an array cut off": (
        3,
        ["--source=a=DIR/cut.json:1", "--total=5"],
        "DIR/cut.json:2: is not JSON (Expecting ',' delimiter)",
    ),
    "turns out of order": (
        3,
        ["--source=a=DIR/turns.json:1", "--total=1"],
        "DIR/turns.json:1 (row 0): messages.0.role: is assistant where user is due",
    ),
    "a tokenizer that is none": (
        2,
        ["--source=a=DIR/a.jsonl:1", "--total=1", "--unit=tokens", "--tokenizer=DIR/a.jsonl"],
        "--tokenizer: DIR/a.jsonl cannot be read: ",
    ),
    "an evaluation image that is missing": (
        3,
        ["--source=a=DIR/a.jsonl:1", "--total=1", "--exclude=DIR/lost.jsonl"],
        "DIR/lost.jsonl:1: DIR/lost.png: no such image",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures(tmp_path: Path, case: str) -> None:
    for name in "ab":
        source(tmp_path, name, 20)
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "empty.json").write_text("[ ]")
    (tmp_path / "loop").symlink_to("loop")
    good = json.dumps(row("1"))
    (tmp_path / "cut.json").write_text(f"[{good},\n{good}")
    turns = [{"from": "gpt", "value": "x"}, {"from": "human", "value": "y"}]
    (tmp_path / "turns.json").write_text(json.dumps([{"conversations": turns}]))
    (tmp_path / "lost.jsonl").write_text(json.dumps(row("1", "lost.png")))
    before = sorted(tmp_path.iterdir())
    status, argv, message = FAILURES[case]
    argv = [word.replace("DIR", str(tmp_path)) for word in argv]
    done = mllmtool("mix-data", *argv, "--out", tmp_path / "mix", "--quiet")
    found = done.err.replace(str(tmp_path), "DIR")
    assert (done.status, done.out) == (status, "")
    assert found == f"mllmtool: {message}\n" or (message.endswith(": ") and message in found)
    assert sorted(tmp_path.iterdir()) == before
