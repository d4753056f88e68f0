"""Pictures from disk, upright and RGB."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from mllmtool.errors import DataError

ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # from 89 million pixels on; the error from twice as many
)


def open_image(path: Path) -> Image.Image:
    """Decode a picture.

    Raises:
        DataError: it is not one.
    """
    with _opened(path) as image:
        turn = UPRIGHT.get(_orientation(image))
        # by RGBA, as a palette's transparency makes Pillow warn otherwise
        step = image.convert("RGBA") if "transparency" in image.info else image
        coloured = step.convert("RGB")
    return coloured if turn is None else coloured.transpose(turn)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture; reads its header only.

    Raises:
        DataError: it is not a picture.
    """
    with _opened(path) as image:
        width, height = image.size
        turned = _orientation(image) in SIDEWAYS
    return (height, width) if turned else (width, height)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except BROKEN as error:
        raise DataError(f"{path}: is not a readable image: {error}") from error


def _orientation(image: Image.Image) -> int:
    """EXIF's 1 to 8, from the header: `getexif` of a PNG would decode all of it."""
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return int(exif.get(ORIENTATION, 1))
