"""The texts of samples, to be compared and counted."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from mllmtool.data.formats import IMAGE_MARK


def spoken(sample: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Role and text of each turn, a bare mark where an image is."""
    for message in sample["messages"]:
        yield message["role"], as_text(message["content"]).replace(f"{IMAGE_MARK}\n", IMAGE_MARK)


def as_text(content: str | list[dict[str, str]]) -> str:
    """A turn's content with marks in the place of parts."""
    if isinstance(content, str):
        return content
    return "".join(
        f"{IMAGE_MARK}\n" if part["type"] == "image" else part.get("text", "") for part in content
    )


def canonical(sample: dict[str, Any]) -> str:
    """All that is said; equal for equal samples, however they were written down."""
    return "\x1e".join(f"{role}\x1f{text}" for role, text in spoken(sample))


def plain(text: str) -> str:
    """A text without marks of images, letter case and white space that differ by habit."""
    return " ".join(text.replace(IMAGE_MARK, " ").casefold().split())


def short_hash(text: str) -> int:
    """64 bits: among a million texts, two get one hash in one case of 37 million."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
