"""Make `recipes/demo/data/*.parquet` from packages of PyPI, npm and Debian, byte for byte.

    pip install pyarrow==26.0.1 pillow==12.3.0 numpy==2.4.6 scikit-learn==1.9.1 \
        matplotlib==3.11.2 resvg-py==0.5.0
    pip install --no-deps easy-vqa==1.0
    python recipes/demo/build_data.py PACKAGES recipes/demo/data

PACKAGES is a folder that holds the archives named in `ARCHIVES`; those that are missing are
fetched into it by `npm pack` and `apt-get download`. Archives are checked against their
SHA-256, and nothing in the output depends on the clock, on the machine or on an order that is
not written here. The bytes are those of the versions above: Pillow and pyarrow carry their own
compressors, so another version of them may give other bytes for the same pictures.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import struct
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import easy_vqa
import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import resvg_py
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

Row = dict[str, Any]

FASHION = "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb"
STYLES = {
    "noto": "iconify-json-noto-1.2.9.tgz",
    "fluent": "iconify-json-fluent-emoji-flat-1.2.6.tgz",
    "twemoji": "iconify-json-twemoji-1.2.5.tgz",
}
LABELS = "unicode-emoji-json-0.9.0.tgz"
ARCHIVES = {
    FASHION: (
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        ["apt-get", "download", "dataset-fashion-mnist"],
    ),
    STYLES["noto"]: (
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        ["npm", "pack", "--silent", "@iconify-json/noto@1.2.9"],
    ),
    STYLES["fluent"]: (
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ["npm", "pack", "--silent", "@iconify-json/fluent-emoji-flat@1.2.6"],
    ),
    STYLES["twemoji"]: (
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        ["npm", "pack", "--silent", "@iconify-json/twemoji@1.2.5"],
    ),
    LABELS: (
        "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401",
        ["npm", "pack", "--silent", "unicode-emoji-json@0.9.0"],
    ),
}

# Fashion-MNIST's ten labels, in its order, each as one plain word.
GARMENTS = (
    *("tee", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLIT_COUNTS = {"train": 250, "test": 50}  # pictures a garment class

FONT_SPLITS = {
    "train": (
        *("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique"),
        *("Serif", "Serif-Bold", "SansMono", "SansMono-Bold"),
    ),
    "test": ("Serif-Italic", "Serif-BoldItalic", "SansMono-Oblique", "SansMono-BoldOblique"),
}
FONT_DRAWINGS = {"train": 15, "test": 10}  # drawings of each digit in each font

# Unicode's group, the word for it that the demo uses, and how many concepts are taken.
EMOJI_GROUPS = {
    "Animals & Nature": ("nature", 62),
    "Food & Drink": ("food", 46),
    "Travel & Places": ("travel", 34),
    "Activities": ("activity", 14),
    "Objects": ("object", 44),
}
EMOJI_PIXELS = 32
# Clothes and bags would be garment names under another word; the rest look like another concept.
EMOJI_LEFT_OUT = {"jeans", "scarf", "gloves", "coat", "socks", "dress", "kimono", "sari", "briefs"}
EMOJI_LEFT_OUT |= {"shorts", "bikini", "purse", "handbag", "backpack", "necktie", "luggage"}
EMOJI_LEFT_OUT |= {"houses", "ewe", "om", "beans", "metro", "monorail", "locked", "books"}

SHAPE_COUNTS = {"train": 2000, "test": 400}  # pictures, the first of each split


def main() -> None:
    """Fetch what is missing and write the four files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    fetch(arguments.packages)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out / "garments.parquet", garments(arguments.packages / FASHION))
    write(arguments.out / "digits.parquet", [*scanned_digits(), *drawn_digits()])
    write(arguments.out / "emoji.parquet", emoji(arguments.packages))
    write(arguments.out / "shapes.parquet", shapes())


def fetch(packages: Path) -> None:
    """Bring the archives that are missing, and refuse one with other bytes than expected."""
    packages.mkdir(parents=True, exist_ok=True)
    for name, (sha256, command) in ARCHIVES.items():
        path = packages / name
        if not path.exists():
            subprocess.run(command, cwd=packages, check=True, stdout=subprocess.DEVNULL)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256:
            raise SystemExit(f"{path}: SHA-256 {found}, expected {sha256}")


def garments(package: Path) -> Iterator[Row]:
    """Fashion-MNIST, the same number of every class, drawn without replacement."""
    for split, prefix in (("train", "train"), ("test", "t10k")):
        pixels = idx(debian_member(package, f"{prefix}-images-idx3-ubyte.gz"))
        labels = idx(debian_member(package, f"{prefix}-labels-idx1-ubyte.gz"))
        rng = np.random.default_rng(0)
        for label, name in enumerate(GARMENTS):
            chosen = rng.permutation(np.flatnonzero(labels == label))[: SPLIT_COUNTS[split]]
            for index in sorted(int(i) for i in chosen):
                yield {
                    "id": f"garment-{split}-{index:05d}",
                    "image": png(Image.fromarray(pixels[index])),
                    "class_name": name,
                    "split": split,
                    "source": "fashion-mnist",
                }


def scanned_digits() -> Iterator[Row]:
    """The handwritten digits that come with scikit-learn; every fifth picture is for testing."""
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        grey = np.round(image * (255 / 16)).astype(np.uint8)  # 17 levels to 256
        yield {
            "id": f"digit-{index:04d}",
            "image": png(Image.fromarray(grey)),
            "class_name": DIGITS[label],
            "split": "test" if index % 5 == 0 else "train",
            "source": "sklearn-digits",
            "style": "handwritten",
        }


