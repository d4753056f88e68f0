"""What a mix is made of: counts for the report, and a bar for the eye."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mllmtool.data.checks import DUPLICATE, EXCLUDED, GOOD, INVALID
from mllmtool.data.mixing import Draws, Integers
from mllmtool.data.rows import Rows

WIDTH, BAR, LINE, EDGE = 720, 36, 20, 12  # pixels
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Tol, 2021


def of_rows(rows: Rows) -> dict[str, Any]:
    """How many rows of a source were read, and how many cannot be in the mix and why."""
    states = np.bincount(rows.fields["state"], minlength=len(EXCLUDED) + 3)
    return {
        "rows_read": len(rows),
        "rows_invalid": int(states[INVALID]),
        "rows_duplicate": int(states[DUPLICATE]),
        "rows_excluded": {reason: int(states[state]) for reason, state in EXCLUDED.items()},
        "rows_usable": int(states[GOOD]),
    }


def of_mix(drawn: Draws, rows: Sequence[Rows]) -> dict[str, Any]:
    """How many rows have so many turns, and so many characters.

    Characters go by powers of two: "64" are the rows of 33 to 64.
    """
    turns, chars = (
        np.concatenate([each.fields[name][drawn.indices[drawn.sources == source]]
        for source, each in enumerate(rows)])
        for name in ("turns", "chars")
    )  # fmt: skip
    bins = np.ceil(np.log2(np.maximum(chars, 1))).astype(int)
    return {"turns": _histogram(turns), "chars": _histogram(2**bins)}


def fields_of(name: str, source: int, drawn: Draws, rows: Rows) -> npt.NDArray[np.int64]:
    """A field of the rows that a mix draws from a source."""
    chosen: npt.NDArray[np.int64] = drawn.indices[drawn.sources == source].astype(np.int64)
    return np.asarray(rows.fields[name][chosen], np.int64)


def _histogram(values: Integers) -> dict[str, int]:
    found, counts = np.unique(values, return_counts=True)
    return {str(value): count for value, count in zip(found, counts.tolist(), strict=True)}


def draw_bar(counts: Mapping[str, int], path: Path) -> None:
    """A PNG: one bar, a piece a source, and a line of names and shares below for each."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH, 2 * EDGE + BAR + LINE * (len(counts) + 1)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    total, left = sum(counts.values()), 0
    for number, (name, count) in enumerate(counts.items()):
        colour = COLOURS[number % len(COLOURS)]
        ends = [EDGE + (WIDTH - 2 * EDGE) * at // total for at in (left, left + count)]
        if count:
            draw.rectangle((ends[0], EDGE, max(*ends) - 1, EDGE + BAR), fill=colour)
        top = 2 * EDGE + BAR + LINE * number
        draw.rectangle((EDGE, top + 2, EDGE + 12, top + 14), fill=colour)
        text = f"{name}: {count} of {total} rows, {100 * count / total:.2f}%"
        draw.text((EDGE + 20, top), text, fill="black", font=font)
        left += count
    image.save(path)
