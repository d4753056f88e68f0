"""What lmms-eval calls on the items beside this file; the same text for every task.

mllmtool wrote it. Whatever differs between tasks is data in `items.jsonl`.
"""

from pathlib import Path
from typing import Any

from PIL import Image


def doc_to_visual(doc: dict[str, Any]) -> list[Image.Image]:
    """The item's pictures."""
    return [_open(Path(path)) for path in doc["paths"] or []]


def doc_to_text(doc: dict[str, Any], *_: Any) -> str:
    """The prompt as mllmtool itself renders it, without marks for pictures."""
    return str(doc["prompt"])


def doc_to_target(doc: dict[str, Any]) -> str:
    """The right answer; the first of several."""
    return str(doc["accepted"][0])


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """A rough score; `mllmtool eval-matrix import` reads the responses by its own rules."""
    said = _normal(results[0])
    return {"match": float(said in [_normal(text) for text in doc["accepted"]])}


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _normal(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").strip("() ")
