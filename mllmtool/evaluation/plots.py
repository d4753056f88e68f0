"""Pictures of the results as PNG, the same bytes for the same results."""

import math
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mllmtool.evaluation.colours import FAINT, GAIN, INK, LOSS, RULE, hexadecimal, ink, shade
from mllmtool.evaluation.findings import Point, interpolations, points_of
from mllmtool.evaluation.results import QuadrantRow, Results
from mllmtool.evaluation.scoring import QUADRANTS
from mllmtool.evaluation.wording import SYMBOLS, quadrant, signed, span

BLUE, ORANGE = hexadecimal(GAIN), hexadecimal(LOSS)
MARKERS = {"finetune": "o", "tailor": "^", "fuse": "s"}
ACROSS = 5  # panels in a row
LINE = 11.0  # pixels from one label's middle to the next
Box = tuple[float, float, float]  # left, right and middle, in pixels
STYLE: Any = {
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": INK,
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write every picture that the results have figures for, and return their paths."""
    pictures: dict[str, Callable[[Results], Figure]] = {}
    if results.others:
        pictures |= {"matrix.png": _matrix, "forest.png": _forest}
    if len(points_of(results)) > 1:
        pictures["pareto.png"] = _pareto
    with matplotlib.rc_context(STYLE):
        for name, picture in pictures.items():
            figure = picture(results)
            FigureCanvasAgg(figure)
            figure.savefig(folder / name, dpi=160, metadata={"Software": None})
    return [folder / name for name in pictures]


def _matrix(results: Results) -> Figure:
    """The 2x2 matrix of each checkpoint: delta to the base, verdict and 95 % interval."""
    down = math.ceil(len(results.others) / ACROSS)
    across = math.ceil(len(results.others) / down)
    figure = Figure(figsize=(1.1 + 2.2 * across, 0.3 + 1.9 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flat
    for place, (axes, row) in enumerate(zip(panels, results.others, strict=False)):
        axes.set_title(row.label, fontsize=9, fontweight="bold")
        axes.set(xlim=(0, 2), ylim=(2, 0), xticks=(0.5, 1.5), yticks=(0.5, 1.5))
        axes.set_xticklabels(["ID image", "OOD image"], fontsize=7.5)
        axes.set_yticklabels(["ID text", "OOD text"] if place % across == 0 else [], fontsize=7.5)
        axes.tick_params(length=0)
        cells = results.matrix(row.label)
        for index, cell in enumerate(QUADRANTS):
            _cell(axes, index % 2, index // 2, cells.get(cell.name))
    for axes in list(figure.axes)[len(results.others) :]:
        axes.set_axis_off()
    return figure


def _cell(axes: Any, x: int, y: int, row: QuadrantRow | None) -> None:
    if row is None:
        axes.text(x + 0.5, y + 0.5, "no task", ha="center", va="center", color=FAINT, fontsize=7)
        return
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=shade(row.delta), edgecolor="white", lw=2))
    text = f"{SYMBOLS[row.verdict]} {signed(row.delta)}"
    style = {"ha": "center", "va": "center", "color": ink(row.delta)}
    axes.text(x + 0.5, y + 0.4, text, fontsize=10.5, fontweight="bold", **style)
    axes.text(x + 0.5, y + 0.72, span(row.ci), fontsize=6.5, **style)


def _forest(results: Results) -> Figure:
    """Deltas of every quadrant with 95 % intervals; thick, the bounds that verdicts read."""
    names = [cell.name for cell in QUADRANTS if cell.name in results.matrix(results.base.label)]
    height = 1.2 + 0.34 * len(results.others)
    figure = Figure(figsize=(2.2 + 2.3 * len(names), height), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False).flat
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(quadrant(name), fontsize=8.5, fontweight="bold")
        axes.axvspan(-100 * results.margin, 100 * results.margin, color=RULE, alpha=0.45, lw=0)
        axes.axvline(0, color=FAINT, lw=0.8)
        for place, row in enumerate(results.others):
            _whisker(axes, place, results.matrix(row.label)[name])
        axes.set_ylim(len(results.others) - 0.5, -0.5)
        axes.set_yticks(range(len(results.others)), [row.label for row in results.others])
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xlabel("delta to the base, pp", fontsize=8, color=FAINT)
    return figure


def _whisker(axes: Any, place: int, row: QuadrantRow) -> None:
    colour = {"kept": BLUE, "forgot": ORANGE, "undecided": FAINT}[row.verdict]
    axes.plot([100 * end for end in row.ci], [place, place], color=colour, lw=1)
    axes.plot([100 * end for end in row.bounds], [place, place], color=colour, lw=3)
    axes.plot(100 * row.delta, place, "o", color=colour, ms=5, mec="white", mew=0.8)


def _pareto(results: Results) -> Figure:
    """Gain on the new task against the worst loss elsewhere; up and to the right is better."""
    figure = Figure(figsize=(5.6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.axhspan(-100 * results.margin, 100 * results.margin, color=RULE, alpha=0.45, lw=0)
    axes.axhline(0, color=FAINT, lw=0.8)
    for line in interpolations(results):
        gains, worsts = [100 * end.gain for end in line], [100 * end.worst for end in line]
        axes.plot(gains, worsts, "--", color=FAINT, lw=1, zorder=1)
    every = points_of(results)
    for point in every:
        _point(axes, results, point)
    axes.set_xlabel("gain on the new task, pp")
    axes.set_ylabel("worst delta of the other quadrants, pp\n(thin line up to their mean)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.14, y=0.12)
    _legend(axes, results)
    _label(figure, axes, every)
    return figure


def _point(axes: Any, results: Results, point: Point) -> None:
    balance = results.balance(point.label)
    if point.label == results.base.label:
        axes.plot(0, 0, "D", color=INK, ms=6, zorder=3)
        return
    row = next(row for row in results.others if row.label == point.label)
    beaten = next(one.dominated_by for one in results.pareto if one.checkpoint == point.label)
    colour = FAINT if beaten else BLUE
    gain, worst, mean = 100 * point.gain, 100 * point.worst, 100 * (balance.mean_delta or 0.0)
    axes.plot([gain, gain], [worst, mean], color=colour, lw=1, zorder=2)
    axes.plot(gain, mean, "_", color=colour, ms=7, zorder=2)
    marker = MARKERS.get((row.made_by or "").split(" ")[0], "D")
    axes.plot(gain, worst, marker, color=colour, ms=7, mec="white", mew=0.8, zorder=3)


def _legend(axes: Any, results: Results) -> None:
    there = {point.label for point in points_of(results)}
    rows = [row for row in results.others if row.label in there]
    made = {(row.made_by or "other").split(" ")[0] for row in rows}
    handles = [
        Line2D([], [], marker=MARKERS.get(name, "D"), ls="", color=FAINT, label=name)
        for name in sorted(made)
    ]
    if any(point.dominated_by for point in results.pareto):
        handles.append(Line2D([], [], marker="o", ls="", color=BLUE, label="not dominated"))
    if interpolations(results):
        handles.append(Line2D([], [], ls="--", color=FAINT, label="interpolation (WiSE-FT)"))
    axes.legend(handles=handles, loc="lower left", frameon=False, fontsize=7.5)


def _label(figure: Figure, axes: Any, every: list[Point]) -> None:
    """Put each name right of its point, as near as it lies on no other name or point."""
    figure.draw_without_rendering()
    places = [(100 * point.gain, 100 * point.worst) for point in every]
    boxes: list[Box] = [
        (float(x) - 5, float(x) + 5, float(y)) for x, y in axes.transData.transform(places)
    ]
    for point, place, (left, _, y) in zip(every, places, list(boxes), strict=True):
        start, end = left + 14, left + 20 + 5.2 * len(point.label)
        shift = next(step for step in _nearest() if not _hits((start, end, y + step), boxes))
        boxes.append((start, end, y + shift))
        axes.annotate(
            point.label,
            place,
            xytext=(8, shift * 72 / figure.dpi),
            textcoords="offset points",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": RULE, "lw": 0.6, "shrinkA": 0, "shrinkB": 3},
        )


def _nearest() -> Iterator[float]:
    """Shifts in pixels: 0, down, up, further down, further up."""
    yield 0.0
    for step in count(3, 3):
        yield from (-step, step)


def _hits(box: Box, boxes: list[Box]) -> bool:
    left, right, y = box
    return any(left < r and right > x and abs(y - b) < LINE for x, r, b in boxes)
