"""Gain on the new task against the worst loss elsewhere, one point a checkpoint."""

import math
from collections.abc import Iterator
from itertools import count
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mllmtool.evaluation.colours import FAINT, INK, RULE
from mllmtool.evaluation.findings import Point, interpolations, points_of
from mllmtool.evaluation.plot_style import BAND, BLUE, PAPER
from mllmtool.evaluation.results import Results

MARKERS = {"finetune": "o", "tailor": "^", "fuse": "s"}
MANY = 20  # points; beyond it names would hide them
LINE = 11.0  # pixels from one label's middle to the next
Box = tuple[float, float, float]  # left, right and middle, in pixels


def pareto(results: Results) -> Figure:
    """Gain on the new task against the worst loss elsewhere; up and to the right is better."""
    figure = Figure(figsize=(5.6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.axhspan(-100 * results.margin, 100 * results.margin, **BAND)
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
    _label(figure, axes, every, {point.label for point in _named(results)})
    return figure


def _named(results: Results) -> list[Point]:
    """The points that get a name: all, or of many those that no other one dominates."""
    every = points_of(results)
    beaten = {point.checkpoint for point in results.pareto if point.dominated_by}
    return [point for point in every if len(every) <= MANY or point.label not in beaten]


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
    axes.plot(gain, worst, marker, color=colour, ms=7, mec=PAPER, mew=0.8, zorder=3)


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


def _label(figure: Figure, axes: Any, every: list[Point], named: set[str]) -> None:
    """Put each name right of its point, as near as it lies on no other name or point."""
    figure.draw_without_rendering()
    places = [(100 * point.gain, 100 * point.worst) for point in every]
    boxes: list[Box] = [
        (float(x) - 5, float(x) + 5, float(y)) for x, y in axes.transData.transform(places)
    ]
    nought = float(axes.transData.transform((0, 0))[1])
    taken = [*boxes, (-math.inf, math.inf, nought)]
    for point, place, (left, _, y) in zip(every, places, boxes, strict=True):
        if point.label not in named:
            continue
        start, end = left + 14, left + 20 + 5.2 * len(point.label)
        shift = next(step for step in _nearest() if not _hits((start, end, y + step), taken))
        taken.append((start, end, y + shift))
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
