"""Turn the papers' datasets, as they are published, into what mllmtool's commands read.

    python recipes/paper/convert.py DATASET PATH...

Images stay where they are, but those that OCR-VQA's Parquet embeds, and none is opened. A line is
written as soon as it is known, so that memory does not grow with a dataset of labelled images.
Each function says what it reads, what it writes, and which public source shows that layout.
LLaVA-665K and the training files of MLLM-CL need no converter: `mix-data` and `finetune` read them.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mllmtool.data.images import suffix_of
from mllmtool.data.samples import read_jsonl
from mllmtool.errors import ConfigError, DataError, MllmtoolError, some

Row = dict[str, Any]
SUFFIXES = {".jpg", ".jpeg", ".png"}
SHORT = "Answer the question using a single word or phrase."
CAPTION = "Provide a one-sentence caption for the provided image."


def main() -> None:
    """Convert one dataset, or say in one line why not."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(f"{name} {_usage(each)}" for name, each in DATASETS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("path", type=Path, nargs="+")
    arguments = parser.parse_args()
    convert = DATASETS[arguments.dataset]
    try:
        if len(arguments.path) != len(inspect.signature(convert).parameters):
            raise ConfigError(f"{arguments.dataset}: takes {_usage(convert)}")
        convert(*arguments.path)
    except MllmtoolError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.status) from error


def imagenet(root: Path, out: Path) -> None:
    """Write `imagenet-train.csv` and `imagenet-val.csv`, images relative to `root`.

    `root` is the image-net.org layout (`train/WNID/*.JPEG`, `val/`, `ILSVRC2012_devkit_t12/`) or
    Kaggle's (`ILSVRC/Data/CLS-LOC/{train,val}`, `LOC_synset_mapping.txt`, `LOC_val_solution.csv`);
    `val/` has folders as `train/` has, or is flat. A class's name is its first synonym, as in the
    authors' converter. Layouts: torchvision's `imagenet.py`; readers of the Kaggle competition.
    """
    names, folder = _synsets(root), _imagenet_folder(root)
    _write_labels(out / "imagenet-train.csv", _in_folders(root, folder / "train", names))
    is_flat = not any(entry.is_dir() for entry in _entries(folder / "val"))
    val = _flat_val if is_flat else _in_folders
    _write_labels(out / "imagenet-val.csv", val(root, folder / "val", names))


def imagenet_v2(root: Path, imagenet_root: Path, out: Path) -> None:
    """Write `imagenetv2.csv`, images relative to `root`.

    `root` has the folders `0` to `999`, numbers in the order of ImageNet's sorted WNIDs, or the
    one folder of the archive that has them. Layout: the paper authors' `imagenetv2_to_vqa_json.py`.
    """
    names = [name for _, name in sorted(_synsets(imagenet_root).items())]
    inner = [entry.name for entry in _entries(root) if entry.is_dir()]
    folder = root / inner[0] if len(inner) == 1 and not inner[0].isdigit() else root
    by_number = {str(number): name for number, name in enumerate(names)}
    _write_labels(out / "imagenetv2.csv", _in_folders(root, folder, by_number))


def flowers102(root: Path, classes: Path, out: Path) -> None:
    """Write `flowers102-train.csv` (the official train and val, as the paper) and `-test.csv`.

    `root` has `jpg/image_00001.jpg`, `imagelabels.mat` and `setid.mat`; `classes` is a JSON list
    of names in the order of the labels, VLMClassifier's `flowers_classes.json`. Layout:
    torchvision's `flowers102.py`.
    """
    labels = _mat(root / "imagelabels.mat", "labels")
    splits = {key: _mat(root / "setid.mat", key) for key in ("trnid", "valid", "tstid")}
    names = _json(classes, list)

    def rows(numbers: Iterable[Any]) -> Iterator[tuple[str, str]]:
        for number in numbers:
            label = _at(labels, int(number), root / "imagelabels.mat")
            yield f"jpg/image_{int(number):05d}.jpg", _at(names, int(label), classes)

    train = sorted([*splits["trnid"], *splits["valid"]])
    _write_labels(out / "flowers102-train.csv", rows(train))
    _write_labels(out / "flowers102-test.csv", rows(splits["tstid"]))


