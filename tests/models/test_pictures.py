"""Pictures from disk."""

import warnings
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from mllmtool.errors import DataError
from mllmtool.models.memo import Memo
from mllmtool.models.pictures import image_size, open_image


def test_turned_photograph_is_set_upright(tmp_path: Path) -> None:
    photo = Image.new("RGB", (4, 2))
    photo.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    photo.save(tmp_path / "a.png", exif=exif)
    upright = open_image(tmp_path / "a.png")
    assert upright.size == image_size(tmp_path / "a.png") == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_as_pillow_sets_it_upright(tmp_path: Path, orientation: int) -> None:
    photo = Image.effect_noise((6, 4), 90).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        theirs = ImageOps.exif_transpose(opened).convert("RGB")
    ours = open_image(tmp_path / "a.png")
    assert ours.tobytes() == theirs.tobytes()
    assert image_size(tmp_path / "a.png") == theirs.size


def test_palette_with_transparency_becomes_rgb_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=b"\x00\xff")
    opened = open_image(tmp_path / "a.png")
    assert (opened.mode, opened.getpixel((0, 0))) == ("RGB", (10, 20, 30))


def test_cut_off_picture_is_an_error(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    assert image_size(tmp_path / "a.png") == (64, 64)
    with pytest.raises(DataError, match=r"a\.png: is not a readable image: "):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_picture_that_would_fill_memory_is_refused(tmp_path: Path, side: int) -> None:
    # Pillow only warns of 89 to 178 million pixels, and would decode them
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    for read in (image_size, open_image):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as outside of pytest, where they are no errors
            with pytest.raises(DataError) as caught:
                read(tmp_path / "bomb.png")
        assert str(caught.value).startswith(
            f"{tmp_path}/bomb.png: is not a readable image: Image size ({side**2} pixels) exceeds "
        )


def test_memory_keeps_what_fits_and_makes_the_rest_anew() -> None:
    made: list[str] = []

    def make(text: str) -> str:
        made.append(text)
        return text

    memo = Memo(5, size=len)
    for text in ("abc", "def", "gh", "abc", "def", "gh"):
        assert memo.get(text, lambda text=text: make(text)) == text  # type: ignore[misc]
    assert made == ["abc", "def", "gh", "def"]
    assert memo.bytes_left == 0
