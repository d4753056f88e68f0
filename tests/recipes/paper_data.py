"""Ten items of each of the papers' datasets, in the layout in which it is published.

`write_all` writes them where recipes/paper/README.md wants them: under `data/` of a folder.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

# Class i is (WNID, names); their order is ImageNet's.
SYNSETS = (
    ("n01440764", "tench, Tinca tinca"),
    ("n01443537", "goldfish, Carassius auratus"),
    ("n02012849", "crane"),
    ("n02088364", "beagle"),
    ("n04336792", "stretcher"),
)
TRAIN = [f"{wnid}/{wnid}_{number}.JPEG" for wnid, _ in SYNSETS for number in (10026, 7)]
VAL = [f"ILSVRC2012_val_{number:08d}" for number in range(1, 11)]
CLASSES = ["pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea"]
CARS = [
    "AM General Hummer SUV 2000",
    "Acura RL Sedan 2012",
    "Audi S4 Sedan 2007",
    "BMW X6 SUV 2012",
]
QUESTIONS = ["Who wrote this book?", "What is the title of this book?"]
DOMAINS = {"RS": "no", "Med": "yes", "AD": "Going ahead.", "Sci": "B", "Fin": "C"}
TOKENS = "results_20130124.token"


def write_all(root: Path) -> Path:
    """Write every dataset under `root/data`."""
    for name, write in WRITERS.items():
        write(root / "data" / name)
    return root


def picture(seed: int, kind: str = "JPEG") -> bytes:
    """A picture of noise, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def pictures(folder: Path, names: Iterable[str]) -> None:
    """Write a picture under each name."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(seed))


def write_json(path: Path, values: Any) -> None:
    """Write JSON, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write JSON lines, and their folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def imagenet(root: Path) -> None:
    """Kaggle's layout: the competition's tree, a mapping of synsets, a flat validation folder."""
    tree = root / "ILSVRC/Data/CLS-LOC"
    pictures(tree / "train", TRAIN)
    pictures(tree / "val", [f"{name}.JPEG" for name in VAL])
    mapping = "".join(f"{wnid} {names}\n" for wnid, names in SYNSETS)
    (root / "LOC_synset_mapping.txt").write_text(mapping)
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("ImageId", "PredictionString"))
        for number, name in enumerate(VAL):
            box = f"{SYNSETS[number % 5][0]} 85 1 499 272 "
            rows.writerow((name, box * (1 + number % 2)))


def imagenet_official(root: Path) -> None:
    """image-net.org's layout: the devkit's MATLAB file, in which a group of classes comes last."""
    pictures(root / "train", TRAIN)
    pictures(root / "val", [f"{name}.JPEG" for name in VAL])
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object)]
    kind += [("num_children", object)]
    order = (3, 0, 4, 1, 2)  # the devkit's numbers are not in the order of WNIDs
    synsets = np.empty((6, 1), dtype=kind)
    for number, place in enumerate(order, start=1):
        synsets[number - 1, 0] = (number, *SYNSETS[place], "a gloss", 0)
    synsets[5, 0] = (1001, "n00001740", "entity", "a gloss", 2)
    data = root / "ILSVRC2012_devkit_t12/data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": synsets})
    truth = [order.index(number % 5) + 1 for number in range(len(VAL))]
    lines = "".join(f"{number}\n" for number in truth)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)


def imagenet_v2(root: Path) -> None:
    """The one folder of the archive, in it a folder a class by number."""
    folder = root / "imagenetv2-matched-frequency-format-val"
    pictures(folder, [f"{number % 5}/{number:08x}.jpeg" for number in range(10)])


def flowers102(root: Path) -> None:
    """Ten numbered pictures; labels and splits as MATLAB rows, counted from 1."""
    pictures(root / "jpg", [f"image_{number:05d}.jpg" for number in range(1, 11)])
    labels = np.array([[4, 1, 2, 3, 4, 1, 2, 3, 4, 1]], dtype=np.uint8)
    savemat(root / "imagelabels.mat", {"labels": labels})
    splits = {"trnid": [[4, 2, 3]], "valid": [[1]], "tstid": [[10, 5, 6, 7, 8, 9]]}
    as_doubles = {key: np.array(row, dtype=np.float64) for key, row in splits.items()}
    savemat(root / "setid.mat", as_doubles)


CALTECH = [
    *(
        ("airplanes", "airplane"),
        ("Faces", "face"),
        ("bonsai", "bonsai"),
        ("sea_horse", "sea horse"),
    ),
    ("BACKGROUND_Google", "background"),
]


