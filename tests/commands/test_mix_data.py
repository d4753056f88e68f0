"""`mix-data`: exact shares, rows untouched, images that resolve, clean failures."""

import json
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from commandline import mllmtool

from mllmtool.data.samples import images_root, read_samples


def row(name: str, *images: str, **more: Any) -> dict[str, Any]:
    marks = "<image>\n" * len(images)
    turns = [{"role": "user", "content": f"{marks}{name}?"}, {"role": "assistant", "content": "é"}]
    listed = {"images": list(images)} if images else {}
    return {"id": name, **listed, "messages": turns, **more}


def source(folder: Path, name: str, count: int, images: str = "") -> Path:
    """A file of rows, the images of which lie in the subfolder `images`."""
    (folder / images).mkdir(parents=True, exist_ok=True)
    (folder / images / f"{name}.png").write_bytes(name.encode())
    shown = [f"{images}/{name}.png"] if images else []
    lines = [json.dumps(row(f"{name}{i}", *shown, x=1.50)) for i in range(count)]
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def mix(out: Path, *argv: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    done = mllmtool("mix-data", *argv, "--out", out, "--quiet")
    assert (done.status, done.out, done.err) == (0, f"{out}\n", "")
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return rows, report


def test_a_mix(tmp_path: Path) -> None:
    a, b = source(tmp_path, "a", 30, "images"), source(tmp_path, "b", 10)
    rows, report = mix(
        *(tmp_path / "mix", "--source", f"target={a}:0.7", "--source", f"general={b}:0.3"),
        *("--total", 25, "--seed", 4),
    )
    # quotas 17.5 and 7.5: equal remainders, the earlier source takes the row
    assert Counter(each["_mix"]["source"] for each in rows) == {"target": 18, "general": 7}
    lines = {"target": a.read_bytes().splitlines(), "general": b.read_bytes().splitlines()}
    for each in rows:
        origin = each.pop("_mix")
        line = lines[origin["source"]][origin["index"]]
        assert each == json.loads(line)
        assert origin["hash"] == sha256(line).hexdigest()[:16]
        assert origin["copy"] == 0
    assert report["seed"] == 4
    assert [each["sha256"] for each in report["inputs"]] == [
        sha256(path.read_bytes()).hexdigest() for path in (a, b)
    ]
    assert report["results"] == {
        "rows": 25,
        "rows_in_this_shard": 25,
        "share_with_images": 18 / 25,
        "turns": {"2": 25},
        "chars": {"4": 7, "16": 18},  # "b7?" and "é" are 4, "<image>\\na29?" and "é" are 13
        "sources": {
            "target": {
                "format": "messages",
                "share_asked": 0.7,
                "share_got": 18 / 25,
                "rows_read": 30,
                "rows_invalid": 0,
                "rows_duplicate": None,
                "rows_excluded": {"text": 0, "image": 0, "id": 0},
                "rows_usable": 30,
                "instances": 18,
                "rows_chosen": 18,
                "rows_written": 18,
                "passes": 18 / 30,
                "images_prefix": "",
                "rows_with_images": 18,
            },
            "general": {
                "format": "messages",
                "share_asked": 0.3,
                "share_got": 7 / 25,
                "rows_read": 10,
                "rows_invalid": 0,
                "rows_duplicate": None,
                "rows_excluded": {"text": 0, "image": 0, "id": 0},
                "rows_usable": 10,
                "instances": 7,
                "rows_chosen": 7,
                "rows_written": 7,
                "passes": 7 / 10,
                "images_prefix": None,
                "rows_with_images": 0,
            },
        },
    }


def test_rows_keep_their_bytes(tmp_path: Path) -> None:
    """Spaces, escapes and ways to write a number are as in the source."""
    turns = '{"role":"user","content":"\\u00e9 \u00e9"},{ "role":"assistant","content":"b" }'
    line = f'{{ "id":"1",  "messages" : [{turns}], "x": 1.50e3 }}'
    (tmp_path / "a.jsonl").write_text(f"{line}\n")
    mix(tmp_path / "mix", "--source", f"a={tmp_path}/a.jsonl:1", "--total", 1)
    digest = sha256(line.encode()).hexdigest()[:16]
    assert (tmp_path / "mix/samples.jsonl").read_text() == (
        f'{line[:-2]}, "_mix": {{"source": "a", "index": 0, "copy": 0, "hash": "{digest}"}}}}\n'
    )


def test_a_mix_of_mixes_keeps_the_whole_history(tmp_path: Path) -> None:
    a = source(tmp_path, "a", 3)
    first, _ = mix(tmp_path / "one", "--source", f"a={a}:1", "--total", 3)
    second, _ = mix(
        tmp_path / "two", "--source", f"again={tmp_path}/one/samples.jsonl:1", "--total", 3
    )
    for each in second:
        origin = each["_mix"]
        assert origin["source"] == "again"
        assert origin["before"] == first[origin["index"]]["_mix"]


def test_a_small_source_is_repeated_when_that_is_allowed(tmp_path: Path) -> None:
    a = source(tmp_path, "a", 4)
    rows, report = mix(tmp_path / "mix", "--source", f"a={a}:1", "--total", 10, "--max-repeat", 3)
    times = Counter(each["id"] for each in rows)
    assert sorted(times.values()) == [2, 2, 3, 3]
    assert max(each["_mix"]["copy"] for each in rows) == 2
    found = report["results"]["sources"]["a"]
    assert (found["rows_chosen"], found["rows_written"], found["passes"]) == (4, 10, 2.5)


def test_images_of_one_folder_are_named_as_before(tmp_path: Path) -> None:
    a, b = source(tmp_path, "a", 3, "i"), source(tmp_path, "b", 3, "j")
    rows, report = mix(
        tmp_path / "deep/mix", "--source", f"a={a}:.5", "--source", f"b={b}:.5", "--total", 4
    )
    assert {name for each in rows for name in each["images"]} == {"i/a.png", "j/b.png"}
    assert report["run"]["images_root"] == "../.."


def test_images_of_several_folders_are_named_from_the_nearest_common_one(tmp_path: Path) -> None:
    a = source(tmp_path / "data/one", "a", 3, "images")
    b = source(tmp_path / "data/two/sub", "b", 3, "images")
    c = source(tmp_path / "elsewhere", "c", 3)  # has no images, so it does not count
    sources = [
        ("--source", f"{path.stem}={path}:{share}")
        for path, share in ((a, 0.4), (b, 0.3), (c, 0.3))
    ]
    rows, report = mix(tmp_path / "mix", *(word for pair in sources for word in pair), "--total", 9)
    assert report["run"]["images_root"] == "../data"
    prefixes = {n: s["images_prefix"] for n, s in report["results"]["sources"].items()}
    assert prefixes == {"a": "one", "b": "two/sub", "c": None}
    assert {name for each in rows for name in each.get("images", [])} == {
        *("one/images/a.png", "two/sub/images/b.png")
    }
    samples = tmp_path / "mix/samples.jsonl"
    for sample in read_samples(samples):
        for name in sample.images:
            letter = sample.id[0]
            assert (images_root(samples) / name).read_text() == letter


def test_images_flag_and_recipe_key(tmp_path: Path) -> None:
    a, b = source(tmp_path / "rows", "a", 2), source(tmp_path / "rows", "b", 2)
    for path, name in ((a, "x.png"), (b, "y.png")):
        path.write_text(json.dumps(row("1", name)) + "\n")
        (tmp_path / path.stem).mkdir()
        (tmp_path / path.stem / name).touch()
    recipe = tmp_path / "mix.yaml"
    recipe.write_text(
        "total: 2\nsource:\n"
        f"- {{name: a, file: {a}, share: 0.5, images: {tmp_path}/a}}\n"
        f"- {{name: b, file: {b}, share: 0.5, images: {tmp_path}/b}}\n"
    )
    rows, _ = mix(tmp_path / "one", "--recipe", recipe)
    assert sorted(each["images"] for each in rows) == [["a/x.png"], ["b/y.png"]]
    rows, report = mix(
        *(tmp_path / "two", "--source", f"a={a}:1", "--total", 1, "--images", tmp_path / "a")
    )
    assert (rows[0]["images"], report["run"]["images_root"]) == (["x.png"], "../a")


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b = source(tmp_path, "a", 20, "i"), source(tmp_path, "b", 20)
    argv = ("--source", f"a={a}:0.5", "--source", f"b={b}:0.5", "--total", 30, "--seed", 9)
    _, one = mix(tmp_path / "one", *argv)
    _, two = mix(tmp_path / "two", "--recipe", tmp_path / "one/report.json")
    del one["run"], two["run"]
    assert one == two
    _, other = mix(tmp_path / "three", *argv[:-1], 10)
    assert other["outputs"] != one["outputs"]


def test_another_source_moves_no_row(tmp_path: Path) -> None:
    a, b = source(tmp_path, "a", 20), source(tmp_path, "b", 20)
    before, _ = mix(tmp_path / "one", "--source", f"a={a}:1", "--total", 10)
    after, _ = mix(
        tmp_path / "two", "--source", f"b={b}:0.5", "--source", f"a={a}:0.5", "--total", 20
    )
    assert [each for each in after if each["_mix"]["source"] == "a"] == before


def test_finetune_takes_a_mix_as_typed(tmp_path: Path, llava: Path, colours: Path) -> None:
    samples = colours if colours.is_file() else next(colours.glob("*.jsonl"))
    text = source(tmp_path / "text", "t", 4)
    mix(
        *(tmp_path / "mix", "--source", f"colours={samples}:0.5", "--source", f"t={text}:0.5"),
        *("--total", 8),
    )
    argv = ("--model", llava, "--samples", tmp_path / "mix/samples.jsonl", "--steps", 1)
    done = mllmtool("finetune", *argv, "--batch", 2, "--dry-run", "--out", tmp_path / "ft")
    assert done.status == 0, done.err
    assert json.loads(done.out)["sources"] == ["colours", "t"]


def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path: Path) -> None:
    a = source(tmp_path, "a", 20, "i")
    before = sorted(tmp_path.iterdir())
    done = mllmtool(
        "mix-data", "--source", f"a={a}:1", "--total", 5, "--out", tmp_path / "mix", "--dry-run"
    )
    plan = json.loads(done.out)
    assert (plan["rows"], plan["images_root"]) == (5, str(tmp_path.resolve()))
    assert plan["sources"]["a"]["rows_written"] == 5
    assert sorted(tmp_path.iterdir()) == before