def caltech101(root: Path, lists: Path, out: Path) -> None:
    """Write `caltech101-train.csv` and `-test.csv`, images relative to `root`.

    `root` has `101_ObjectCategories/CLASS/image_0001.jpg`. There is no official split: `lists` is
    VLMClassifier's `caltech.jsonl`, which the paper used, of rows `{image, label, split}` whose
    images are named from `./data/Caltech101/` on and whose labels are names such as `airplane`.
    Rows of `BACKGROUND_Google` are no class and are left out. Sources: VLMClassifier's
    `data/caltech.jsonl`; torchvision's `caltech.py`.
    """
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for line, row in read_jsonl(lists):
        image, label, split = _texts(row, ("image", "label", "split"), f"{lists}:{line}")
        _, mark, name = image.partition("101_ObjectCategories/")
        if not mark or split not in rows:
            raise DataError(f"{lists}:{line}: is no row of train or test in 101_ObjectCategories")
        if not name.startswith("BACKGROUND_Google/"):
            rows[split].append((mark + name, label))
    for split, found in rows.items():
        _write_labels(out / f"caltech101-{split}.csv", _present(found, root))


def stanford_cars(root: Path, out: Path) -> None:
    """Write `stanford-cars-train.csv` and `-test.csv`, images relative to `root`.

    `root` has `cars_train/`, `cars_test/`, `devkit/cars_meta.mat`, `devkit/cars_train_annos.mat`
    and `cars_test_annos_withlabels.mat`, there or in `devkit/`. The year comes first in a name, as
    in the lists that the paper used. Layout: torchvision's `stanford_cars.py`; names:
    VLMClassifier's `data/cars.jsonl`.
    """
    meta, tests = root / "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat"
    names = [_year_first(str(name)) for name in _mat(meta, "class_names")]
    test = root / tests if (root / tests).exists() else root / "devkit" / tests
    for split, path in (("train", root / "devkit/cars_train_annos.mat"), ("test", test)):
        annotations = _mat(path, "annotations")
        if not {"fname", "class"} <= {*(annotations.dtype.names or ())}:
            raise DataError(f"{path}: its annotations have no fname and class")
        rows = (
            (f"cars_{split}/{row['fname']}", _at(names, int(row["class"]), meta))
            for row in annotations
        )
        _write_labels(out / f"stanford-cars-{split}.csv", rows)


def imagewikiqa(questions: Path, labels: Path, out: Path) -> None:
    """Write `imagewikiqa.jsonl`, items on the images that `labels`, `imagenet-val.csv`, names.

    `questions` is VLMClassifier's `data/imagewikiqa.jsonl` in either of its versions: rows with
    `image`, `text`, `label` and `classname`, or with `question_id` in place of the last. A text is
    a question, four lettered lines and `Choose A, B, C, or D.` Files are told by their names.
    """
    images = {Path(image).name: image for image, _ in _read_labels(labels)}
    _write_rows(out / "imagewikiqa.jsonl", _wiki_items(questions, images, labels))


def ocr_vqa(source: Path, out: Path) -> None:
    """Write `ocr-vqa-train.jsonl`, a row a question.

    `source` is the hub's folder of Parquet (howard-hou/OCR-VQA: `image`, `questions`, `answers`,
    in files `train-00000-of-00016-*.parquet`), whose pictures are written to `out/ocr-vqa-images`;
    or the original `dataset.json` beside `images/`, whose rows without a picture are left out, as
    many addresses are dead. Layouts: the hub's dataset card; mmpretrain's `ocr_vqa.py`.
    """
    rows = _ocr_parquet(source, out) if source.is_dir() else _ocr_original(source)
    _write_rows(out / "ocr-vqa-train.jsonl", rows)


def mllm_cl(domains: Path, out: Path) -> None:
    """Write `rs.jsonl`, `med.jsonl`, `ad.jsonl`, `sci.jsonl` and `fin.jsonl`: the test items.

    `domains` is the hub's folder `domain` (MLLM-CL/MLLM-CL) with `RS/test.json`, an array of
    `{question_id, image, text, answer}` whose images are relative to `RS/`. Sources: MLLM-CL's
    readers and README; the card of a mirror (vantuan5644/MLLM-CL-DCL) for the folders.
    """
    for domain in ("RS", "Med", "AD", "Sci", "Fin"):
        path = domains / domain / "test.json"
        items = []
        for number, row in enumerate(_json(path, list)):
            where = f"{path} (row {number})"
            image, text, answer = _texts(row, ("image", "text", "answer"), where)
            item = {"images": [image], "question": text, "answers": [answer]}
            items.append({"id": f"{domain}-{number:06d}", **item})
        _write_rows(out / f"{domain.lower()}.jsonl", items)


