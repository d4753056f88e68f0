"""Pictures of the results, the same bytes for the same results: PNG files, and SVG for the page."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mllmtool.evaluation.answer_plots import letters, mischoice
from mllmtool.evaluation.colours import FAINT, INK, ink, shade
from mllmtool.evaluation.curve_plot import MARKS, curves, series_of
from mllmtool.evaluation.findings import points_of
from mllmtool.evaluation.pareto_plot import pareto
from mllmtool.evaluation.plot_style import BAND, PAPER, STYLE, VERDICT_COLOURS, svg
from mllmtool.evaluation.results import QuadrantRow, Results, Stages
from mllmtool.evaluation.scoring import QUADRANTS
from mllmtool.evaluation.wording import SYMBOLS, quadrant, signed, span
from mllmtool.reports.figures import save_png

ACROSS = 5  # panels in a row


class Picture(NamedTuple):
    """How a figure is drawn, and its title where the page shows it too."""

    draw: Callable[[Results], Figure]
    title: str | None = None


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Write every picture that the results have figures for; return those of the page, as SVG."""
    shown = {}
    with matplotlib.rc_context(STYLE):
        for name, picture in _pictures(results):
            figure = picture.draw(results)
            save_png(figure, folder / f"{name}.png", dpi=160)
            if picture.title:
                shown[name] = svg(figure, picture.title)
    return shown


def _pictures(results: Results) -> Iterator[tuple[str, Picture]]:
    if results.others:
        yield "matrix", Picture(_matrix)
        yield "forest", Picture(_forest, "Deltas of every quadrant with their intervals")
    if len(points_of(results)) > 1:
        title = "Gain on the new task against the worst delta of the other quadrants"
        yield "pareto", Picture(pareto, title)
    if series_of(results):
        yield "curves", Picture(curves, "Score in each quadrant over the steps of a run")
    if any(cell.letter_hist for cell in results.cells):
        yield "letters", Picture(letters)
    if any("mischoice" in cell.metrics for cell in results.cells):
        yield "mischoice", Picture(mischoice)
    if (stages := results.stages) is not None:
        yield "stages", Picture(lambda _: _stages(stages))


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
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=shade(row.delta), edgecolor=PAPER, lw=2))
    text = f"{SYMBOLS[row.verdict]} {signed(row.delta)}"
    style = {"ha": "center", "va": "center", "color": ink(row.delta)}
    axes.text(x + 0.5, y + 0.4, text, fontsize=10.5, fontweight="bold", **style)
    axes.text(x + 0.5, y + 0.72, span(row.ci), fontsize=6.5, **style)


def _stages(stages: Stages) -> Figure:
    """The score of every task after every stage, shaded by its change; framed, a stage's own."""
    across, down = len(stages.tasks), len(stages.checkpoints)
    figure = Figure(figsize=(1.6 + 0.95 * across, 0.6 + 0.42 * down), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(stages.scores):
        for x, score in enumerate(row):
            change, own = score - stages.scores[0][x], x == y - 1
            edge: Any = {"edgecolor": INK, "lw": 1.5, "zorder": 2} if own else {"edgecolor": PAPER}
            box = Rectangle((x, y), 1, 1, facecolor=shade(change), clip_on=False, **edge)
            axes.add_patch(box)
            style: Any = {"ha": "center", "va": "center", "color": ink(change), "fontsize": 9}
            axes.text(x + 0.5, y + 0.5, f"{100 * score:.1f}", **style)
    axes.set(xlim=(0, across), ylim=(down, 0))
    axes.set_xticks([x + 0.5 for x in range(across)], stages.tasks, fontsize=8)
    axes.set_yticks([y + 0.5 for y in range(down)], stages.checkpoints, fontsize=8)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def _forest(results: Results) -> Figure:
    """Deltas of every quadrant with 95 % intervals; thick, the bounds that verdicts read."""
    names = [cell.name for cell in QUADRANTS if cell.name in results.matrix(results.base.label)]
    height = 1.2 + 0.34 * len(results.others)
    figure = Figure(figsize=(2.2 + 2.3 * len(names), height), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False).flat
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(quadrant(name), fontsize=8.5, fontweight="bold")
        axes.axvspan(-100 * results.margin, 100 * results.margin, **BAND)
        axes.axvline(0, color=FAINT, lw=0.8)
        _whiskers(axes, [results.matrix(row.label)[name] for row in results.others])
        axes.set_ylim(len(results.others) - 0.5, -0.5)
        axes.set_yticks(range(len(results.others)), [row.label for row in results.others])
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xlabel("delta to the base, pp", fontsize=8, color=FAINT)
    return figure


def _whiskers(axes: Any, rows: Sequence[QuadrantRow]) -> None:
    """Thin, the interval; thick, the bounds; a mark a verdict."""
    for verdict, mark in MARKS.items():
        there = [(place, row) for place, row in enumerate(rows) if row.verdict == verdict]
        places, colour = [place for place, _ in there], VERDICT_COLOURS[verdict]
        for width, spans in ((1, [r.ci for _, r in there]), (3, [r.bounds for _, r in there])):
            low, high = [100 * one.lower for one in spans], [100 * one.upper for one in spans]
            axes.hlines(places, low, high, color=colour, lw=width)
        deltas = [100 * row.delta for _, row in there]
        axes.plot(deltas, places, mark, color=colour, ms=6, mec=PAPER, mew=0.8)