def caltech101(root: Path) -> None:
    """Folders of classes, and one that is none."""
    names = [f"{folder}/image_{number:04d}.jpg" for folder, _ in CALTECH for number in (1, 2)]
    pictures(root / "101_ObjectCategories", names)


def stanford_cars(root: Path) -> None:
    """Pictures named from 00001.jpg on in either split; annotations as MATLAB structs."""
    for split, number in (("train", 4), ("test", 6)):
        pictures(root / f"cars_{split}", [f"{n:05d}.jpg" for n in range(1, number + 1)])
        kind = [(key, object) for key in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")]
        rows = np.empty((1, number), dtype=[*kind, ("class", object), ("fname", object)])
        for n in range(number):
            rows[0, n] = (1, 1, 8, 8, np.uint8(n % 4 + 1), f"{n + 1:05d}.jpg")
        test = root / "cars_test_annos_withlabels.mat"
        path = test if split == "test" else root / "devkit/cars_train_annos.mat"
        path.parent.mkdir(exist_ok=True)
        savemat(path, {"annotations": rows})
    names = np.empty((1, 4), dtype=object)
    names[0, :] = CARS
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})


def wiki_rows(older: bool = False) -> list[dict[str, Any]]:
    """Rows of ImageWikiQA as they were first published, or as they are now."""
    rows = []
    for number, name in enumerate(VAL):
        wnid, names = SYNSETS[number % 5]
        options = ["a fish", "a bird", f"option {number}", "a dog"]
        lines = [f"{letter}. {text}" for letter, text in zip("ABCD", options, strict=True)]
        text = "\n".join(["Which is true of this object?", *lines, "Choose A, B, C, or D."])
        row, letter, known = {"text": text}, "ABCD"[number % 4], names.split(",")[0]
        if older:
            image = f"./data/ImageNet/imagenet/val/{wnid}/{name}.JPEG"
            identity = f"{known}_{letter}_question{number}_image{number}"
            rows.append({"image": image, **row, "category": "conv", "label": letter})
            rows[-1]["question_id"] = identity
        else:
            told = {"label": letter, "wiki": "A sentence.", "classname": known}
            rows.append({"image": f"images/{name}.JPEG", **row, **told})
    return rows


def vlm_classifier(root: Path) -> None:
    """The folder `data` of yuhui-zh15/VLMClassifier, as much of it as is read."""
    write_json(root / "flowers_classes.json", CLASSES)
    write_jsonl(root / "imagewikiqa.jsonl", wiki_rows())
    prefix = "./data/Caltech101/101_ObjectCategories"
    splits = ("train", "test")
    rows = [
        {"image": f"{prefix}/{folder}/image_{n:04d}.jpg", "label": label, "split": splits[n - 1]}
        for folder, label in CALTECH
        for n in (1, 2)
    ]
    write_jsonl(root / "caltech.jsonl", rows)


def ocr_vqa(root: Path) -> None:
    """The hub's Parquet: a picture a row, embedded, and lists of questions and answers."""
    folder = root / "data"
    folder.mkdir(parents=True)
    for part, begin in enumerate((0, 3)):
        rows = [
            {
                "image": {"bytes": picture(number), "path": None},
                "image_id": f"../{number}",
                "questions": QUESTIONS,
                "answers": [f"Writer {number}", f"Title {number}"],
                "ocr_tokens": ["Title"],
                "set_name": "train",
            }
            for number in range(begin, begin + 3 - part)
        ]
        name = f"train-{part:05d}-of-00002-53a093c819e3dce8.parquet"
        pq.write_table(pyarrow.Table.from_pylist(rows), folder / name)


def ocr_vqa_original(root: Path) -> None:
    """The original: an object a book by its number, with the number of its split."""
    pictures(root / "images", ["761183272.jpg", "1.png"])
    book = {"imageURL": "http://ecx.images-amazon.com/images/I/61Y5cOdHJbL.jpg", "title": "T"}
    asked = {**book, "questions": QUESTIONS, "answers": ["Sandra Boynton", "Mom's Family"]}
    splits = {"761183272": 1, "1": 1, "2": 1, "3": 2, "4": 3}  # of 2 the address is dead
    write_json(root / "dataset.json", {key: {**asked, "split": n} for key, n in splits.items()})