def flickr30k(root: Path, out: Path) -> None:
    """Write `flickr30k-train.jsonl`, a row a caption, and `flickr30k-test.jsonl`, items.

    `root` has Karpathy's `dataset_flickr30k.json`; or `results_20130124.token`, lines of
    `1000092795.jpg#0`, a tab and a caption, with `train.txt` and `test.txt`, an image's number a
    line. Images are relative to their folder. Layouts: mmpretrain's `flickr30k_caption.py`;
    readers of the token file; flickr30k_entities for the lists.
    """
    karpathy = root / "dataset_flickr30k.json"
    splits = _karpathy(karpathy) if karpathy.exists() else _token_file(root)
    train = (
        {"image": image, "prompt": CAPTION, "response": caption}
        for image, captions in splits["train"]
        for caption in captions
    )
    _write_rows(out / "flickr30k-train.jsonl", train)
    items = (
        {"id": Path(image).stem, "images": [image], "question": CAPTION, "references": captions}
        for image, captions in splits["test"]
    )
    _write_rows(out / "flickr30k-test.jsonl", items)


def okvqa(root: Path, out: Path) -> None:
    """Write `okvqa-train.jsonl`, rows with the commonest answer, and `okvqa-val.jsonl`, items.

    `root` has `OpenEnded_mscoco_{train,val}2014_questions.json` and
    `mscoco_{train,val}2014_annotations.json`, ten answers a question; images are COCO's,
    `train2014/COCO_train2014_000000051606.jpg`. Layout: big_vision's `okvqa.py`.
    """
    train = (
        {
            "image": row["image"],
            "prompt": f"{row['question']}\n{SHORT}",
            "response": Counter(row["answers"]).most_common(1)[0][0],
        }
        for row in _okvqa_rows(root, "train2014")
    )
    _write_rows(out / "okvqa-train.jsonl", train)
    items = (
        {**{k: row[k] for k in ("id", "question", "answers")}, "images": [row["image"]]}
        for row in _okvqa_rows(root, "val2014")
    )
    _write_rows(out / "okvqa-val.jsonl", items)


DATASETS: dict[str, Callable[..., None]] = {
    "imagenet": imagenet,
    "imagenetv2": imagenet_v2,
    "flowers102": flowers102,
    "caltech101": caltech101,
    "stanford-cars": stanford_cars,
    "imagewikiqa": imagewikiqa,
    "ocr-vqa": ocr_vqa,
    "mllm-cl": mllm_cl,
    "flickr30k": flickr30k,
    "okvqa": okvqa,
}


def _usage(convert: Callable[..., None]) -> str:
    return " ".join(name.upper() for name in inspect.signature(convert).parameters)


def _imagenet_folder(root: Path) -> Path:
    kaggle = root / "ILSVRC/Data/CLS-LOC"
    return kaggle if kaggle.is_dir() else root


def _synsets(root: Path) -> dict[str, str]:
    """The first synonym of each of the classes, by WNID."""
    mapping = root / "LOC_synset_mapping.txt"
    if not mapping.exists():
        return dict(_devkit_synsets(root).values())
    found = {}
    for line, text in enumerate(_lines(mapping), start=1):
        wnid, _, names = text.partition(" ")
        if not re.fullmatch(r"n\d{8}", wnid) or not names.strip():
            raise DataError(f"{mapping}:{line}: is not a WNID and its names")
        found[wnid] = names.split(",")[0].strip()
    return found


def _devkit_synsets(root: Path) -> dict[int, tuple[str, str]]:
    """WNID and first synonym by the devkit's number; groups of classes are left out."""
    path = root / "ILSVRC2012_devkit_t12/data/meta.mat"
    if not path.exists():
        raise DataError(f"{root}: has neither LOC_synset_mapping.txt nor {path.relative_to(root)}")
    synsets = _mat(path, "synsets")
    if not {"ILSVRC2012_ID", "WNID", "words", "num_children"} <= {*(synsets.dtype.names or ())}:
        raise DataError(f"{path}: its synsets have no ILSVRC2012_ID, WNID, words, num_children")
    return {
        int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"]).split(",")[0].strip())
        for row in synsets
        if int(row["num_children"]) == 0
    }


