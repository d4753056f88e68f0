"""The papers' datasets, ten items each as they are published, as mllmtool's commands read them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paper_data
import pyarrow
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat
from scripts import script

from mllmtool.data.samples import read_samples

converter = script("paper/convert")
NAMES = [names.split(",")[0] for _, names in paper_data.SYNSETS]


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The script with these arguments; its exit status."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["convert.py", *map(str, arguments)])
        try:
            converter.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def labels(path: Path, root: Path) -> list[tuple[str, str]]:
    """Rows of a file of labels, whose images are there."""
    with path.open(newline="") as file:
        rows = [(row["image"], row["class_name"]) for row in csv.DictReader(file)]
    assert all((root / image).is_file() for image, _ in rows)
    return rows


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


VAL_NAMES = [NAMES[number % 5] for number in range(10)]


def test_imagenet_of_kaggle(tmp_path: Path, convert: Callable[..., int]) -> None:
    root, out = tmp_path / "imagenet", tmp_path / "out"
    paper_data.imagenet(root)
    assert convert("imagenet", root, out) == 0
    train = labels(out / "imagenet-train.csv", root)
    tree = "ILSVRC/Data/CLS-LOC"
    assert train[:2] == [
        (f"{tree}/train/n01440764/n01440764_10026.JPEG", "tench"),
        (f"{tree}/train/n01440764/n01440764_7.JPEG", "tench"),
    ]
    assert [name for _, name in train] == [name for name in NAMES for _ in range(2)]
    val = labels(out / "imagenet-val.csv", root)
    assert val[0][0] == f"{tree}/val/ILSVRC2012_val_00000001.JPEG"
    assert [name for _, name in val] == VAL_NAMES


def test_imagenet_of_the_devkit_is_that_of_kaggle(
    tmp_path: Path, convert: Callable[..., int]
) -> None:
    root, out = tmp_path / "imagenet", tmp_path / "out"
    paper_data.imagenet_official(root)
    assert convert("imagenet", root, out) == 0
    assert [name for _, name in labels(out / "imagenet-val.csv", root)] == VAL_NAMES
    assert len(labels(out / "imagenet-train.csv", root)) == 10


def test_imagenet_val_in_folders(tmp_path: Path, convert: Callable[..., int]) -> None:
    root, out = tmp_path / "imagenet", tmp_path / "out"
    paper_data.imagenet_official(root)
    for number, name in enumerate(paper_data.VAL):
        folder = root / "val" / paper_data.SYNSETS[number % 5][0]
        folder.mkdir(exist_ok=True)
        (root / f"val/{name}.JPEG").rename(folder / f"{name}.JPEG")
    assert convert("imagenet", root, out) == 0
    by_image = {Path(image).stem: n for image, n in labels(out / "imagenet-val.csv", root)}
    assert [by_image[name] for name in paper_data.VAL] == VAL_NAMES


def test_imagenet_v2_counts_classes_in_the_order_of_their_wnids(
    tmp_path: Path, convert: Callable[..., int]
) -> None:
    root, out = tmp_path / "v2", tmp_path / "out"
    paper_data.imagenet_official(tmp_path / "imagenet")
    paper_data.imagenet_v2(root)
    assert convert("imagenetv2", root, tmp_path / "imagenet", out) == 0
    found = labels(out / "imagenetv2.csv", root)
    assert [name for _, name in found] == [name for name in NAMES for _ in range(2)]


def test_flowers102(tmp_path: Path, convert: Callable[..., int]) -> None:
    root, out = tmp_path / "flowers", tmp_path / "out"
    paper_data.flowers102(root)
    paper_data.vlm_classifier(tmp_path / "lists")
    assert convert("flowers102", root, tmp_path / "lists/flowers_classes.json", out) == 0
    assert labels(out / "flowers102-train.csv", root) == [
        ("jpg/image_00001.jpg", "sweet pea"),
        ("jpg/image_00002.jpg", "pink primrose"),
        ("jpg/image_00003.jpg", "hard-leaved pocket orchid"),
        ("jpg/image_00004.jpg", "canterbury bells"),
    ]
    assert len(labels(out / "flowers102-test.csv", root)) == 6


def test_caltech101_leaves_the_background_out(tmp_path: Path, convert: Callable[..., int]) -> None:
    root, out = tmp_path / "caltech", tmp_path / "out"
    paper_data.caltech101(root)
    paper_data.vlm_classifier(tmp_path / "lists")
    assert convert("caltech101", root, tmp_path / "lists/caltech.jsonl", out) == 0
    for number, split in enumerate(("train", "test"), start=1):
        assert labels(out / f"caltech101-{split}.csv", root) == [
            (f"101_ObjectCategories/{folder}/image_{number:04d}.jpg", name)
            for folder, name in paper_data.CALTECH[:4]
        ]


def test_stanford_cars_put_the_year_first(tmp_path: Path, convert: Callable[..., int]) -> None:
    root, out = tmp_path / "cars", tmp_path / "out"
    paper_data.stanford_cars(root)
    assert convert("stanford-cars", root, out) == 0
    assert labels(out / "stanford-cars-train.csv", root) == [
        ("cars_train/00001.jpg", "2000 AM General Hummer SUV"),
        ("cars_train/00002.jpg", "2012 Acura RL Sedan"),
        ("cars_train/00003.jpg", "2007 Audi S4 Sedan"),
        ("cars_train/00004.jpg", "2012 BMW X6 SUV"),
    ]
    assert len(labels(out / "stanford-cars-test.csv", root)) == 6


@pytest.mark.parametrize("older", [False, True])
def test_imagewikiqa_in_either_version(
    tmp_path: Path, convert: Callable[..., int], older: bool
) -> None:
    root, out = tmp_path / "imagenet", tmp_path / "out"
    paper_data.imagenet(root)
    paper_data.write_jsonl(tmp_path / "wiki.jsonl", paper_data.wiki_rows(older))
    assert convert("imagenet", root, out) == 0
    assert convert("imagewikiqa", tmp_path / "wiki.jsonl", out / "imagenet-val.csv", out) == 0
    items = rows(out / "imagewikiqa.jsonl")
    assert items[1] == {
        "id": "imagewikiqa-00002",
        "images": ["ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG"],
        "question": "Which is true of this object?",
        "options": ["a fish", "a bird", "option 1", "a dog"],
        "answer": "B",
        "class_name": "goldfish",
    }
    assert [item["class_name"] for item in items] == VAL_NAMES


def test_ocr_vqa_of_the_hub_names_pictures_by_number(
    tmp_path: Path, convert: Callable[..., int]
) -> None:
    out = tmp_path / "out"
    paper_data.ocr_vqa(tmp_path / "ocr")
    assert convert("ocr-vqa", tmp_path / "ocr/data", out) == 0
    samples = list(read_samples(out / "ocr-vqa-train.jsonl"))
    assert len(samples) == 10
    assert samples[-1].images == ("ocr-vqa-images/train-000004.jpg",)
    user, told = samples[-1].messages
    assert (user.content, told.content) == (f"<image>\n{paper_data.QUESTIONS[1]}", "Title 4")
    kept = sorted(path.name for path in (out / "ocr-vqa-images").iterdir())
    assert kept == [f"train-{number:06d}.jpg" for number in range(5)]
    assert (out / "ocr-vqa-images" / kept[3]).read_bytes() == paper_data.picture(3)


def test_ocr_vqa_as_it_was_first_published(tmp_path: Path, convert: Callable[..., int]) -> None:
    root = tmp_path / "ocr"
    paper_data.ocr_vqa_original(root)
    assert convert("ocr-vqa", root / "dataset.json", root) == 0
    found = list(read_samples(root / "ocr-vqa-train.jsonl"))
    images = ["images/761183272.jpg"] * 2 + ["images/1.png"] * 2
    assert [sample.images[0] for sample in found] == images


def test_mllm_cl(tmp_path: Path, convert: Callable[..., int]) -> None:
    paper_data.mllm_cl(tmp_path / "cl")
    assert convert("mllm-cl", tmp_path / "cl/domain", tmp_path / "out") == 0
    for domain, answer in paper_data.DOMAINS.items():
        first, second = rows(tmp_path / f"out/{domain.lower()}.jsonl")
        assert first["id"] == f"{domain}-000000"
        assert second["images"] == ["images/1.png"]
        assert (second["question"], second["answers"]) == ("Q 1?", [answer])


def test_flickr30k_of_karpathy_and_of_the_token_file_are_the_same(
    tmp_path: Path, convert: Callable[..., int]
) -> None:
    paper_data.flickr30k(tmp_path / "karpathy")
    paper_data.flickr30k_tokens(tmp_path / "tokens")
    for name in ("karpathy", "tokens"):
        assert convert("flickr30k", tmp_path / name, tmp_path / f"out-{name}") == 0
    for split in ("train", "test"):
        made = [tmp_path / f"out-{n}/flickr30k-{split}.jsonl" for n in ("karpathy", "tokens")]
        assert made[0].read_bytes() == made[1].read_bytes()
    train, test = rows(tmp_path / "out-tokens/flickr30k-train.jsonl"), rows(made[0])
    assert (len(train), len(test)) == (30, 2)
    assert train[1]["response"] == "Caption 1 of 0."
    assert test[0]["images"] == ["1000092799.jpg"]
    assert test[0]["references"] == [f"Caption {n} of 4." for n in range(5)]


def test_okvqa_trains_on_the_commonest_answer_and_keeps_all_ten(
    tmp_path: Path, convert: Callable[..., int]
) -> None:
    paper_data.okvqa(tmp_path / "okvqa")
    assert convert("okvqa", tmp_path / "okvqa", tmp_path / "out") == 0
    train, val = (rows(tmp_path / f"out/okvqa-{split}.jsonl") for split in ("train", "val"))
    assert (len(train), len(val)) == (6, 4)
    assert train[0] == {
        "image": "train2014/COCO_train2014_000000051606.jpg",
        "prompt": "What sport, 0?\nAnswer the question using a single word or phrase.",
        "response": "race",
    }
    assert val[3]["images"] == ["val2014/COCO_val2014_000000051609.jpg"]
    assert val[3]["answers"] == ["race"] * 6 + ["motocross"] * 4


def break_wnid(root: Path) -> None:
    (root / "imagenet/ILSVRC/Data/CLS-LOC/train/n99999999").mkdir()


def break_mapping(root: Path) -> None:
    (root / "imagenet/LOC_synset_mapping.txt").write_text("tench\n")


def lose_mapping(root: Path) -> None:
    (root / "imagenet/LOC_synset_mapping.txt").unlink()


def lose_solution(root: Path) -> None:
    (root / "imagenet/LOC_val_solution.csv").write_text("ImageId,PredictionString\n")


def break_labels(root: Path) -> None:
    (root / "flowers102/imagelabels.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 200)


def lead_out(root: Path) -> None:
    row = {"image": "x/101_ObjectCategories/../../secret.jpg", "label": "x", "split": "train"}
    paper_data.write_jsonl(root / "vlmclassifier/caltech.jsonl", [row])


def break_cars(root: Path) -> None:
    savemat(root / "stanford-cars/devkit/cars_train_annos.mat", {"annotations": np.arange(3)})


def break_wiki(root: Path) -> None:
    rows = paper_data.wiki_rows()
    rows[4]["text"] = "No options."
    paper_data.write_jsonl(root / "vlmclassifier/imagewikiqa.jsonl", rows)


def break_parquet(root: Path) -> None:
    for path in (root / "ocr-vqa/data").iterdir():
        pq.write_table(pyarrow.Table.from_pylist([{"image": 1}]), path)


def break_picture(root: Path) -> None:
    row = {"image": {"bytes": b"GNU"}, "questions": ["a"], "answers": ["b"]}
    for path in (root / "ocr-vqa/data").iterdir():
        pq.write_table(pyarrow.Table.from_pylist([row]), path)


def break_domain(root: Path) -> None:
    (root / "MLLM-CL/domain/AD/test.json").write_text('{"a": 1}')


def break_captions(root: Path) -> None:
    paper_data.write_json(root / "flickr30k/dataset_flickr30k.json", {"images": [{"split": "a"}]})


def lose_annotation(root: Path) -> None:
    path = root / "okvqa/mscoco_train2014_annotations.json"
    paper_data.write_json(path, {"annotations": []})


WRONG = [
    (break_wnid, "imagenet imagenet", "train/n99999999: is the folder of no class among 5"),
    (break_mapping, "imagenet imagenet", "mapping.txt:1: is not a WNID and its names"),
    (lose_mapping, "imagenet imagenet", "has neither LOC_synset_mapping.txt nor ILSVRC2012_devkit"),
    (lose_solution, "imagenet imagenet", "val_00000001.JPEG: no class is given for it"),
    (
        break_labels,
        "flowers102 flowers102 vlmclassifier/flowers_classes.json",
        "imagelabels.mat: no labels can be read: ",
    ),
    (
        lead_out,
        "caltech101 caltech101 vlmclassifier/caltech.jsonl",
        "101_ObjectCategories/../../secret.jpg: no such image",
    ),
    (break_cars, "stanford-cars stanford-cars", "annos.mat: its annotations have no fname and"),
    (
        break_wiki,
        "imagewikiqa vlmclassifier/imagewikiqa.jsonl val.csv",
        "imagewikiqa.jsonl:5: is no question with four options and a letter",
    ),
    (break_parquet, "ocr-vqa ocr-vqa/data", "e3dce8.parquet: is no Parquet of OCR-VQA: "),
    (break_picture, "ocr-vqa ocr-vqa/data", "image train-000000: holds no PNG, JPEG, GIF"),
    (break_domain, "mllm-cl MLLM-CL/domain", "AD/test.json: is not a JSON array"),
    (break_captions, "flickr30k flickr30k", "k.json (row 0): filename: is not there, or no text"),
    (lose_annotation, "okvqa okvqa", "question 516065: has no image, or none in "),
]


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"), WRONG, ids=[spoil.__name__ for spoil, *_ in WRONG]
)
def test_what_is_odd_is_one_line_and_leaves_no_part_of_a_file(
    tmp_path: Path,
    convert: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    arguments: str,
    said: str,
) -> None:
    name, *paths = arguments.split()
    for each, write in paper_data.WRITERS.items():
        if any(path.startswith(each) for path in paths) or each == "vlmclassifier":
            write(tmp_path / each)
    listed = [f"x/{stem}.JPEG,x\n" for stem in paper_data.VAL]
    (tmp_path / "val.csv").write_text("image,class_name\n" + "".join(listed))
    spoil(tmp_path)
    assert convert(name, *(tmp_path / path for path in paths), tmp_path / "out") == 3
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not list((tmp_path / "out").glob(".*"))


def test_a_wrong_number_of_paths_says_which_are_wanted(
    convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("okvqa", "a") == 2
    assert capsys.readouterr().err == "okvqa: takes ROOT OUT\n"


def test_a_dataset_that_is_not_there_is_one_line(
    tmp_path: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("ocr-vqa", tmp_path, tmp_path / "out") == 3
    told = capsys.readouterr().err
    made = tmp_path / "out/ocr-vqa-train.jsonl"
    assert told == f"{made}: nothing was found to write; is the dataset whole?\n"
