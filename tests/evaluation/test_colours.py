"""Colours that can be read."""

from hypothesis import example, given
from hypothesis import strategies as st

from mllmtool.evaluation.colours import NIGHT, WHITE, heat, ink, shade


def luminance(colour: str) -> float:
    """WCAG 2, relative luminance."""
    linear = []
    for start in (1, 3, 5):
        channel = int(colour[start : start + 2], 16) / 255
        linear.append(channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_ends() -> None:
    assert [shade(delta) for delta in (-1.0, -0.5, 0.0, 0.5, 1.0)] == [
        "#c2570c",
        "#c2570c",
        "#ffffff",
        "#2166ac",
        "#2166ac",
    ]


@given(st.floats(-1, 1))
@example(0.359375)
def test_text_stands_out_by_day_and_by_night(delta: float) -> None:
    """Contrast of 3.8 and more to 1; WCAG asks 3 of large text."""
    for paper in (WHITE, NIGHT):
        both = (luminance(shade(delta, paper)), luminance(ink(delta, paper)))
        light, dark = sorted(both, reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.8


def test_no_change_has_the_papers_colour() -> None:
    assert heat(0.0) == "--d:#ffffff;--i:#1f2933;--n:#161b21;--o:#ffffff"