def drawn_digits() -> Iterator[Row]:
    """Digits drawn in DejaVu fonts, turned and moved; the test fonts are not in training."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    rng = np.random.default_rng(1)
    for split, fonts in FONT_SPLITS.items():
        for font in fonts:
            path = folder / f"DejaVu{font}.ttf"
            for label, name in enumerate(DIGITS):
                for number in range(FONT_DRAWINGS[split]):
                    yield {
                        "id": f"font-{font.lower()}-{label}-{number:02d}",
                        "image": png(draw_digit(path, str(label), rng)),
                        "class_name": name,
                        "split": split,
                        "source": "dejavu-fonts",
                        "style": font.lower(),
                    }


def draw_digit(font: Path, text: str, rng: np.random.Generator) -> Image.Image:
    """A white digit on black, at a random size, angle and place."""
    canvas = Image.new("L", (56, 56), 0)
    face = ImageFont.truetype(str(font), int(rng.integers(34, 49)))
    ImageDraw.Draw(canvas).text((28, 28), text, fill=255, font=face, anchor="mm")
    angle, right, down = rng.uniform(-15, 15), rng.integers(-4, 5), rng.integers(-4, 5)
    turned = canvas.rotate(
        float(angle), resample=Image.Resampling.BICUBIC, translate=(int(right), int(down))
    )
    return turned.resize((28, 28), Image.Resampling.BOX)


def emoji(packages: Path) -> Iterator[Row]:
    """Concepts of one plain word that all styles draw, in Unicode's order."""
    icons = {style: json_members(packages / name) for style, name in STYLES.items()}
    with tarfile.open(packages / LABELS) as archive:
        labels = read_json(archive, "package/data-by-emoji.json")
    left = {group: count for group, (_, count) in EMOJI_GROUPS.items()}
    for character, label in labels.items():
        name, group = label["name"], label["group"]
        points = code_points(character)
        plain = re.fullmatch("[a-z]{2,9}", name) and name not in EMOJI_LEFT_OUT
        if not plain or not left.get(group) or any(points not in i for i in icons.values()):
            continue
        left[group] -= 1
        for style, drawings in icons.items():
            yield {
                "id": f"emoji-{style}-{name}",
                "image": png(render(drawings[points])),
                "class_name": name,
                "split": "any",
                "source": "emoji",
                "style": style,
                "group": EMOJI_GROUPS[group][0],
            }


def json_members(package: Path) -> dict[str, str]:
    """SVG text of each emoji by its code points, variation selectors left out."""
    with tarfile.open(package) as archive:
        icons = read_json(archive, "package/icons.json")
        names = read_json(archive, "package/chars.json")
    found: dict[str, str] = {}
    for points, name in names.items():
        body = icons["icons"].get(icons.get("aliases", {}).get(name, {}).get("parent", name))
        if body is not None:
            found.setdefault(points.replace("-fe0f", ""), svg(icons, body))
    return found


def svg(icons: Row, icon: Row) -> str:
    """An SVG document of one icon of an Iconify set."""
    width = icon.get("width", icons.get("width", icons["height"]))
    height = icon.get("height", icons["height"])
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} width="{width}" height="{height}" viewBox="{box}">{icon["body"]}</svg>'


def render(text: str) -> Image.Image:
    """The drawing on white."""
    size = (EMOJI_PIXELS, EMOJI_PIXELS)
    drawn = bytes(resvg_py.svg_to_bytes(svg_string=text, width=size[0], height=size[1]))
    picture = Image.open(io.BytesIO(drawn)).convert("RGBA")
    white = Image.new("RGBA", size, "white")
    white.alpha_composite(picture.crop((0, 0, *size)))
    return white.convert("RGB")


def shapes() -> Iterator[Row]:
    """easy-VQA's pictures, byte for byte its own, with all their questions."""
    folder = Path(easy_vqa.__file__).parent / "data"
    for split, count in SHAPE_COUNTS.items():
        asked: dict[int, list[tuple[str, str]]] = {index: [] for index in range(count)}
        for question, answer, index in json.loads((folder / split / "questions.json").read_bytes()):
            if index < count:
                asked[index].append((question, answer))
        for index, pairs in asked.items():
            yield {
                "id": f"shape-{split}-{index:04d}",
                "image": (folder / split / "images" / f"{index}.png").read_bytes(),
                "split": split,
                "source": "easy-vqa",
                "questions": [question for question, _ in pairs],
                "answers": [answer for _, answer in pairs],
            }


def code_points(character: str) -> str:
    """The emoji's code points in hexadecimal, the variation selector left out."""
    return "-".join(f"{ord(point):x}" for point in character if ord(point) != 0xFE0F)


def read_json(archive: tarfile.TarFile, member: str) -> Any:
    """A JSON member of a tar archive."""
    return json.loads(read(archive, member))


def read(archive: tarfile.TarFile, member: str) -> bytes:
    """A member's bytes."""
    file = archive.extractfile(member)
    if file is None:
        raise SystemExit(f"{member} is no file of the package")
    return file.read()


def debian_member(package: Path, name: str) -> bytes:
    """A gzip file of the package's `usr/share/datasets`, unpacked."""
    tar = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)], check=True, stdout=subprocess.PIPE
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return gzip.decompress(read(archive, f"./usr/share/datasets/fashion-mnist/{name}"))


def idx(data: bytes) -> np.ndarray:
    """The IDX format of MNIST: two zeros, type 8, rank, sizes in big endian, bytes."""
    rank = data[3]
    sizes = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write one Parquet file with fixed options, and say its size."""
    listed: Sequence[Row] = list(rows)
    table = pa.Table.from_pylist(listed)
    pq.write_table(
        table, path, compression="zstd", compression_level=19, use_dictionary=True, version="2.6"
    )
    print(f"{path}: {len(listed)} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
