"""Evaluation samples that are to stay out of a mix: by text with its images, by image, by id.

Image files are compared by their bytes: of a row's images those are read that have the size of an
evaluation image. A text is what a user's turn says, up to letter case and white space; of an item
it is the question, alone and with its options in lettered lines.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmtool.configs.mix_data import REASONS, Reason
from mllmtool.data.formats import detect, to_sample
from mllmtool.data.images import ImageFolder
from mllmtool.data.items import LETTERS, Item
from mllmtool.data.samples import check_sample, images_root, parse_line, read_rows
from mllmtool.data.suites import read_suite
from mllmtool.data.texts import plain, spoken
from mllmtool.errors import DataError

Pictures = tuple[bytes, ...]
ANSWERED = {"options", "answers", "references"}  # of which an item has one


@dataclass(frozen=True)
class Exclusion:
    """What the evaluation samples say and show. `by` is what is looked at."""

    by: frozenset[Reason]
    ids: frozenset[str]
    prompts: dict[str, frozenset[Pictures]]
    pictures: dict[int, frozenset[bytes]]  # by size

    def reason(
        self, sample: dict[str, Any], own_id: str | None, folder: ImageFolder
    ) -> Reason | None:
        """Why a sample is to stay out; the first in `REASONS`."""
        found = {
            "text": lambda: self._is_asked(sample, folder),
            "image": lambda: self._is_shown(sample, folder),
            "id": lambda: own_id in self.ids,
        }
        return next((reason for reason in REASONS if reason in self.by and found[reason]()), None)

    def _is_asked(self, sample: dict[str, Any], folder: ImageFolder) -> bool:
        shown = [self.prompts[text] for text in _prompts(sample) if text in self.prompts]
        return bool(shown) and any(_hashes(sample, folder) in known for known in shown)

    def _is_shown(self, sample: dict[str, Any], folder: ImageFolder) -> bool:
        for name in sample.get("images", ()):
            known = self.pictures.get(folder.num_bytes(name))
            if known and folder.sha256(name) in known:
                return True
        return False


def read_exclusion(paths: Iterable[str], by: Iterable[Reason]) -> Exclusion:
    """Read suites (`.yaml`), and files of items or of samples.

    Raises:
        DataError: one cannot be read, or lacks an image.
    """
    ids, prompts, pictures = set(), dict[str, set[Pictures]](), dict[int, set[bytes]]()
    for path in paths:
        for where, folder, sample in samples_of(Path(path)):
            try:
                sizes = [folder.num_bytes(name) for name in sample.get("images", ())]
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            shown = _hashes(sample, folder)
            ids.add(sample["id"])
            for text in _prompts(sample):
                prompts.setdefault(text, set()).add(shown)
            for size, picture in zip(sizes, shown, strict=True):
                pictures.setdefault(size, set()).add(picture)
    return Exclusion(
        frozenset(by),
        frozenset(ids),
        {text: frozenset(shown) for text, shown in prompts.items()},
        {size: frozenset(found) for size, found in pictures.items()},
    )


def samples_of(path: Path) -> Iterator[tuple[str, ImageFolder, dict[str, Any]]]:
    """Place, image folder and sample of each item of a suite, or row of items or samples.

    Raises:
        DataError: one cannot be read.
    """
    if path.suffix in (".yaml", ".yml"):
        for task in read_suite(path).tasks:
            folder = ImageFolder(task.root)
            for item in task.items:
                yield f"{task.items_path}: {item.id}", folder, _as_sample(item)
        return
    folder, form = ImageFolder(images_root(path)), None
    for where, values in read_rows(path):
        if "question" in values and not values.keys().isdisjoint(ANSWERED):
            yield where, folder, _as_sample(parse_line(Item, values, where))
            continue
        form = form or detect(values, where)
        try:
            sample = to_sample(values, form, "")
            check_sample(sample)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        yield where, folder, sample


def _as_sample(item: Item) -> dict[str, Any]:
    """Two turns: the question alone, and with its options."""
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, item.options, strict=False)]
    texts = [item.question, "\n".join([item.question, *options])]
    messages = [{"role": "user", "content": text} for text in texts]
    return {"id": item.id, "images": list(item.images), "messages": messages}


def _prompts(sample: dict[str, Any]) -> list[str]:
    return [plain(text) for role, text in spoken(sample) if role == "user"]


def _hashes(sample: dict[str, Any], folder: ImageFolder) -> Pictures:
    return tuple(folder.sha256(name) for name in sample.get("images", ()))
