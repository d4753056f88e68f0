"""What is answered, whatever is right: letters chosen, and the image's class instead."""

import math
from collections.abc import Callable
from typing import Any

from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from mllmtool.evaluation.colours import FAINT, INK
from mllmtool.evaluation.plot_style import ORANGE, PAPER
from mllmtool.evaluation.results import Cell, Results

ACROSS = 3  # panels in a row
PALE, DEEP = 0.18, 0.95  # how strong the first and the last letter are


def letters(results: Results) -> Figure:
    """How often each letter is chosen, a panel a task, a bar a checkpoint; grey, no choice read."""
    tasks = list(dict.fromkeys(cell.task for cell in results.cells if cell.letter_hist))
    return _panels(results, tasks, _bars)


def mischoice(results: Results) -> Figure:
    """Share of items where the class of the image is chosen instead, of those that offer it."""
    tasks = list(dict.fromkeys(cell.task for cell in results.cells if "mischoice" in cell.metrics))
    return _panels(results, tasks, _slips)


def _panels(results: Results, tasks: list[str], draw: Callable[[Any, list[Cell]], None]) -> Figure:
    """A panel a task, a line of it a checkpoint."""
    across = min(ACROSS, len(tasks))
    down = math.ceil(len(tasks) / across)
    height = 0.65 + 0.2 * len(results.checkpoints)
    figure = Figure(figsize=(1.4 + 2.6 * across, down * height), layout="constrained")
    panels = list(figure.subplots(down, across, sharey=True, sharex=True, squeeze=False).flat)
    for axes, task in zip(panels, tasks, strict=False):
        axes.set_title(task, fontsize=8.5, fontweight="bold")
        draw(axes, [results.cell(row.label, task) for row in results.checkpoints])
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    return figure


def _slips(axes: Any, cells: list[Cell]) -> None:
    there = [
        (place, cell.metrics["mischoice"])
        for place, cell in enumerate(cells)
        if "mischoice" in cell.metrics
    ]
    boxes = [_box(0.0, 100 * score.value, place) for place, score in there]
    axes.add_collection(PolyCollection(boxes, facecolor=ORANGE, edgecolor=PAPER, lw=0.5, alpha=0.7))
    low = [100 * score.ci.lower for _, score in there]
    high = [100 * score.ci.upper for _, score in there]
    axes.hlines([place for place, _ in there], low, high, color=INK, lw=1)
    _frame(axes, cells)
    axes.set(ylim=(len(cells) - 0.5, -0.5), xlim=(0, max([10.0, *high]) * 1.05))
    axes.set_xlabel("mis-choice, %", fontsize=8, color=FAINT)


def _bars(axes: Any, cells: list[Cell]) -> None:
    names = list(dict.fromkeys(name for cell in cells for name in cell.letter_hist or {}))
    left = [0.0] * len(cells)
    for place, name in enumerate(names):
        shares = [_share(cell, name) for cell in cells]
        strength = PALE + (DEEP - PALE) * place / max(1, len(names) - 2)
        colour = FAINT if name == "null" else (0.13, 0.4, 0.675, min(1.0, strength))
        boxes = [
            _box(start, share, place)
            for place, (start, share) in enumerate(zip(left, shares, strict=True))
        ]
        axes.add_collection(PolyCollection(boxes, facecolor=colour, edgecolor=PAPER, lw=0.5))
        left = [start + share for start, share in zip(left, shares, strict=True)]
        if shares[0] > 6:
            middle = left[0] - shares[0] / 2
            axes.text(middle, -0.95, "–" if name == "null" else name, ha="center", fontsize=7)
    _frame(axes, cells)
    axes.set(xlim=(0, 100), ylim=(len(cells) - 0.5, -1.3), xticks=(0, 50, 100))


def _frame(axes: Any, cells: list[Cell]) -> None:
    axes.set_yticks(range(len(cells)), [cell.checkpoint for cell in cells], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _box(start: float, width: float, place: int) -> list[tuple[float, float]]:
    """The corners of a bar."""
    low, high = place - 0.4, place + 0.4
    return [(start, low), (start + width, low), (start + width, high), (start, high)]


def _share(cell: Cell, name: str) -> float:
    counts = cell.letter_hist or {}
    return 100 * counts.get(name, 0) / max(1, sum(counts.values()))