def _in_folders(root: Path, folder: Path, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Images of folders that `names` names by class, in a fixed order; one folder in memory."""
    for inner in sorted(entry.name for entry in _entries(folder) if entry.is_dir()):
        if inner not in names:
            raise DataError(f"{folder / inner}: is the folder of no class among {len(names)}")
        files = sorted(entry.name for entry in _entries(folder / inner))
        for file in files:
            if Path(file).suffix.lower() in SUFFIXES:
                yield (folder.relative_to(root) / inner / file).as_posix(), names[inner]


def _flat_val(root: Path, folder: Path, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    wnids = _val_wnids(root)
    for file in sorted(entry.name for entry in _entries(folder)):
        if Path(file).suffix.lower() not in SUFFIXES:
            continue
        wnid = wnids.get(Path(file).stem)
        if wnid is None or wnid not in names:
            raise DataError(f"{folder / file}: no class is given for it")
        yield (folder.relative_to(root) / file).as_posix(), names[wnid]


def _val_wnids(root: Path) -> dict[str, str]:
    """The class of each image of the flat validation folder, by the file's stem."""
    solution = root / "LOC_val_solution.csv"
    if solution.exists():
        # ImageId,PredictionString: the latter is WNID x y x y, once a box
        rows = (text.split(",") for text in _lines(solution)[1:])
        return {row[0]: row[-1].split(" ")[0] for row in rows}
    truth = root / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    if not truth.exists():
        raise DataError(f"{root}: has neither {solution.name} nor {truth.relative_to(root)}")
    synsets, found = _devkit_synsets(root), {}
    for line, text in enumerate(_lines(truth), start=1):
        if not text.isdigit() or int(text) not in synsets:
            raise DataError(f"{truth}:{line}: {text!r:.40} is the number of no class")
        found[f"ILSVRC2012_val_{line:08d}"] = synsets[int(text)][0]
    return found


def _present(rows: Iterable[tuple[str, str]], root: Path) -> Iterator[tuple[str, str]]:
    for image, label in rows:
        if ".." in Path(image).parts or not (root / image).is_file():
            raise DataError(f"{root / image}: no such image")
        yield image, label


def _year_first(name: str) -> str:
    make, _, year = name.rpartition(" ")
    return f"{year} {make}" if year.isdigit() else name


def _wiki_items(questions: Path, images: Mapping[str, str], labels: Path) -> Iterator[Row]:
    for line, row in read_jsonl(questions):
        where = f"{questions}:{line}"
        image, text, label = _texts(row, ("image", "text", "label"), where)
        asked = WIKI.fullmatch(text)
        if asked is None or label not in "ABCD":
            raise DataError(f"{where}: is no question with four options and a letter")
        if Path(image).name not in images:
            raise DataError(f"{where}: {Path(image).name} is not in {labels}")
        question, *options = asked.groups()
        yield {
            "id": f"imagewikiqa-{line:05d}",
            "images": [images[Path(image).name]],
            "question": question,
            "options": options,
            "answer": label,
            "class_name": _wiki_class(row, where),
        }


WIKI = re.compile(r"((?:.|\n)+)\nA\. (.+)\nB\. (.+)\nC\. (.+)\nD\. (.+)\nChoose A, B, C, or D\.")


def _wiki_class(row: Row, where: str) -> str:
    """Of `classname`, or of a `question_id` such as `CD player_A_question791_image7`."""
    if "classname" in row:
        return _texts(row, ("classname",), where)[0]
    (identity,) = _texts(row, ("question_id",), where)
    return identity.rsplit("_", 3)[0]


def _ocr_parquet(folder: Path, out: Path) -> Iterator[Row]:
    """Pictures are named by their number: an `image_id` of someone else's file is no path."""
    import pyarrow
    import pyarrow.parquet

    number, images = 0, out / "ocr-vqa-images"
    images.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("train-*.parquet")):
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(64, columns=["image", "questions", "answers"]):
                    for row in batch.to_pylist():
                        name = _keep(row["image"]["bytes"], images, f"train-{number:06d}", path)
                        yield from _asked(name, row["questions"], row["answers"])
                        number += 1
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            pyarrow.ArrowException,
        ) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: is no Parquet of OCR-VQA: {reason}") from error


def _keep(data: bytes, folder: Path, stem: str, path: Path) -> str:
    try:
        name = f"{stem}.{suffix_of(data)}"
    except DataError as error:
        raise DataError(f"{path}: image {stem}: {error}") from error
    (folder / name).write_bytes(data)
    return f"{folder.name}/{name}"


def _ocr_original(source: Path) -> Iterator[Row]:
    files = {Path(entry.name).stem: entry.name for entry in _entries(source.parent / "images")}
    for key, row in _json(source, dict).items():
        if not isinstance(row, dict) or not {"questions", "answers", "split"} <= row.keys():
            raise DataError(f"{source}: {key!r:.40}: lacks questions, answers or split")
        if row["split"] == 1 and key in files:  # 2 is validation, 3 test
            yield from _asked(f"images/{files[key]}", row["questions"], row["answers"])


