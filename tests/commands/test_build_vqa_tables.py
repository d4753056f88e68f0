"""`build-vqa` on tables: what each kind gives, and what is refused."""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commandline import mllmtool
from PIL import Image

from mllmtool.data.samples import images_root, read_samples

NAMES = ["cat", "dog", "eel", "fly"]


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (2, 2), shade).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight pictures beside the tables, two a class."""
    (tmp_path / "img").mkdir()
    for number in range(8):
        (tmp_path / f"img/{number}.png").write_bytes(png(number))
    return tmp_path / "img"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def build(out: Path, *argv: object) -> dict[str, Any]:
    done = mllmtool("build-vqa", *argv, "--out", out, "--quiet")
    assert (done.status, done.out, done.err) == (0, f"{out}\n", "")
    for sample in read_samples(out / "samples.jsonl"):
        assert all((images_root(out / "samples.jsonl") / name).is_file() for name in sample.images)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def rows(**more: Any) -> list[dict[str, Any]]:
    return [{"image": f"img/{n}.png", "class_name": NAMES[n % 4], **more} for n in range(8)]


def write_csv(path: Path) -> Path:
    separator = "\t" if path.suffix == ".tsv" else ","
    table = [["class_name", "image"], *([row["class_name"], row["image"]] for row in rows())]
    path.write_text("\ufeff" + "".join(separator.join(cells) + "\r\n" for cells in table))
    return path


def write_jsonl(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(more=[1])))
    return path


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows(more=[1])), path)
    return path


def write_numbered_parquet(path: Path) -> Path:
    """As `datasets` writes it: structs for images, numbers for classes, names in the metadata."""
    images = [{"bytes": None, "path": row["image"]} for row in rows()]
    table = pa.table({"image": images, "class_name": [n % 4 for n in range(8)]})
    features = {"class_name": {"names": NAMES, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.csv", write_csv),
        ("t.tsv", write_csv),
        ("t.jsonl", write_jsonl),
        ("t.parquet", write_parquet),
        ("numbered.parquet", write_numbered_parquet),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_every_table_gives_the_same_items(
    tmp_path: Path, name: str, write: Callable[[Path], Path]
) -> None:
    report = build(tmp_path / "out", "--images", write(tmp_path / name))
    assert report["results"]["classes"] == dict.fromkeys(NAMES, 2)
    assert report["run"]["images_root"] == ".."
    found = lines(tmp_path / "out/items.jsonl")
    assert [(row["id"], row["class_name"]) for row in found] == [
        (f"img/{n}.png", NAMES[n % 4]) for n in range(8)
    ]
    build(tmp_path / "again", "--images", write_csv(tmp_path / "again.csv"))
    assert found == lines(tmp_path / "again/items.jsonl")


def test_embedded_images_are_written_under_the_hash_of_their_bytes(tmp_path: Path) -> None:
    embedded = [{"bytes": png(n), "path": "x.png"} for n in range(8)]
    table = pa.table({"image": embedded, "label": [NAMES[n % 4] for n in range(8)]})
    pq.write_table(table, tmp_path / "t.parquet")
    argv = ("--images", tmp_path / "t.parquet", "--label-column", "label")
    report = build(tmp_path / "out", *argv)
    expected = [f"images/{hashlib.sha256(png(n)).hexdigest()}.png" for n in range(8)]
    found = lines(tmp_path / "out/items.jsonl")
    assert [row["images"] for row in found] == [[name] for name in expected]
    assert [row["id"] for row in found] == expected
    assert report["run"]["images_root"] == "."
    written = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/images/*")}
    assert written == set(expected)
    assert all((tmp_path / "out" / expected[n]).read_bytes() == png(n) for n in range(8))
    done = mllmtool("build-vqa", *argv, "--dry-run", "--quiet")
    assert json.loads(done.out)["first"] == found[0]


def test_a_row_that_says_the_same_again_is_counted(tmp_path: Path) -> None:
    shades = [0, 1, 2, 3, 1, 0]
    table = pa.table({"image": [png(n) for n in shades], "class_name": [NAMES[n] for n in shades]})
    pq.write_table(table, tmp_path / "t.parquet")
    results = build(tmp_path / "out", "--images", tmp_path / "t.parquet")["results"]
    assert (results["images"], results["duplicate_rows"]) == (4, 2)


def save_dataset(folder: Path, batches: int = 2) -> Path:
    """The layout of `datasets.Dataset.save_to_disk`."""
    folder.mkdir(parents=True)
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    files = []
    for number in range(batches):
        mine = range(number * 8 // batches, (number + 1) * 8 // batches)
        images = [{"bytes": png(n), "path": None} for n in mine]
        table = pa.table({"image": images, "label": [n % 4 for n in mine]})
        name = f"data-{number:05d}-of-{batches:05d}.arrow"
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)
        files.append({"filename": name})
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    argv = ("--images", save_dataset(tmp_path / "saved"), "--label-column", "label")
    build(tmp_path / "out", *argv)
    found = lines(tmp_path / "out/items.jsonl")
    assert [row["class_name"] for row in found] == NAMES * 2
    assert [row["images"][0][7:-4] for row in found] == [
        hashlib.sha256(png(n)).hexdigest() for n in range(8)
    ]


@pytest.mark.usefixtures("pictures")
def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(2):
        part = pa.Table.from_pylist(rows()[number * 4 : number * 4 + 4])
        pq.write_table(part, tmp_path / f"set/train-{number:05d}-of-00002.parquet")
    argv = ("--images", tmp_path / "set", "--image-root", tmp_path)
    build(tmp_path / "out", *argv)
    assert [row["id"] for row in lines(tmp_path / "out/items.jsonl")] == [
        f"img/{n}.png" for n in range(8)
    ]
    pq.write_table(part, tmp_path / "set/test-00000-of-00001.parquet")
    message = f"{tmp_path}/set: holds the splits test, train; name a file, or a folder of one"
    done = mllmtool("build-vqa", *argv, "--out", tmp_path / "no", "--quiet")
    assert (done.status, done.err) == (3, f"mllmtool: {message}\n")


@pytest.mark.usefixtures("pictures")
def test_a_question_names_other_columns(tmp_path: Path) -> None:
    text = "image,class_name,dye,id\n" + "".join(
        f"img/{n}.png,{NAMES[n % 4]},d{n},n{n}\n" for n in range(8)
    )
    (tmp_path / "t.csv").write_text(text)
    argv = ("--images", tmp_path / "t.csv", "--question", "In {dye}?", "--question", "Dye {dye}?")
    build(tmp_path / "out", *argv, "--style", "multiple-choice")
    found = lines(tmp_path / "out/items.jsonl")
    assert [row["id"] for row in found] == [f"n{n}" for n in range(8)]
    for number, row in enumerate(found):
        assert row["question"] in (f"In d{number}?", f"Dye d{number}?")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet")
    code = (
        "import sys; sys.modules['pyarrow'] = None; import mllmtool.cli as c;"
        f"sys.argv = ['mllmtool', 'build-vqa', '--images', '{tmp_path}/t.parquet', '--out',"
        f" '{tmp_path}/out', '--quiet']; c.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    message = f"{tmp_path}/t.parquet: needs pyarrow; pip install 'mllmtool[parquet]'"
    assert (done.returncode, done.stderr) == (2, f"mllmtool: {message}\n")


# Failures: status, the whole message, nothing left behind.

HEAD = "image,class_name\n"
WRONG_CSV: dict[str, tuple[str, list[str], str]] = {
    "no such column": (
        "file,label\nimg/0.png,cat\n",
        ["--image-column", "file"],
        "FILE: has no column 'class_name'; its columns are file, label;"
        " name one with --label-column",
    ),
    "a cell too few": (
        HEAD + "img/0.png,cat\nimg/1.png\n",
        [],
        "FILE:3: has 1 cells for 2 columns",
    ),
    "a column twice": ("image,image\n", [], "FILE:1: two columns are named 'image'"),
    "an open quote": (
        HEAD + 'img/0.png,"cat\n',
        [],
        "FILE:2: is not CSV (unexpected end of data)",
    ),
    "no class": (
        HEAD + "img/0.png,\n",
        [],
        "FILE:2: class_name: '' cannot be an option's text",
    ),
    "a way out": (
        HEAD + "img/../../x.png,cat\n",
        [],
        "FILE:2: img/../../x.png: leads out of the image folder DIR; set --image-root",
    ),
    "no image": (HEAD + "img/9.png,cat\n", [], "FILE:2: DIR/img/9.png: no such image"),
    "two classes of an image": (
        HEAD + "img/0.png,cat\nimg/0.png,dog\n",
        [],
        "FILE:3: image 'img/0.png' is also in FILE:2, with another class or text;"
        " give the rows ids in a column id",
    ),
    "two questions about an image": (
        "image,class_name,asked\nimg/0.png,cat,what\nimg/0.png,cat,which\n",
        ["--question", "{asked}?"],
        "FILE:3: image 'img/0.png' is also in FILE:2, with another class or text;"
        " give the rows ids in a column id",
    ),
    "no rows": (HEAD, [], "FILE: holds no images"),
    "nothing": ("", [], "FILE: has no line of column names"),
    "a mark in a column": (
        "image,class_name,dye\nimg/0.png,cat,<image>\n",
        ["--question", "{dye}?"],
        "FILE:2: fields: a text holds <image>",
    ),
    "a question that names the classes' column": (
        "image,label\nimg/0.png,cat\n",
        ["--label-column", "label", "--question", "{label}?"],
        "--question: {label}: is the column of classes; write {class_name}",
    ),
}


def fails(tmp_path: Path, path: Path, *argv: object) -> tuple[int, str]:
    before = sorted(tmp_path.rglob("*"))
    done = mllmtool("build-vqa", "--images", path, *argv, "--out", tmp_path / "out", "--quiet")
    assert done.out == ""
    assert sorted(tmp_path.rglob("*")) == before
    return done.status, done.err.replace(str(path), "FILE").replace(str(tmp_path), "DIR")


@pytest.mark.parametrize("case", WRONG_CSV)
@pytest.mark.usefixtures("pictures")
def test_a_csv_that_cannot_be(tmp_path: Path, case: str) -> None:
    text, argv, message = WRONG_CSV[case]
    (tmp_path / "t.csv").write_text(text)
    status = 2 if message.startswith("--") else 3
    assert fails(tmp_path, tmp_path / "t.csv", *argv) == (status, f"mllmtool: {message}\n")


def test_a_csv_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"image,class_name\nx,caf\xe9\n")
    status, message = fails(tmp_path, tmp_path / "t.csv")
    assert status == 3
    assert message.startswith("mllmtool: FILE: cannot be read: 'utf-8' codec can't decode")


WRONG_PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "no image": (
        {"image": [b"no image"], "class_name": ["cat"]},
        "FILE (row 0): image: holds no PNG, JPEG, GIF, WebP, BMP or TIFF",
    ),
    "a mixture": (
        {"image": [{"bytes": png(0), "path": None}, {"bytes": None, "path": "img/0.png"}]},
        "FILE (row 1): image: is not an embedded image",
    ),
    "nothing": ({"image": ["img/0.png", None]}, "FILE (row 1): image: is not a path"),
    "numbers without names": (
        {"image": ["img/0.png"], "class_name": [3]},
        "FILE (row 0): class_name: is the number 3, and the file names no classes",
    ),
    "another column": (
        {"image": ["x"], "x": [1]},
        "FILE: has no column 'class_name'; its columns are image, x; name one with --label-column",
    ),
}


@pytest.mark.parametrize("case", WRONG_PARQUET)
@pytest.mark.usefixtures("pictures")
def test_a_parquet_file_that_cannot_be(tmp_path: Path, case: str) -> None:
    columns, message = WRONG_PARQUET[case]
    if "x" not in columns:
        columns = {"class_name": NAMES[: len(columns["image"])]} | columns
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert fails(tmp_path, tmp_path / "t.parquet") == (3, f"mllmtool: {message}\n")


def test_a_number_that_names_no_class(tmp_path: Path) -> None:
    path = write_numbered_parquet(tmp_path / "t.parquet")
    table = pq.read_table(path)
    numbers = table.set_column(1, "class_name", [[0, 1, 2, -1, 4, 5, 6, 7]])
    pq.write_table(numbers, path)
    (tmp_path / "img").mkdir()
    for number in range(8):
        (tmp_path / f"img/{number}.png").write_bytes(png(number))
    message = "mllmtool: FILE (row 3): class_name: is -1, and there are 4 classes\n"
    assert fails(tmp_path, path) == (3, message)


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"no")
    status, message = fails(tmp_path, tmp_path / "t.parquet")
    assert status == 3
    assert message.startswith("mllmtool: FILE: cannot be read: ")
    assert message.count("\n") == 1


def test_folders_that_datasets_did_not_save_whole(tmp_path: Path) -> None:
    split = save_dataset(tmp_path / "all/train")
    (tmp_path / "all/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert fails(tmp_path, tmp_path / "all", "--label-column", "label") == (
        3,
        "mllmtool: FILE: holds the splits train; name the folder of one\n",
    )
    (split / "state.json").write_text('{"_data_files": [{"filename": "../../x.arrow"}]}')
    assert fails(tmp_path, split, "--label-column", "label") == (
        3,
        "mllmtool: FILE/state.json: names no data files beside it\n",
    )
