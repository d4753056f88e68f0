"""Pictures from disk, upright and RGB."""

from pathlib import Path

from PIL import Image, ImageOps

from mllmtool.errors import DataError

ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF: turned by a quarter
BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def open_image(path: Path) -> Image.Image:
    """Decode a picture.

    Raises:
        DataError: it is not one.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            # by RGBA, as a palette's transparency makes Pillow warn otherwise
            step = upright.convert("RGBA") if "transparency" in upright.info else upright
            return step.convert("RGB")
    except BROKEN as error:
        raise DataError(f"{path}: is not a readable image: {error}") from error


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture; reads its header only.

    Raises:
        DataError: it is not a picture.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ORIENTATION) in SIDEWAYS
    except BROKEN as error:
        raise DataError(f"{path}: is not a readable image: {error}") from error
    return (height, width) if turned else (width, height)
