"""Two pictures of what was kept: error by depth, and density by type of layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mllmtool.reports.figures import PLAIN, save_png
from mllmtool.tailoring.presets import block_of

STYLE: Any = {**PLAIN, "font.size": 8}
ERRORS_NAME, DENSITY_NAME = "error_by_depth.png", "density_by_type.png"
Row = Mapping[str, Any]


def draw(rows: Sequence[Row], into: Path) -> None:
    """Write both PNGs; the same bytes for the same rows."""
    with matplotlib.rc_context(STYLE):
        _save(_errors(rows), into / ERRORS_NAME)
        _save(_densities(rows), into / DENSITY_NAME)


def layer_type(name: str) -> str:
    """The module that a tensor is of: `q_proj` of `model.layers.3.self_attn.q_proj.weight`."""
    return name.split(".")[-2] if "." in name else name


def _errors(rows: Sequence[Row]) -> Figure:
    """Median errors of a block's maps, the two solutions of each stack."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    stacks: dict[str, dict[int, list[Any]]] = {}
    for row in rows:
        if (block := block_of(row["tensors"][0])) and row["tasks"] and row["mixes"]:
            stacks.setdefault(block[0], {}).setdefault(block[1], []).extend(row["tasks"])
    for place, (stack, blocks) in enumerate(sorted(stacks.items())):
        for key, dashes in (("mask_only", ":"), ("tailored", "-")):
            depths = sorted(blocks)
            values = [_median([task[key] for task in blocks[depth]]) for depth in depths]
            label = f"{stack}: {key.replace('_', ' ')}"
            axes.plot(depths, values, dashes, marker=".", color=f"C{place}", label=label)
    axes.set_xlabel("block")
    axes.set_ylabel("relative error (1: the base put back)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if stacks:
        figure.legend(loc="outside lower center", ncols=2, fontsize=7, frameon=False)
    return figure


def _densities(rows: Sequence[Row]) -> Figure:
    """The share of entries kept of each type of layer."""
    types: dict[str, list[int]] = {}
    for row in rows:
        total = types.setdefault(layer_type(row["tensors"][0]), [0, 0])
        total[0], total[1] = total[0] + row["kept"], total[1] + row["entries"]
    names = sorted(types, key=lambda name: (types[name][0] / types[name][1], name))
    figure = Figure(figsize=(5.2, 0.8 + 0.18 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(names, [types[name][0] / types[name][1] for name in names], color="#1a5fb4")
    axes.set_xlabel("share of entries kept")
    axes.margins(y=0.02)
    return figure


def _median(values: Sequence[float | None]) -> float:
    there = [value for value in values if value is not None]
    return median(there) if there else float("nan")


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path, dpi=140)
