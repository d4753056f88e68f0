"""Pictures of a change: a heat map by block and module, and curves over the depth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure

from mllmtool.checkpoints.dtypes import Array
from mllmtool.fusion.places import Place
from mllmtool.reports.figures import PLAIN, save_png

HEAT_MAP_NAME = "drift.png"
INK, SOFT, SAME = "#222222", "#767676", "#e9e9e9"
SERIES = ("#1a5fb4", "#d55e00", "#009e73", "#cc79a7")
STYLE: Any = {
    **PLAIN,
    "font.size": 7,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": "#bbbbbb",
    "xtick.color": SOFT,
    "ytick.color": INK,
}
GAPS: Any = {"edgecolors": "white", "linewidth": 0.6}
CELL, LETTER, BETWEEN, SCALE = 0.18, 0.062, 0.42, 0.6  # inches
MIN_BLOCKS = 14  # in the width
DECADES = 3  # of the scale of colours, at most
OUTSIDE = 24  # modules outside of the blocks that are drawn, those that went furthest
LABEL = "change / base, L2 norms"


def draw_heat_map(modules: Mapping[Place, Mapping[str, Any]], path: Path) -> None:
    """Write the PNG: how far each module of each block went; the same bytes for the same drift."""
    panels = _panels(modules)
    widest = max(MIN_BLOCKS, *(grid.shape[1] for *_, grid in panels))
    left = 0.1 + LETTER * max(len(name) for _, names, _ in panels for name in names)
    rows = sum(len(names) for _, names, _ in panels)
    width, height = left + widest * CELL + 0.2, rows * CELL + len(panels) * BETWEEN + SCALE
    ends = _range(np.concatenate([grid.ravel() for *_, grid in panels]))
    with matplotlib.rc_context(STYLE):
        figure, top = Figure(figsize=(width, height)), height
        for panel in panels:
            inches = len(panel[1]) * CELL
            top -= inches + BETWEEN
            place = (left / width, (top + 0.2) / height, widest * CELL / width, inches / height)
            image = _draw_panel(figure.add_axes(place), panel, widest, LogNorm(*ends))
        place = (left / width, 0.4 / height, widest * CELL / width, 0.09 / height)
        bar = figure.colorbar(
            image, figure.add_axes(place), orientation="horizontal", extend="min", format="{x:g}"
        )
        bar.minorticks_off()
        bar.set_ticks(_ticks(*ends))
        bar.set_label(f"{LABEL}; grey: as in the base", loc="left")
        bar.outline.set_visible(False)
        save_png(figure, path, dpi=150)


def draw_depth(blocks: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the PNG: each stack's change and share of changed entries, from block to block."""
    stacks = sorted({row["stack"] for row in blocks})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 4.2), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True)
        for number, stack in enumerate(stacks):
            rows = [row for row in blocks if row["stack"] == stack]
            look = {"color": SERIES[number % len(SERIES)], "marker": ".", "linewidth": 1.2}
            depths = [row["block"] for row in rows]
            for axes, key in ((upper, "relative_l2"), (lower, "changed")):
                values = [np.nan if row[key] is None else row[key] for row in rows]
                axes.plot(depths, values, label=f"{rows[0]['part']}: {stack}", **look)
        upper.set_ylabel(LABEL)
        lower.set_ylabel("share of entries changed")
        lower.set_xlabel("block")
        lower.xaxis.get_major_locator().set_params(integer=True)
        for axes in (upper, lower):
            axes.update_datalim([(0, 0)])
            axes.autoscale_view()
            axes.set_ylim(bottom=0)
            axes.grid(axis="y", color="#eeeeee")
            axes.spines[["top", "right"]].set_visible(False)
        if stacks:
            lines = upper.get_legend_handles_labels()
            figure.legend(*lines, loc="outside upper left", frameon=False)
        figure.align_ylabels()
        save_png(figure, path, dpi=150)


def _panels(
    modules: Mapping[Place, Mapping[str, Any]],
) -> list[tuple[str, list[str], Array]]:
    """For each stack its name, its modules, and a row of values by block for each of these."""
    panels = []
    for stack in sorted({place.stack for place in modules if place.stack is not None}):
        here = {place: found for place, found in modules.items() if place.stack == stack}
        names = list(dict.fromkeys(place.module for place in here))
        grid = np.full((len(names), 1 + max(place.block or 0 for place in here)), np.nan)
        for (_, block, module), found in here.items():
            grid[names.index(module), block] = _value(found)
        panels.append((stack, names, grid))
    rest = {place.module: _value(f) for place, f in modules.items() if place.stack is None}
    furthest = sorted(rest, key=lambda name: (-np.nan_to_num(rest[name], nan=-1), name))[:OUTSIDE]
    if furthest:
        values = np.array([[rest[name]] for name in furthest])
        panels.append(("outside of the blocks", furthest, values))
    return panels


def _value(found: Mapping[str, Any]) -> float:
    value = found["relative_l2"]
    return np.nan if value is None else float(value)


def _range(values: Array) -> tuple[float, float]:
    """Where the scale of colours begins, at most some decades below its end."""
    there = values[np.isfinite(values) & (values > 0)]
    if not there.size:
        return 1e-3, 1.0
    largest = float(there.max())
    return max(float(there.min()) * 0.9, largest / 10**DECADES), largest * 1.1


def _ticks(begin: float, end: float) -> list[float]:
    """The powers of ten in the range, and 2 and 5 times these where it is short."""
    first, last = (round(np.log10(value)) for value in (begin, end))
    steps = (1, 2, 5) if last - first < 2 else (1,)
    ticks = [step * 10.0**power for power in range(first - 1, last + 1) for step in steps]
    return [tick for tick in ticks if begin <= tick <= end]


def _draw_panel(axes: Any, panel: tuple[str, list[str], Array], widest: int, norm: LogNorm) -> Any:
    title, names, grid = panel
    same = np.ma.masked_where(~(grid == 0), grid)
    axes.pcolormesh(same, cmap=ListedColormap([SAME]), **GAPS)
    moved = np.ma.masked_where(~(grid > 0), grid)
    image = axes.pcolormesh(moved, cmap=_colours(), norm=norm, **GAPS)
    axes.set_xlim(0, widest)
    axes.set_ylim(len(names), 0)
    axes.set_yticks(np.arange(len(names)) + 0.5, names)
    axes.set_title(title, loc="left", fontsize=7, color=SOFT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if title.startswith("outside"):
        axes.set_xticks([])
        for row, value in enumerate(grid[:, 0]):
            axes.text(1.3, row + 0.5, "" if np.isnan(value) else f"{value:.2g}", va="center")
    else:
        step = max(1, grid.shape[1] // 16)
        axes.set_xticks(np.arange(0, grid.shape[1], step) + 0.5, range(0, grid.shape[1], step))
    return image


def _colours() -> Colormap:
    """From one that is told from the paper on."""
    return ListedColormap(matplotlib.colormaps["YlGnBu"](np.linspace(0.12, 1, 256)))