def llava(root: Path) -> None:
    """llava_v1_5_mix665k.json: mostly with a picture, some of text alone, one picture missing."""
    names = ["coco/train2017/000000033471.jpg", "gqa/images/2354786.jpg", "vg/VG_100K/2.jpg"]
    names += ["ocr_vqa/images/140031996.jpg", "textvqa/train_images/7dbf7a2.jpg"]
    pictures(root, names)
    rows: list[dict[str, Any]] = []
    for number in range(8):
        image = [*names, "ocr_vqa/images/missing.jpg"][number % 6]
        turns = [f"<image>\nWhat is this, {number}?", "A bus.", "What colour?", "White."]
        rows.append({"id": Path(image).stem, "image": image, "conversations": conversation(turns)})
    for number in range(2):
        turns = [f"Write a poem, {number}.", "No."]
        rows.append({"id": f"wgByO4Y_{number}", "model": "", "conversations": conversation(turns)})
    write_json(root / "llava_v1_5_mix665k.json", rows)


def conversation(texts: Iterable[str]) -> list[dict[str, str]]:
    """Turns as LLaVA writes them."""
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def mllm_cl(root: Path) -> None:
    """The hub's folder `domain`: five folders of train.json, test.json and images."""
    for domain, answer in DOMAINS.items():
        folder = root / "domain" / domain
        pictures(folder, [f"images/{number}.png" for number in range(2)])
        train = [
            {
                "image": f"images/{number % 2}.png",
                "conversations": conversation([f"<image>\nAsked, {number}?", answer]),
            }
            for number in range(10)
        ]
        write_json(folder / "train.json", train)
        test = [
            {"question_id": n, "image": f"images/{n}.png", "text": f"Q {n}?", "answer": answer}
            for n in range(2)
        ]
        write_json(folder / "test.json", test)


def flickr_rows() -> list[dict[str, Any]]:
    """Karpathy's rows: six of training, two of validation, two of the test."""
    rows = []
    for number in range(10):
        name = f"{1000092795 + number}.jpg"
        captions = [f"Caption {n} of {number}." for n in range(5)]
        sentences = [
            {"tokens": raw.lower().rstrip(".").split(), "raw": raw, "imgid": number, "sentid": n}
            for n, raw in enumerate(captions)
        ]
        split = ("train", "train", "train", "val", "test")[number % 5]
        rows.append({"imgid": number, "filename": name, "split": split, "sentences": sentences})
    return rows


def flickr30k(root: Path) -> None:
    """Karpathy's JSON beside the folder of pictures."""
    rows = flickr_rows()
    pictures(root / "flickr30k-images", [row["filename"] for row in rows])
    write_json(root / "dataset_flickr30k.json", {"images": rows, "dataset": "flickr30k"})


def flickr30k_tokens(root: Path) -> None:
    """The token file of the original release, and lists of the images of each split."""
    root.mkdir(parents=True)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    with (root / TOKENS).open("w") as file:
        for row in flickr_rows():
            lists[row["split"]].append(Path(row["filename"]).stem)
            for number, sentence in enumerate(row["sentences"]):
                file.write(f"{row['filename']}#{number}\t{sentence['raw']}\n")
    for split, names in lists.items():
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def okvqa(root: Path) -> None:
    """Questions and annotations of either split, ten answers a question."""
    for split, number in (("train2014", 6), ("val2014", 4)):
        ids = [{"image_id": 51606 + n, "question_id": 516065 + n} for n in range(number)]
        asked = [{**row, "question": f"What sport, {n}?"} for n, row in enumerate(ids)]
        told = [
            {
                **row,
                "question_type": "four",
                "answer_type": "other",
                "confidence": 3,
                "answers": [
                    {
                        "answer_id": n,
                        "raw_answer": "racing",
                        "answer_confidence": "yes",
                        "answer": "race" if n < 6 else "motocross",
                    }
                    for n in range(10)
                ],
            }
            for row in ids
        ]
        write_json(root / f"OpenEnded_mscoco_{split}_questions.json", {"questions": asked})
        write_json(root / f"mscoco_{split}_annotations.json", {"annotations": told})


def coco(root: Path) -> None:
    """COCO's pictures of 2014, those of OKVQA's questions."""
    for split, number in (("train2014", 6), ("val2014", 4)):
        names = [f"COCO_{split}_{51606 + n:012d}.jpg" for n in range(number)]
        pictures(root / split, names)


WRITERS: dict[str, Callable[[Path], None]] = {
    "imagenet": imagenet,
    "imagenetv2": imagenet_v2,
    "flowers102": flowers102,
    "caltech101": caltech101,
    "stanford-cars": stanford_cars,
    "vlmclassifier": vlm_classifier,
    "ocr-vqa": ocr_vqa,
    "llava": llava,
    "MLLM-CL": mllm_cl,
    "flickr30k": flickr30k,
    "okvqa": okvqa,
    "coco": coco,
}
