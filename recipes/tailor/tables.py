"""Tables of Model Tailor: the new task, the original ones and the H-score of every checkpoint.

    python recipes/tailor/tables.py NAME SCALE OUT EVAL/report.json [EVAL/report.json ...]

One report a seed. NAME is a topic of claims.py. The H-score is the harmonic mean of the mean over
the original tasks and the mean over the new ones. Of one seed figures have intervals over items:
those of means and H-scores combine the tasks' (Zou and Donner 2008) as if these were independent.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "figures"))
from claims import TOPICS, Claim, Topic
from findings import Estimate, Finding, compared
from pages import Page, Table, write
from readings import read, score, spread

from mllmtool.evaluation.results import Results
from mllmtool.reports.figures import save_png

MEASURES = {"new": "new task", "original": "original tasks", "average": "average", "h": "H-score"}
LEVELS = np.arange(0.1, 1.0, 0.1)  # of the H-score's curves
Figures = dict[str, Estimate]  # by measure


def main() -> None:
    """Write the page and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=TOPICS)
    parser.add_argument("scale")
    parser.add_argument("out", type=Path)
    parser.add_argument("reports", type=Path, nargs="+")
    arguments = parser.parse_args()
    topic, seeds = TOPICS[arguments.name], [read(path) for path in arguments.reports]
    arguments.out.mkdir(parents=True, exist_ok=True)
    told = {
        row.label: [measured(seed, row.label) for seed in seeds] for row in seeds[0].checkpoints
    }
    pictures = {"Original tasks against the new one": "plane.png"}
    draw_plane(told, arguments.out / "plane.png")
    if sweeps(told):
        pictures["Both by what is kept"] = "shares.png"
        draw_shares(told, arguments.out / "shares.png")
    page = Page(
        name=arguments.name,
        title=f"{topic.title}, {len(seeds)} seed(s)",
        lead=topic.lead,
        scale=arguments.scale,
        findings=findings(topic, told),
        tables=[summary(topic, told), by_task(seeds)],
        pictures=pictures,
        notes=(
            *topic.notes,
            "Scores in %: of one seed with the interval over items, of several"
            " their mean, least and most.",
        ),
    )
    write(page, arguments.out, told)


