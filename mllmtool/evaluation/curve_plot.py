"""Scores over the steps of a run, by quadrant: what is learnt, and what is forgotten meanwhile."""

import re
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mllmtool.evaluation.colours import FAINT, RULE
from mllmtool.evaluation.plot_style import DASHES, PAPER, SERIES, VERDICT_COLOURS
from mllmtool.evaluation.results import CheckpointRow, QuadrantRow, Results
from mllmtool.evaluation.scoring import QUADRANTS
from mllmtool.evaluation.wording import quadrant

COUNTED = r"[-_.]?(checkpoint|step|iter)?[-_.]?\d+$"  # how a label ends that tells the step
FEW = 4  # runs whose intervals can be told apart
MARKS = {"kept": "o", "forgot": "X", "undecided": "d"}


def series_of(results: Results) -> dict[str, list[CheckpointRow]]:
    """Checkpoints by run, in the order of their steps; a run's are called alike but for a number.

    A checkpoint that is alone in its run makes no curve.
    """
    runs: dict[str, list[CheckpointRow]] = {}
    for row in results.others:
        if row.step is not None:
            runs.setdefault(re.sub(COUNTED, "", row.label) or "run", []).append(row)
    return {
        run: sorted(rows, key=lambda row: row.step or 0)
        for run, rows in runs.items()
        if len(rows) > 1
    }


def curves(results: Results) -> Figure:
    """The mean of each quadrant, from the base at step 0 on; dashed, the base's."""
    names = [cell.name for cell in QUADRANTS if cell.name in results.matrix(results.base.label)]
    runs = series_of(results)
    figure = Figure(figsize=(0.7 + 2.5 * len(names), 2.9), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False).flat
    for axes, name in zip(panels, names, strict=True):
        base = results.matrix(results.base.label)[name]
        role = "new task" if base.role == "new" else "original"
        axes.set_title(f"{quadrant(name)}\n{role}", fontsize=8.5, fontweight="bold")
        axes.axhline(100 * base.mean, color=FAINT, lw=0.9, ls=(0, (4, 3)))
        for number, (run, rows) in enumerate(runs.items()):
            cells = [results.matrix(row.label)[name] for row in rows]
            _curve(axes, number, [base, *cells], [0, *[row.step or 0 for row in rows]], len(runs))
            axes.lines[-1].set_label(run)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=RULE, lw=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("step", fontsize=8, color=FAINT)
    panels[0].set_ylabel("score, %")
    if len(runs) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    return figure


def _curve(axes: Any, number: int, rows: list[QuadrantRow], steps: list[int], total: int) -> None:
    """One run: a line with the 95 % band of its deltas, and a mark a verdict."""
    colour, dash = SERIES[number % len(SERIES)], DASHES[number // len(SERIES) % len(DASHES)]
    base = rows[0].mean
    if total <= FEW:
        low = [100 * (base + row.ci.lower) for row in rows]
        high = [100 * (base + row.ci.upper) for row in rows]
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)
    for verdict, mark in MARKS.items():
        there = [
            (step, 100 * row.mean)
            for step, row in zip(steps, rows, strict=True)
            if step and row.verdict == verdict
        ]
        if there:
            edge = VERDICT_COLOURS[verdict] if total == 1 else colour
            axes.plot(
                *zip(*there, strict=True), mark, color=edge, ms=6, mec=PAPER, mew=0.7, zorder=4
            )
    axes.plot(steps, [100 * row.mean for row in rows], dash, color=colour, lw=1.4, zorder=3)
