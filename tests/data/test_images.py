"""Image files: what is no picture, and what is too large a one."""

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from mllmtool.data.images import ImageFolder
from mllmtool.errors import DataError


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def black_png(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, made without Pillow and without its pixels in memory."""
    squeeze = zlib.compressobj()
    rows = [squeeze.compress(bytes(1 + -(-width // 8))) for _ in range(height)]
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = b"".join([*rows, squeeze.flush()])
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_a_picture_of_more_than_89_megapixels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(black_png(100, 100))
    (tmp_path / "bomb.png").write_bytes(black_png(10_000, 10_000))
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    folder = ImageFolder(tmp_path)
    folder.decode("small.png")
    with pytest.raises(DataError) as raised:
        folder.decode("bomb.png")
    begin = f"{tmp_path}/bomb.png: is not a readable image: Image size (100000000 pixels) exceeds"
    assert str(raised.value).startswith(begin)


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp", "bmp", "tiff"])
def test_every_kind_of_picture_is_known_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "x", kind)
    ImageFolder(tmp_path).check_begin("x")


@pytest.mark.parametrize("data", [b"", b"\x89", b"<html>", b"GIF"])
def test_what_begins_otherwise_is_no_picture(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(DataError) as raised:
        ImageFolder(tmp_path).check_begin("x.png", "a.csv:3")
    message = f"a.csv:3: {tmp_path}/x.png: holds no PNG, JPEG, GIF, WebP, BMP or TIFF"
    assert str(raised.value) == message