def measured(results: Results, label: str) -> Figures:
    """Mean over the new tasks, over the original ones and over all, and the H-score."""
    new, original = (
        [score(results, label, task.name) for task in results.tasks if task.role == role]
        for role in ("new", "original")
    )
    one, two = mean(new), mean(original)
    return {
        "new": one,
        "original": two,
        "average": mean([*new, *original]),
        "h": harmonic(one, two),
    }


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent figures."""
    value = fmean(one.value for one in estimates)
    below = math.hypot(*(one.value - one.low for one in estimates)) / len(estimates)
    above = math.hypot(*(one.high - one.value for one in estimates)) / len(estimates)
    return Estimate(value, value - below, value + above)


def harmonic(one: Estimate, two: Estimate) -> Estimate:
    """The harmonic mean of two independent figures."""

    def of(first: float, second: float) -> float:
        return 2 * first * second / (first + second) if first + second else 0.0

    value = of(one.value, two.value)
    below = math.hypot(value - of(one.low, two.value), value - of(one.value, two.low))
    above = math.hypot(of(one.high, two.value) - value, of(one.value, two.high) - value)
    return Estimate(value, value - below, value + above)


def findings(topic: Topic, told: dict[str, list[Figures]]) -> list[Finding]:
    """The claims whose two checkpoints there are."""
    return [
        finding(claim, [seed[claim.of] for seed in first], [seed[claim.of] for seed in second])
        for claim in topic.claims
        if (first := told.get(claim.first)) and (second := told.get(claim.second))
    ]


def finding(claim: Claim, first: list[Estimate], second: list[Estimate]) -> Finding:
    """How far the first lies above the share of the second."""
    wanted = [Estimate(*(claim.share * end for end in one)) for one in second]
    return Finding(claim.text, *compared(first, wanted), paper=claim.paper)


def summary(topic: Topic, told: dict[str, list[Figures]]) -> Table:
    """Every checkpoint's figures, the paper's beside them."""
    paper = {label: [f"{average:.2f}", f"{h:.2f}"] for label, average, h in topic.paper}
    rows = [
        [
            label,
            *(spread([seed[measure] for seed in seeds], "") for measure in MEASURES),
            *(paper.get(label, ["", ""]) if paper else []),
        ]
        for label, seeds in told.items()
    ]
    head = [
        "checkpoint",
        *MEASURES.values(),
        *(["paper: average", "paper: H-score"] if paper else []),
    ]
    return Table("Checkpoints", head, rows)


def by_task(seeds: Sequence[Results]) -> Table:
    """Every checkpoint on every task, the mean of the seeds."""
    tasks = [task.name for task in seeds[0].tasks if task.role != "heldout"]
    rows = [
        [
            row.label,
            *(
                f"{100 * fmean(score(s, row.label, name).value for s in seeds):.1f}"
                for name in tasks
            ),
        ]
        for row in seeds[0].checkpoints
    ]
    return Table("Tasks", ["checkpoint", *tasks], rows)


def ways(told: dict[str, list[Figures]]) -> dict[str, dict[str, list[Figures]]]:
    """Checkpoints by way and strengths: `anchored-0.1-3` is `anchored` at `0.1-3`."""
    found: dict[str, dict[str, list[Figures]]] = {}
    for label, seeds in told.items():
        way = re.sub(r"(-[0-9.]+)+$", "", label)
        found.setdefault(way, {})[label[len(way) + 1 :]] = seeds
    return found


def sweeps(told: dict[str, list[Figures]]) -> dict[str, dict[str, list[Figures]]]:
    """The ways of three or more shares, and of no other strength."""
    return {
        way: points
        for way, points in ways(told).items()
        if len(points) > 2 and not any("-" in strength for strength in points)
    }


def average(seeds: Sequence[Figures], measure: str) -> float:
    """The mean of the seeds in points."""
    return 100 * fmean(seed[measure].value for seed in seeds)


def draw_plane(told: dict[str, list[Figures]], path: Path) -> None:
    """Every checkpoint between the new task and the original ones, on curves of equal H-score."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for place, (way, points) in enumerate(ways(told).items()):
        places = [
            [average(seeds, name) for name in ("new", "original")] for seeds in points.values()
        ]
        style = {"color": f"C{place % 10}", "marker": "osv^D*Px<>"[place // 10]}
        line = "" if any("-" in strength for strength in points) else "-"  # of one strength
        axes.plot(*np.array(places).T, line, lw=0.6, ms=5, label=way, **style)
        for strength, there in zip(points, places, strict=True):
            axes.annotate(strength, there, (3, 3), textcoords="offset points", fontsize=6)
    left, right, low, high = (*axes.get_xlim(), *axes.get_ylim())
    across, up = np.meshgrid(np.linspace(max(left, 0.1), right), np.linspace(max(low, 0.1), high))
    heights = axes.contour(
        across, up, 2 * across * up / (across + up), 100 * LEVELS, colors="#66727f", linewidths=0.4
    )
    axes.clabel(heights, fontsize=6)
    axes.set_xlabel("new task, %")
    axes.set_ylabel("mean of the original tasks, %")
    figure.legend(loc="outside right upper", frameon=False, fontsize=7.5)
    axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path, dpi=160)


def draw_shares(told: dict[str, list[Figures]], path: Path) -> None:
    """The new task and the original ones against the share that is kept."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, measure in zip(figure.subplots(1, 2), ("new", "original"), strict=True):
        for way, points in sweeps(told).items():
            values = [average(seeds, measure) for seeds in points.values()]
            label = way if measure == "new" else None
            axes.plot([float(kept) for kept in points], values, "-o", ms=4, label=label)
        axes.axhline(average(told["base"], measure), color="#66727f", lw=0.8, ls=":")
        axes.set_xscale("log")
        axes.set_xlabel("share that is kept")
        axes.set_title(f"{MEASURES[measure]}, %; dotted the base", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=4)
    save_png(figure, path, dpi=160)


if __name__ == "__main__":
    main()