def _asked(image: str, questions: Sequence[str], answers: Sequence[str]) -> Iterator[Row]:
    if len(questions) != len(answers):
        raise DataError(f"{image}: has {len(questions)} questions and {len(answers)} answers")
    for question, answer in zip(questions, answers, strict=True):
        yield {"image": image, "prompt": str(question), "response": str(answer)}


Captioned = tuple[str, list[str]]


def _karpathy(path: Path) -> dict[str, list[Captioned]]:
    splits: dict[str, list[Captioned]] = {"train": [], "val": [], "test": []}
    for number, row in enumerate(_json(path, dict).get("images", [])):
        where = f"{path} (row {number})"
        name, split = _texts(row, ("filename", "split"), where)
        if split not in splits or not isinstance(row.get("sentences"), list):
            raise DataError(f"{where}: has no sentences, or the split {split!r:.40}")
        captions = [_texts(sentence, ("raw",), where)[0] for sentence in row["sentences"]]
        splits[split].append((name, captions))
    return splits


def _token_file(root: Path) -> dict[str, list[Captioned]]:
    path, captions = root / "results_20130124.token", dict[str, list[str]]()
    for line, text in enumerate(_lines(path), start=1):
        name, tab, caption = text.partition("\t")
        image, mark, _ = name.partition("#")
        if not (tab and mark and caption.strip()):
            raise DataError(f"{path}:{line}: is not IMAGE#NUMBER, a tab and a caption")
        captions.setdefault(image, []).append(caption.strip())
    splits = {}
    for split in ("train", "test"):
        names = [f"{text}.jpg" for text in _lines(root / f"{split}.txt")]
        without = [name for name in names if name not in captions]
        if without:
            raise DataError(f"{root / split}.txt: {some(without)}: without captions in {path}")
        splits[split] = [(name, captions[name]) for name in names]
    return splits


def _okvqa_rows(root: Path, split: str) -> Iterator[Row]:
    asked = root / f"OpenEnded_mscoco_{split}_questions.json"
    told = root / f"mscoco_{split}_annotations.json"
    annotations = {row.get("question_id"): row for row in _listed(told, "annotations")}
    for row in _listed(asked, "questions"):
        number, image = row.get("question_id"), row.get("image_id")
        if number not in annotations or type(image) is not int:
            raise DataError(f"{asked}: question {number!r:.40}: has no image, or none in {told}")
        answers = annotations[number].get("answers", [])
        yield {
            "id": str(number),
            "image": f"{split}/COCO_{split}_{image:012d}.jpg",
            "question": _texts(row, ("question",), str(asked))[0],
            "answers": [_texts(each, ("answer",), str(told))[0] for each in answers],
        }


def _listed(path: Path, key: str) -> list[Row]:
    rows = _json(path, dict).get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: {key}: is not a list of objects")
    return rows


def _texts(row: Any, keys: Sequence[str], where: str) -> list[str]:
    for key in keys:
        if not isinstance(row, dict) or not isinstance(row.get(key), str):
            raise DataError(f"{where}: {key}: is not there, or no text")
    return [row[key] for key in keys]


def _at(names: Sequence[Any], number: int, path: Path) -> Any:
    """An entry by its number from 1 on, as MATLAB counts."""
    if not 1 <= number <= len(names):
        raise DataError(f"{path}: has {len(names)} entries, and {number} is asked for")
    return names[number - 1]


def _mat(path: Path, key: str) -> Any:
    """A one-dimensional variable of a MATLAB file (version 5, which holds no code)."""
    import numpy as np
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    wrong = (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError)
    try:
        return np.atleast_1d(loadmat(path, variable_names=[key], squeeze_me=True)[key])
    except (*wrong, zlib.error) as error:
        raise DataError(f"{path}: no {key} can be read: {' '.join(str(error).split())}") from error


def _json(path: Path, kind: type) -> Any:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, kind):
        raise DataError(f"{path}: is not a JSON {'array' if kind is list else 'object'}")
    return values


def _lines(path: Path) -> list[str]:
    """Those that are not blank, stripped."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _read_labels(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield row["image"], row["class_name"]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise DataError(f"{path}: is no file that `imagenet` wrote: {error}") from error


def _write_labels(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    with _whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "class_name"))
        writer.writerows(_some_of(rows, path))


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    with _whole(path) as file:
        for row in _some_of(rows, path):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _some_of(rows: Iterable[Any], path: Path) -> Iterator[Any]:
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007 (the last one is the number)
        yield row
    if not count:
        raise DataError(f"{path}: nothing was found to write; is the dataset whole?")


@contextmanager
def _whole(path: Path) -> Iterator[Any]:
    """A file that appears once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
