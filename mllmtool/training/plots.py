"""The run as one picture: loss, learning rate and, if there was a probe, its quadrants."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from mllmtool.reports.figures import PLAIN, save_png

STYLE: Any = {**PLAIN, "font.size": 8}


def draw_curves(
    curve: Sequence[dict[str, float]], points: Sequence[dict[str, Any]], path: Path
) -> None:
    """Write the PNG; the same bytes for the same curves."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 + 2.6 * bool(points), 3.6), layout="constrained")
        columns = 2 if points else 1
        steps = [point["step"] for point in curve]
        for row, key in enumerate(("loss", "learning_rate")):
            axes = figure.add_subplot(2, columns, 1 + row * columns)
            axes.plot(steps, [point[key] for point in curve], color="#1a5fb4", linewidth=1)
            axes.set_ylabel(key.replace("_", " "))
            axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("step")
        if points:
            _probe(figure.add_subplot(1, 2, 2), points)
        save_png(figure, path, dpi=140)


def _probe(axes: Any, points: Sequence[dict[str, Any]]) -> None:
    steps = [point["step"] for point in points]
    for role, dashes in (("new", "--"), ("original", "-")):
        for name in points[0]["quadrants"][role]:
            values = [point["quadrants"][role][name] for point in points]
            words = name.replace("_text_", " text, ").replace("_image", " image")
            axes.plot(steps, values, dashes, marker=".", linewidth=1, label=f"{role}: {words}")
    axes.set_ylim(0, 1)
    axes.set_xlabel("step")
    axes.set_ylabel("share right, by option likelihood")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=6, frameon=False)
