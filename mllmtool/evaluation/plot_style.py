"""How figures look, and their bytes: PNG files, and SVG that takes the page's colours."""

import io
import re
from typing import Any

from matplotlib.figure import Figure

from mllmtool.evaluation.colours import FAINT, GAIN, INK, LOSS, RULE, hexadecimal
from mllmtool.reports.figures import PLAIN

BLUE, ORANGE, PAPER = hexadecimal(GAIN), hexadecimal(LOSS), "#ffffff"
VERDICT_COLOURS = {"kept": BLUE, "forgot": ORANGE, "undecided": FAINT}
# told apart by any colour vision (Okabe and Ito 2008), without those too pale on white
SERIES = (BLUE, "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("-", "--", ":", "-.")
BAND: Any = {"color": RULE, "alpha": 0.45, "lw": 0}  # the margin
STYLE: Any = {
    **PLAIN,
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "mllmtool",
}
THEME = {  # colours of figures by their names in the page's style
    PAPER: "paper",
    INK: "ink",
    FAINT: "soft",
    RULE: "rule",
    BLUE: "gain",
    ORANGE: "loss",
}
UNDATED = {"Date": None, "Creator": None, "Format": None, "Type": None}


def svg(figure: Figure, title: str) -> str:
    """A figure as an `<svg>` element of a page, which scales it and sets its colours."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=UNDATED)
    text = out.getvalue()
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r' id="(?:figure|axes|patch|text|line2d|legend|xtick|ytick)_\d+"', "", text)
    text = re.sub(r' id="matplotlib\.axis_\d+"', "", text)
    text = re.sub(r"#[0-9a-f]{6}(?=[;\"])", _themed, text)
    width, height, inside = _parts(text)
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    start = (
        f'<svg class="plot" role="img" aria-label="{label}" style="max-width:calc(1.1*{width}pt)"'
    )
    return f'{start} viewBox="0 0 {width} {height}">{inside}'


def _parts(text: str) -> tuple[str, str, str]:
    """Width and height in points, and what follows the opening tag."""
    found = re.search(r'<svg[^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>(.*)', text, re.DOTALL)
    if found is None:
        raise ValueError("matplotlib wrote no view box")
    return found[1], found[2], found[3].replace("xlink:href", "href")


def _themed(match: re.Match[str]) -> str:
    name = THEME.get(match[0])
    return f"var(--{name})" if name else match[0]