def test_no_torch_and_quick(tmp_path: Path) -> None:
    a = source(tmp_path, "a", 1000)
    code = (
        "import sys, time, mllmtool.cli as c\n"
        "sys.argv = ['mllmtool', *sys.argv[1:]]\n"
        "try:\n    c.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'safetensors', 'datasets'} & set(sys.modules)\n"
        "sys.stderr.write(f'{heavy or None} {time.process_time() < 1.5}')"
    )
    argv = ["mix-data", "--source", f"a={a}:1", "--total", "1000", "--out", tmp_path / "mix"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, argv), "--quiet"], capture_output=True, check=True
    )
    assert done.stderr.decode() == "None True"


# Failures: status, the whole message, nothing left behind.

FAILURES: dict[str, tuple[int, list[str], str]] = {
    "a source that is too small": (
        2,
        ["--source", "a=DIR/a.jsonl:0.9", "--source", "b=DIR/b.jsonl:0.1", "--total", "50"],
        "--source a: 45 rows are to come from DIR/a.jsonl, which has 20: 25 are missing with"
        " --max-repeat 1; 3 would do, or a smaller share or --total",
    ),
    "shares that sum to more": (
        2,
        ["--source", "a=DIR/a.jsonl:0.9", "--source", "b=DIR/b.jsonl:0.2", "--total", "5"],
        "--source: the shares sum to 1.1, not to 1; --normalize divides by it",
    ),
    "a name twice": (
        2,
        ["--source", "a=DIR/a.jsonl:0.5", "--source", "a=DIR/b.jsonl:0.5", "--total", "5"],
        "--source: a name occurs twice in a, a",
    ),
    "a share that is no number": (
        2,
        ["--source", "a=DIR/a.jsonl:much", "--total", "5"],
        "--source: 'a=DIR/a.jsonl:much': 'much' is not a share, a number from 0 to 1",
    ),
    "NaN": (
        2,
        ["--source", "a=DIR/a.jsonl:nan", "--total", "5"],
        "--source: 'a=DIR/a.jsonl:nan': 'nan' is not a share, a number from 0 to 1",
    ),
    "a share below 0": (
        2,
        ["--source", "a=DIR/a.jsonl:-0.5", "--source", "b=DIR/b.jsonl:1", "--total", "5"],
        "--source: 'a=DIR/a.jsonl:-0.5': '-0.5' is not a share, a number from 0 to 1",
    ),
    "no sources": (2, ["--total", "5"], "--source: is required"),
    "no share": (
        2,
        ["--source", "a=DIR/a.jsonl", "--total", "5"],
        "--source: a has no share; write NAME=FILE:SHARE",
    ),
    "no rows": (
        2,
        ["--source", "a=DIR/a.jsonl:1", "--total", "0"],
        "--total: 0: input should be greater than or equal to 1",
    ),
    "a missing file": (
        3,
        ["--source", "a=DIR/no.jsonl:1", "--total", "5"],
        "DIR/no.jsonl: cannot be read: [Errno 2] No such file or directory: 'DIR/no.jsonl'",
    ),
    "a bad row, even of a source that gives none": (
        3,
        ["--source", "a=DIR/a.jsonl:1", "--source", "b=DIR/bad.jsonl:0", "--total", "5"],
        "DIR/bad.jsonl:2: DIR/none.png: no such image",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures(tmp_path: Path, case: str) -> None:
    source(tmp_path, "a", 20)
    source(tmp_path, "b", 20)
    bad = [json.dumps(row("1")), json.dumps(row("2", "none.png"))]
    (tmp_path / "bad.jsonl").write_text("\n".join(bad))
    before = sorted(tmp_path.iterdir())
    status, argv, message = FAILURES[case]
    argv = [word.replace("DIR", str(tmp_path)) for word in argv]
    done = mllmtool("mix-data", *argv, "--out", tmp_path / "mix", "--quiet")
    assert (done.status, done.out) == (status, "")
    assert done.err.replace(str(tmp_path), "DIR") == f"mllmtool: {message}\n"
    assert sorted(tmp_path.iterdir()) == before
